#!/usr/bin/env bash
# Failed questions again in the same step, with more and more guidance.
#
#   MODEL=qwen2.5-math-7b [KIND=prefix|hint|column] recipe/hint_retry/run.sh [key=value ...]
#
# The variables for data, batch sizes and nodes are in examples/train_megatron.sh, the model's in examples/models/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# where guidance stands
KIND=${KIND:-prefix}
# a question with its hint must fit
if [[ $KIND != prefix ]]; then
    export MAX_PROMPT_LENGTH=${MAX_PROMPT_LENGTH:-8192}
fi
export EXPERIMENT=${EXPERIMENT:-hint_retry-${MODEL:-}}
exec examples/train_megatron.sh method=hint_retry \
    method.kind="$KIND" \
    "$@"
