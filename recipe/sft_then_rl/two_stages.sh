#!/usr/bin/env bash
# Supervised fine-tuning, then RL from its last checkpoint: two_stages.sh COMMAND [key=value ...]
#
# COMMAND trains into $OUTPUT from $MODEL_PATH, as examples/run_*_megatron.sh do. Variables: OUTPUT (both stages get a
# folder in it), THEN (the recipe of the second stage: grpo or relift), SFT_OVERRIDES and RL_OVERRIDES (keys of one
# stage, separated by blanks). Given again after an interruption, it goes on in the stage that was interrupted.
set -euo pipefail

output=${OUTPUT:?the folder of the run}
then=${THEN:-grpo}
command=()
while (($#)) && [[ $1 != *=* ]]; do
    command+=("$1")
    shift
done
read -ra sft_overrides <<<"${SFT_OVERRIDES:-}"
read -ra rl_overrides <<<"${RL_OVERRIDES:-}"

OUTPUT=$output/sft "${command[@]}" recipe=sft "$@" "${sft_overrides[@]}"

step=$(<"$output/sft/latest_checkpointed_iteration.txt")
MODEL_PATH=$output/sft/global_step_$step/actor/model/huggingface OUTPUT=$output/rl \
    "${command[@]}" recipe="$then" "$@" "${rl_overrides[@]}"
