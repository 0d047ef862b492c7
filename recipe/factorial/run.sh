#!/usr/bin/env bash
# Gate, place in the batch and token weight of a demonstration, each chosen apart.
#
#   MODEL=qwen2.5-math-7b recipe/factorial/run.sh [key=value ...]
#
# The variables for data, batch sizes and nodes are in examples/train_megatron.sh, the model's in examples/models/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# hardest, all or proportional; spliced, in_mean or out_of_mean; one, phi, shaped or probability
SELECT=${SELECT:-hardest}
PLACEMENT=${PLACEMENT:-spliced}
TOKEN_WEIGHT=${TOKEN_WEIGHT:-one}
export EXPERIMENT=${EXPERIMENT:-factorial-${MODEL:-}}
exec examples/train_megatron.sh method=factorial \
    method.trigger.select="$SELECT" method.placement="$PLACEMENT" method.token_weight="$TOKEN_WEIGHT" \
    "$@"
