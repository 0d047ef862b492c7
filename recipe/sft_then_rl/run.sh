#!/usr/bin/env bash
# Supervised fine-tuning, then RL from its last checkpoint, by one command.
#
#   MODEL=qwen2.5-math-7b [THEN=relift] recipe/sft_then_rl/run.sh [key=value ...]
#
# The variables for data, batch sizes and nodes are in examples/train_megatron.sh, the model's in examples/models/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# the method of the second stage
THEN=${THEN:-grpo}
# the first stage: three passes over 46,000 questions
SFT_BATCH_SIZE=${SFT_BATCH_SIZE:-128}
SFT_LR=${SFT_LR:-1e-5}
SFT_STEPS=${SFT_STEPS:-1080}
# instead of SFT_STEPS, the folder of a run that has spent as much on demonstrations, tokens or operations
MATCH=${MATCH:-}
BY=${BY:-demonstrations}
first=("'method.sft.batch_size=$SFT_BATCH_SIZE'" "'method.sft.lr=$SFT_LR'")
match=()
if [[ -n $MATCH ]]; then
    match=(method.first.match="$MATCH" method.first.by="$BY")
else
    first+=("'trainer.total_training_steps=$SFT_STEPS'")
fi
export EXPERIMENT=${EXPERIMENT:-sft_then_rl-${MODEL:-}}
exec examples/train_megatron.sh method=sft_then_rl \
    method.first.overrides="[$(IFS=,; echo "${first[*]}")]" \
    method.then.method="$THEN" \
    ${match[@]+"${match[@]}"} \
    "$@"
