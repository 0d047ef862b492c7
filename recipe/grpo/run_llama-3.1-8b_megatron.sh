#!/usr/bin/env bash
# GRPO alone: Llama-3.1-8B, one node with 8 GPUs of 80 GB.
#
#   recipe/grpo/run_llama-3.1-8b_megatron.sh [key=value ...]
#
# The variables are those of examples/run_llama-3.1-8b_megatron.sh.
set -euo pipefail
export OUTPUT=${OUTPUT:-outputs/grpo/llama-3.1-8b}
exec bash "$(dirname "${BASH_SOURCE[0]}")/../../examples/run_llama-3.1-8b_megatron.sh" recipe=grpo "$@"
