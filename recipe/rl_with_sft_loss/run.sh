#!/usr/bin/env bash
# RL with an SFT loss: the demonstrations of all questions of a step join its RL update.
#
#   MODEL=qwen2.5-math-7b recipe/rl_with_sft_loss/run.sh [key=value ...]
#
# The variables for data, batch sizes and nodes are in examples/train_megatron.sh, the model's in examples/models/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# the demonstrations of all questions of a step, and the weight of their loss
SFT_BATCH_SIZE=${SFT_BATCH_SIZE:-${TRAIN_BATCH_SIZE:-128}}
SFT_WEIGHT=${SFT_WEIGHT:-1.0}
export EXPERIMENT=${EXPERIMENT:-rl_with_sft_loss-${MODEL:-}}
exec examples/train_megatron.sh method=rl_with_sft_loss \
    method.sft.batch_size="$SFT_BATCH_SIZE" method.sft.weight="$SFT_WEIGHT" \
    "$@"
