#!/usr/bin/env bash
# ReLIFT with the values of its authors' released scripts.
#
#   MODEL=qwen2.5-math-7b recipe/relift_authors/run.sh [key=value ...]
#
# The variables for data, batch sizes and nodes are in examples/train_megatron.sh, the model's in examples/models/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# demonstrations per supervised update, and its learning rate
SFT_BATCH_SIZE=${SFT_BATCH_SIZE:-128}
SFT_LR=${SFT_LR:-1e-6}
export EXPERIMENT=${EXPERIMENT:-relift_authors-${MODEL:-}}
exec examples/train_megatron.sh method=relift_authors \
    method.sft.batch_size="$SFT_BATCH_SIZE" method.sft.lr="$SFT_LR" \
    "$@"
