# shellcheck shell=bash
# Qwen2.5-Math-1.5B: its part of a run on nodes with 8 GPUs of 80 GB. examples/train_megatron.sh reads this file.
set -euo pipefail

# The copy that is trained, and the base model's folder, which this makes:
# hf download Qwen/Qwen2.5-Math-1.5B --local-dir Qwen2.5-Math-1.5B
export BASE_MODEL=${BASE_MODEL:-Qwen2.5-Math-1.5B}
# The base model has 4096 positions; the paper's has 16384, rope_theta 40000 and a chat template. Prompt and response
# must fit into the positions. More of them need a larger rope_theta; nothing here says which.
MAX_POSITIONS=${MAX_POSITIONS:-16384}
ROPE_THETA=${ROPE_THETA:-40000}
export MODEL_PATH=${MODEL_PATH:-models/qwen2.5-math-1.5b-$((MAX_POSITIONS / 1024))k}
export PREPARE_MODEL="python -m data_preprocess.prepare_model --model $BASE_MODEL \
--rope-theta $ROPE_THETA --max-positions $MAX_POSITIONS --chat-template think --link --output $MODEL_PATH"

# Tensor-parallel sizes of the training engine and of vLLM.
export ACTOR_TP=${ACTOR_TP:-2}
export ROLLOUT_TP=${ROLLOUT_TP:-1}
# Fraction of a GPU's memory that vLLM takes while it generates, beside the training engine's weights and optimizer.
export ROLLOUT_MEMORY=${ROLLOUT_MEMORY:-0.6}
