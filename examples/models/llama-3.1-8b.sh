# shellcheck shell=bash
# Llama-3.1-8B: its part of a run on nodes with 8 GPUs of 80 GB. examples/train_megatron.sh reads this file.
set -euo pipefail

# The copy that is trained, and the base model's folder, which this makes:
# hf download meta-llama/Llama-3.1-8B --local-dir Llama-3.1-8B
export BASE_MODEL=${BASE_MODEL:-Llama-3.1-8B}
export MODEL_PATH=${MODEL_PATH:-models/llama-3.1-8b-think}
# The base model has no chat template.
export PREPARE_MODEL="python -m data_preprocess.prepare_model --model $BASE_MODEL \
--chat-template think --link --output $MODEL_PATH"

# Tensor-parallel sizes of the training engine and of vLLM.
export ACTOR_TP=${ACTOR_TP:-4}
export ROLLOUT_TP=${ROLLOUT_TP:-2}
# Fraction of a GPU's memory that vLLM takes while it generates, beside the training engine's weights and optimizer.
export ROLLOUT_MEMORY=${ROLLOUT_MEMORY:-0.5}
