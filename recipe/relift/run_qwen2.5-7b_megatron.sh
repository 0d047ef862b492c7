#!/usr/bin/env bash
# ReLIFT: Qwen2.5-7B, one node with 8 GPUs of 80 GB.
#
#   recipe/relift/run_qwen2.5-7b_megatron.sh [key=value ...]
#
# The variables are those of examples/run_qwen2.5-7b_megatron.sh.
set -euo pipefail
export OUTPUT=${OUTPUT:-outputs/relift/qwen2.5-7b}
exec bash "$(dirname "${BASH_SOURCE[0]}")/../../examples/run_qwen2.5-7b_megatron.sh" recipe=relift "$@"
