#!/usr/bin/env bash
# One stage on a CPU: trains $MODEL_PATH into $OUTPUT with the configuration `smoke`.
set -euo pipefail
exec "${PYTHON:-.venv/bin/python}" -m verl_relift.train --config-name smoke \
    actor_rollout_ref.model.path="$MODEL_PATH" trainer.default_local_dir="$OUTPUT" "$@"
