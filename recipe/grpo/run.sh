#!/usr/bin/env bash
# GRPO alone.
#
#   MODEL=qwen2.5-math-7b recipe/grpo/run.sh [key=value ...]
#
# The variables for data, batch sizes and nodes are in examples/train_megatron.sh, the model's in examples/models/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

export EXPERIMENT=${EXPERIMENT:-grpo-${MODEL:-}}
exec examples/train_megatron.sh method=grpo "$@"
