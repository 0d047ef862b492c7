#!/usr/bin/env bash
# SuperRL: where no rollout is right, the demonstration replaces them.
#
#   MODEL=qwen2.5-math-7b recipe/superrl/run.sh [key=value ...]
#
# The variables for data, batch sizes and nodes are in examples/train_megatron.sh, the model's in examples/models/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# of the demonstrations' loss
COEFF=${COEFF:-1.0}
export EXPERIMENT=${EXPERIMENT:-superrl-${MODEL:-}}
exec examples/train_megatron.sh method=superrl \
    method.coeff="$COEFF" \
    "$@"
