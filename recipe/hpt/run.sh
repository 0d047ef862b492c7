#!/usr/bin/env bash
# HPT: where few rollouts are right, the demonstration replaces them.
#
#   MODEL=qwen2.5-math-7b recipe/hpt/run.sh [key=value ...]
#
# The variables for data, batch sizes and nodes are in examples/train_megatron.sh, the model's in examples/models/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# right rollouts of a question that gets its demonstration, at most: 0 for Qwen, 2 for Llama; the coefficient of its loss
MAX_RIGHT=${MAX_RIGHT:-0}
COEFF=${COEFF:-1.0}
# learning rate of the RL update
export LR=${LR:-5e-6}
export EXPERIMENT=${EXPERIMENT:-hpt-${MODEL:-}}
exec examples/train_megatron.sh method=hpt \
    method.max_right="$MAX_RIGHT" method.coeff="$COEFF" \
    "$@"
