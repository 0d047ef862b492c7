#!/usr/bin/env bash
# RL with an SFT loss: Qwen2.5-7B, one node with 8 GPUs of 80 GB.
#
#   recipe/rl_with_sft_loss/run_qwen2.5-7b_megatron.sh [key=value ...]
#
# The variables are those of examples/run_qwen2.5-7b_megatron.sh.
set -euo pipefail
# the demonstrations of all questions of a step
export SFT_BATCH_SIZE=${SFT_BATCH_SIZE:-${TRAIN_BATCH_SIZE:-128}}
export OUTPUT=${OUTPUT:-outputs/rl_with_sft_loss/qwen2.5-7b}
exec bash "$(dirname "${BASH_SOURCE[0]}")/../../examples/run_qwen2.5-7b_megatron.sh" recipe=rl_with_sft_loss "$@"
