#!/usr/bin/env bash
# LUFFY: a demonstration in every group, with a shaped loss.
#
#   MODEL=qwen2.5-math-7b recipe/luffy/run.sh [key=value ...]
#
# The variables for data, batch sizes and nodes are in examples/train_megatron.sh, the model's in examples/models/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# of the demonstrations' loss; whether the ratio of rollouts is clipped
COEFF=${COEFF:-1.0}
CLIP=${CLIP:-false}
export EXPERIMENT=${EXPERIMENT:-luffy-${MODEL:-}}
exec examples/train_megatron.sh method=luffy \
    method.coeff="$COEFF" method.clip="$CLIP" \
    "$@"
