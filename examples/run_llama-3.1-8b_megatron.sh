#!/usr/bin/env bash
# ReLIFT on Llama-3.1-8B, by the name that verl's examples would give it. Any other method: recipe/METHOD/run.sh.
set -euo pipefail
MODEL=llama-3.1-8b exec "$(dirname "${BASH_SOURCE[0]}")/../recipe/relift/run.sh" "$@"
