#!/usr/bin/env bash
# SRFT: a demonstration in every group, and a weight by entropy on every loss.
#
#   MODEL=qwen2.5-math-7b recipe/srft/run.sh [key=value ...]
#
# The variables for data, batch sizes and nodes are in examples/train_megatron.sh, the model's in examples/models/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# the sign of the entropy in the supervised weight: negative, the paper's | positive, reported of the code
SFT_ENTROPY=${SFT_ENTROPY:-negative}
export EXPERIMENT=${EXPERIMENT:-srft-${MODEL:-}}
exec examples/train_megatron.sh method=srft \
    method.sft_entropy="$SFT_ENTROPY" \
    "$@"
