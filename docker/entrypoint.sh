#!/usr/bin/env bash
# Warns about a shared memory that is too small, which would otherwise stop a run after minutes. Then runs the command.
set -euo pipefail

shared_memory=$(df --output=size -B1M /dev/shm | tail -1)
if ((shared_memory < 1024)); then
    echo "docker/entrypoint.sh: /dev/shm has $shared_memory MB; Ray and vLLM need more: docker run --shm-size=16g" >&2
fi
exec "$@"
