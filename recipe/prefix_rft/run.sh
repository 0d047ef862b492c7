#!/usr/bin/env bash
# Prefix-RFT: one answer of every group begins with the head of the solution.
#
#   MODEL=qwen2.5-math-7b recipe/prefix_rft/run.sh [key=value ...]
#
# The variables for data, batch sizes and nodes are in examples/train_megatron.sh, the model's in examples/models/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# answers of a group that begin with a head; of its tokens that are trained on
ANSWERS=${ANSWERS:-1}
ENTROPY_SHARE=${ENTROPY_SHARE:-0.2}
export EXPERIMENT=${EXPERIMENT:-prefix_rft-${MODEL:-}}
exec examples/train_megatron.sh method=prefix_rft \
    method.answers="$ANSWERS" method.entropy_share="$ENTROPY_SHARE" method.steps="${STEPS:-500}" \
    "$@"
