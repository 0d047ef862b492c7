#!/usr/bin/env bash
# Supervised fine-tuning, then RL: Qwen2.5-Math-1.5B, one node with 8 GPUs of 80 GB.
#
#   [THEN=grpo|relift] recipe/sft_then_rl/run_qwen2.5-math-1.5b_megatron.sh [key=value ...]
#
# The variables are those of examples/run_qwen2.5-math-1.5b_megatron.sh; keys of the configuration go to both stages.
set -euo pipefail
# three passes over 46,000 questions
export SFT_OVERRIDES=${SFT_OVERRIDES:-relift.sft.lr=1e-5 relift.sft.batch_size=128 trainer.total_training_steps=1080}
export OUTPUT=${OUTPUT:-outputs/sft_then_rl/qwen2.5-math-1.5b}
root=$(dirname "${BASH_SOURCE[0]}")/../..
exec bash "$root/recipe/sft_then_rl/two_stages.sh" bash "$root/examples/run_qwen2.5-math-1.5b_megatron.sh" "$@"
