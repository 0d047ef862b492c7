#!/usr/bin/env bash
# ReLIFT with its demonstrations in the RL update: one gradient, one optimizer step.
#
#   MODEL=qwen2.5-math-7b recipe/relift_splice/run.sh [key=value ...]
#
# The variables for data, batch sizes and nodes are in examples/train_megatron.sh, the model's in examples/models/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# demonstrations that join an update, and the weight of their loss
SFT_BATCH_SIZE=${SFT_BATCH_SIZE:-64}
SFT_WEIGHT=${SFT_WEIGHT:-1.0}
export EXPERIMENT=${EXPERIMENT:-relift_splice-${MODEL:-}}
exec examples/train_megatron.sh method=relift_splice \
    method.sft.batch_size="$SFT_BATCH_SIZE" method.sft.weight="$SFT_WEIGHT" \
    "$@"
