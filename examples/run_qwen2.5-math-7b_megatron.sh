#!/usr/bin/env bash
# ReLIFT on Qwen2.5-Math-7B with Megatron-Core and vLLM: one node with 8 GPUs of 80 GB.
#
#   examples/run_qwen2.5-math-7b_megatron.sh [key=value ...]
#
# Every variable can be set outside, keys of the configuration go on the command line; `--cfg job` only shows the
# result. examples/train_megatron.sh has the paper's batch sizes and lengths.
#
# The base model has 4096 positions; the paper's has 16384, rope_theta 40000 and a chat template:
#   python -m data_preprocess.prepare_model --model Qwen2.5-Math-7B --rope-theta 40000 --max-positions 16384 \
#       --chat-template think --link --output models/qwen2.5-math-7b-16k
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# ---- adjust ----------------------------------------------------------------------------------------------------------
export MODEL_PATH=${MODEL_PATH:-models/qwen2.5-math-7b-16k}
# parquet files, separated by commas (docs/data.md)
export TRAIN_FILES=${TRAIN_FILES:-data/openr1/train.parquet}
export VAL_FILES=${VAL_FILES:-data/benchmarks/math500.parquet}
# checkpoints, metrics, configuration; a run goes on from what it finds here
export OUTPUT=${OUTPUT:-outputs/relift/qwen2.5-math-7b}
export NODES=${NODES:-1}
export GPUS_PER_NODE=${GPUS_PER_NODE:-8}
# tensor parallelism of the training and of the generation engine
export ACTOR_TP=${ACTOR_TP:-4}
export ROLLOUT_TP=${ROLLOUT_TP:-2}
# fraction of a GPU's memory for vLLM while it generates, beside the training engine's weights and optimizer
export ROLLOUT_MEMORY=${ROLLOUT_MEMORY:-0.5}
# ----------------------------------------------------------------------------------------------------------------------

exec bash examples/train_megatron.sh "$@"
