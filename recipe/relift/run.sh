#!/usr/bin/env bash
# ReLIFT: GRPO on all questions, supervised updates on those that every rollout fails.
#
#   MODEL=qwen2.5-math-7b recipe/relift/run.sh [key=value ...]
#
# The variables for data, batch sizes and nodes are in examples/train_megatron.sh, the model's in examples/models/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# demonstrations per supervised update (the paper's M), and its learning rate
SFT_BATCH_SIZE=${SFT_BATCH_SIZE:-64}
SFT_LR=${SFT_LR:-1e-6}
export EXPERIMENT=${EXPERIMENT:-relift-${MODEL:-}}
exec examples/train_megatron.sh method=relift \
    method.sft.batch_size="$SFT_BATCH_SIZE" method.sft.lr="$SFT_LR" \
    "$@"
