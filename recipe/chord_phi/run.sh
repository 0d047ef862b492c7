#!/usr/bin/env bash
# CHORD: (1 - mu) GRPO + mu SFT, on demonstrations drawn apart from the questions of a step.
#
#   MODEL=qwen2.5-math-7b recipe/chord_phi/run.sh [key=value ...]
#
# The variables for data, batch sizes and nodes are in examples/train_megatron.sh, the model's in examples/models/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# demonstrations of a step, and the first value of mu
SFT_BATCH_SIZE=${SFT_BATCH_SIZE:-64}
MU=${MU:-0.1}
# the paper's; both losses are in one update, so a step has one
export TRAIN_BATCH_SIZE=${TRAIN_BATCH_SIZE:-32}
export MINI_BATCH_SIZE=${MINI_BATCH_SIZE:-$TRAIN_BATCH_SIZE}
export EXPERIMENT=${EXPERIMENT:-chord_phi-${MODEL:-}}
exec examples/train_megatron.sh method=chord_phi \
    method.sft.batch_size="$SFT_BATCH_SIZE" method.mu.peak="$MU" \
    "$@"
