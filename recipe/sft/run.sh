#!/usr/bin/env bash
# Supervised fine-tuning alone, on the demonstrations of all questions.
#
#   MODEL=qwen2.5-math-7b recipe/sft/run.sh [key=value ...]
#
# The variables for data, batch sizes and nodes are in examples/train_megatron.sh, the model's in examples/models/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# three passes over 46,000 questions
SFT_BATCH_SIZE=${SFT_BATCH_SIZE:-128}
SFT_LR=${SFT_LR:-1e-5}
export STEPS=${STEPS:-1080}
export EXPERIMENT=${EXPERIMENT:-sft-${MODEL:-}}
exec examples/train_megatron.sh method=sft \
    method.sft.batch_size="$SFT_BATCH_SIZE" method.sft.lr="$SFT_LR" \
    "$@"
