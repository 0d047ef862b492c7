#!/usr/bin/env bash
# ReLIFT on Llama-3.1-8B with Megatron-Core and vLLM: one node with 8 GPUs of 80 GB.
#
#   examples/run_llama-3.1-8b_megatron.sh [key=value ...]
#
# Every variable can be set outside, keys of the configuration go on the command line; `--cfg job` only shows the
# result. examples/train_megatron.sh has the paper's batch sizes and lengths.
#
# The base model needs a chat template:
#   python -m data_preprocess.prepare_model --model Llama-3.1-8B --chat-template think --link \
#       --output models/llama-3.1-8b-think
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# ---- adjust ----------------------------------------------------------------------------------------------------------
export MODEL_PATH=${MODEL_PATH:-models/llama-3.1-8b-think}
# parquet files, separated by commas (docs/data.md)
export TRAIN_FILES=${TRAIN_FILES:-data/openr1/train.parquet}
export VAL_FILES=${VAL_FILES:-data/benchmarks/math500.parquet}
# checkpoints, metrics, configuration; a run goes on from what it finds here
export OUTPUT=${OUTPUT:-outputs/relift/llama-3.1-8b}
export NODES=${NODES:-1}
export GPUS_PER_NODE=${GPUS_PER_NODE:-8}
# tensor parallelism of the training and of the generation engine
export ACTOR_TP=${ACTOR_TP:-4}
export ROLLOUT_TP=${ROLLOUT_TP:-2}
# fraction of a GPU's memory for vLLM while it generates, beside the training engine's weights and optimizer
export ROLLOUT_MEMORY=${ROLLOUT_MEMORY:-0.5}
# ----------------------------------------------------------------------------------------------------------------------

exec bash examples/train_megatron.sh "$@"
