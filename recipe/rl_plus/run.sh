#!/usr/bin/env bash
# RL-PLUS: a demonstration in every group, with a ratio to a mixture of policies.
#
#   MODEL=qwen2.5-math-7b recipe/rl_plus/run.sh [key=value ...]
#
# The variables for data, batch sizes and nodes are in examples/train_megatron.sh, the model's in examples/models/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# what is assumed to have written the demonstration: certain, the code's | uniform, the paper's
BEHAVIOR=${BEHAVIOR:-certain}
export EXPERIMENT=${EXPERIMENT:-rl_plus-${MODEL:-}}
exec examples/train_megatron.sh method=rl_plus \
    method.behavior="$BEHAVIOR" \
    "$@"
