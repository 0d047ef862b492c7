#!/usr/bin/env bash
# Online ReGFT: hardest questions are answered with the solution in view and learned without it.
#
#   MODEL=qwen2.5-math-7b recipe/regft/run.sh [key=value ...]
#
# The variables for data, batch sizes and nodes are in examples/train_megatron.sh, the model's in examples/models/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# a question with its solution must fit
export MAX_PROMPT_LENGTH=${MAX_PROMPT_LENGTH:-8192}
# of the solution that is shown, and the weight of the supervised loss
FRACTION=${FRACTION:-1.0}
SFT_WEIGHT=${SFT_WEIGHT:-1.0}
export EXPERIMENT=${EXPERIMENT:-regft-${MODEL:-}}
exec examples/train_megatron.sh method=regft \
    method.privileged.fraction="$FRACTION" method.sft.weight="$SFT_WEIGHT" \
    "$@"
