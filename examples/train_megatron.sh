#!/usr/bin/env bash
# The command behind run_*_megatron.sh: their variables and the paper's values (arXiv 2506.07527), as overrides of
# verl_relift/config/relift.yaml. Arguments come last, so that any key can still be overridden.
set -euo pipefail

# ---- adjust ----------------------------------------------------------------------------------------------------------
# questions in a step, rollouts of each, questions in an RL update, demonstrations in a supervised update
TRAIN_BATCH_SIZE=${TRAIN_BATCH_SIZE:-128}
ROLLOUTS=${ROLLOUTS:-8}
MINI_BATCH_SIZE=${MINI_BATCH_SIZE:-64}
SFT_BATCH_SIZE=${SFT_BATCH_SIZE:-64}
LR=${LR:-1e-6}
SFT_LR=${SFT_LR:-1e-6}
MAX_PROMPT_LENGTH=${MAX_PROMPT_LENGTH:-1024}
MAX_RESPONSE_LENGTH=${MAX_RESPONSE_LENGTH:-8192}
STEPS=${STEPS:-500}
# tokens of a micro-batch on one GPU; at least prompt + response
MAX_TOKENS_PER_GPU=${MAX_TOKENS_PER_GPU:-16384}
# ----------------------------------------------------------------------------------------------------------------------

exec "${PYTHON:-python}" -m verl_relift.train \
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
    relift.sft.batch_size="$SFT_BATCH_SIZE" \
    relift.sft.lr="$SFT_LR" \
    trainer.nnodes="$NODES" \
    trainer.n_gpus_per_node="$GPUS_PER_NODE" \
    trainer.total_training_steps="$STEPS" \
    trainer.experiment_name="$(basename "$OUTPUT")" \
    trainer.default_local_dir="$OUTPUT" \
    "$@"
