#!/usr/bin/env bash
# Trains one model with the paper's batch sizes (arXiv 2506.07527). recipe/METHOD/run.sh calls it with the keys of its
# method:
#
#   MODEL=qwen2.5-math-7b EXPERIMENT=relift-qwen2.5-math-7b examples/train_megatron.sh method=relift [key=value ...]
#
# Every variable can be set from outside. Arguments come last, so they override what stands here. With --plan --gpu h100
# among them, here and in the scripts that call this one, the run is planned instead of trained (docs/scale.md).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

model_file=examples/models/${MODEL:-}.sh
if [[ ! -f $model_file ]]; then
    models=(examples/models/*.sh)
    models=("${models[@]##*/}")
    echo "MODEL=${MODEL:-}: no such model; set it to one of: ${models[*]%.sh}; or add examples/models/NAME.sh" >&2
    exit 2
fi
# shellcheck source=examples/models/qwen2.5-math-7b.sh
source "$model_file"
for name in MAX_POSITIONS ROPE_THETA; do
    if [[ -n ${!name:-} ]] && ! grep -q "^$name=" "$model_file"; then
        echo "$name=${!name}: $model_file prepares no copy of the model; make one with" \
            "python -m data_preprocess.prepare_model, and set MODEL_PATH" >&2
        exit 2
    fi
done

# ---- adjust ----------------------------------------------------------------------------------------------------------
# parquet files, separated by commas (docs/data.md)
TRAIN_FILES=${TRAIN_FILES:-data/openr1/train.parquet}
VAL_FILES=${VAL_FILES:-data/benchmarks/math500.parquet}
# the run's name, and its folder: checkpoints, metrics, configuration. A run resumes from what it finds in its folder
: "${EXPERIMENT:?the name of the run, METHOD-MODEL}"
OUTPUT=${OUTPUT:-outputs/relift/$EXPERIMENT}
NODES=${NODES:-1}
GPUS_PER_NODE=${GPUS_PER_NODE:-8}
# questions per step, rollouts per question, questions per RL update
TRAIN_BATCH_SIZE=${TRAIN_BATCH_SIZE:-128}
ROLLOUTS=${ROLLOUTS:-8}
MINI_BATCH_SIZE=${MINI_BATCH_SIZE:-64}
# learning rate of the RL update
LR=${LR:-1e-6}
MAX_PROMPT_LENGTH=${MAX_PROMPT_LENGTH:-1024}
MAX_RESPONSE_LENGTH=${MAX_RESPONSE_LENGTH:-8192}
STEPS=${STEPS:-500}
# tokens of a micro-batch on one GPU; at least prompt + response
MAX_TOKENS_PER_GPU=${MAX_TOKENS_PER_GPU:-16384}
# ----------------------------------------------------------------------------------------------------------------------

program=train
method=
arguments=()
for argument; do
    if [[ $argument == --plan ]]; then
        program=plan
        continue
    fi
    if [[ $argument == method=* ]]; then
        # The first is that of the script that called this one, which also sets keys that only its method has.
        if [[ $argument != "${method:=$argument}" ]]; then
            script=recipe/${argument#method=}/run.sh
            if [[ -f $script ]]; then fix="use $script"; else fix="there is no such method; recipe/README.md lists them"; fi
            echo "$argument: this script is for $method; $fix" >&2
            exit 2
        fi
    fi
    arguments+=("$argument")
done
if [[ $MODEL_PATH == models/* && ! -e $MODEL_PATH && -n ${PREPARE_MODEL:-} ]]; then
    echo "$MODEL_PATH does not exist yet; make it with: $PREPARE_MODEL" >&2
    # First, so that a --prepare among the arguments is the one that counts.
    if [[ $program == plan ]]; then arguments=(--prepare "$PREPARE_MODEL" ${arguments[@]+"${arguments[@]}"}); fi
fi
exec "${PYTHON:-python}" -m "verl_relift.$program" \
    data.train_files="[$TRAIN_FILES]" \
    data.val_files="[$VAL_FILES]" \
    data.train_batch_size="$TRAIN_BATCH_SIZE" \
    data.max_prompt_length="$MAX_PROMPT_LENGTH" \
    data.max_response_length="$MAX_RESPONSE_LENGTH" \
    actor_rollout_ref.model.path="$MODEL_PATH" \
    actor_rollout_ref.actor.ppo_mini_batch_size="$MINI_BATCH_SIZE" \
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu="$MAX_TOKENS_PER_GPU" \
    actor_rollout_ref.actor.optim.lr="$LR" \
    actor_rollout_ref.actor.megatron.tensor_model_parallel_size="$ACTOR_TP" \
    actor_rollout_ref.rollout.n="$ROLLOUTS" \
    actor_rollout_ref.rollout.tensor_model_parallel_size="$ROLLOUT_TP" \
    actor_rollout_ref.rollout.gpu_memory_utilization="$ROLLOUT_MEMORY" \
    trainer.nnodes="$NODES" \
    trainer.n_gpus_per_node="$GPUS_PER_NODE" \
    trainer.total_training_steps="$STEPS" \
    trainer.experiment_name="$EXPERIMENT" \
    trainer.default_local_dir="$OUTPUT" \
    ${arguments[@]+"${arguments[@]}"}
