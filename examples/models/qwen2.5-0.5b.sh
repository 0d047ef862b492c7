# shellcheck shell=bash
# Qwen2.5-0.5B-Instruct on one GPU: examples/run_one_gpu.sh. examples/train_megatron.sh reads this file.
set -euo pipefail

# 32768 positions and a chat template: it is trained as it is. A hub id, which `hf download` fetches first, or a folder.
export MODEL_PATH=${MODEL_PATH:-Qwen/Qwen2.5-0.5B-Instruct}

# Tensor-parallel sizes of the training engine and of vLLM.
export ACTOR_TP=${ACTOR_TP:-1}
export ROLLOUT_TP=${ROLLOUT_TP:-1}
# Fraction of a GPU's memory that vLLM takes while it generates, beside the training engine's weights and optimizer.
export ROLLOUT_MEMORY=${ROLLOUT_MEMORY:-0.4}
