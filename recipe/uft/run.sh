#!/usr/bin/env bash
# UFT: answers begin with segments of the solution, fewer and fewer of them.
#
#   MODEL=qwen2.5-math-7b recipe/uft/run.sh [key=value ...]
#
# The variables for data, batch sizes and nodes are in examples/train_megatron.sh, the model's in examples/models/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# the last step with guidance, and the coefficient of the supervised term
HINT_STEPS=${HINT_STEPS:-300}
HINT_COEFF=${HINT_COEFF:-1e-3}
# the paper's
export ROLLOUTS=${ROLLOUTS:-4}
KL_COEFF=${KL_COEFF:-0.001}
export EXPERIMENT=${EXPERIMENT:-uft-${MODEL:-}}
exec examples/train_megatron.sh method=uft \
    method.steps="$HINT_STEPS" method.hint_coeff="$HINT_COEFF" \
    actor_rollout_ref.actor.use_kl_loss=true actor_rollout_ref.actor.kl_loss_coef="$KL_COEFF" \
    "$@"
