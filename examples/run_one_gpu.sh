#!/usr/bin/env bash
# One GPU, any method: a first run of one's own that fits.
#
#   GPU_MEMORY=24 MODEL=qwen2.5-0.5b METHOD=relift examples/run_one_gpu.sh [key=value ...]
#   GPU_MEMORY=80 MODEL=qwen2.5-1.5b METHOD=grpo examples/run_one_gpu.sh [key=value ...]
#
# With --plan --gpu rtx4090 at the end (or h100) the run is planned instead of trained: does it fit, how long is a step.
# TRAIN_FILES and VAL_FILES name the data; GSM8K of docs/data.md otherwise. What a GPU of 24 GB takes is chosen so that
# `python -m verl_relift.plan --gpu-memory 22.5` accepts it. Every variable can be set from outside.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export MODEL=${MODEL:-qwen2.5-0.5b}
METHOD=${METHOD:-relift}
if [[ ! -f recipe/$METHOD/run.sh ]]; then
    echo "METHOD=$METHOD: no recipe/$METHOD/run.sh; recipe/README.md lists the methods" >&2
    exit 2
fi

case ${GPU_MEMORY:-24} in
    24)
        export MAX_RESPONSE_LENGTH=${MAX_RESPONSE_LENGTH:-1024} MAX_TOKENS_PER_GPU=${MAX_TOKENS_PER_GPU:-4096}
        ;;
    80)
        export MAX_RESPONSE_LENGTH=${MAX_RESPONSE_LENGTH:-4096} MAX_TOKENS_PER_GPU=${MAX_TOKENS_PER_GPU:-16384}
        ;;
    *)
        echo "GPU_MEMORY=$GPU_MEMORY: 24 or 80; set MAX_RESPONSE_LENGTH and MAX_TOKENS_PER_GPU for another GPU" >&2
        exit 2
        ;;
esac
export TRAIN_FILES=${TRAIN_FILES:-data/gsm8k/train.parquet} VAL_FILES=${VAL_FILES:-data/gsm8k/test.parquet}
export GPUS_PER_NODE=1 MAX_PROMPT_LENGTH=${MAX_PROMPT_LENGTH:-512}
# smaller batches than the paper's, so that a step takes a minute and not ten
export TRAIN_BATCH_SIZE=${TRAIN_BATCH_SIZE:-32} MINI_BATCH_SIZE=${MINI_BATCH_SIZE:-32} SFT_BATCH_SIZE=${SFT_BATCH_SIZE:-16}
export STEPS=${STEPS:-200}
exec "recipe/$METHOD/run.sh" "$@"
