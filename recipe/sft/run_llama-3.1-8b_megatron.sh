#!/usr/bin/env bash
# Supervised fine-tuning alone: Llama-3.1-8B, one node with 8 GPUs of 80 GB.
#
#   recipe/sft/run_llama-3.1-8b_megatron.sh [key=value ...]
#
# The variables are those of examples/run_llama-3.1-8b_megatron.sh.
set -euo pipefail
# three passes over 46,000 questions
export SFT_LR=${SFT_LR:-1e-5} SFT_BATCH_SIZE=${SFT_BATCH_SIZE:-128} STEPS=${STEPS:-1080}
export OUTPUT=${OUTPUT:-outputs/sft/llama-3.1-8b}
exec bash "$(dirname "${BASH_SOURCE[0]}")/../../examples/run_llama-3.1-8b_megatron.sh" recipe=sft "$@"
