#!/usr/bin/env bash
# ReLIFT on Qwen2.5-Math-1.5B, by the name that verl's examples would give it. Any other method: recipe/METHOD/run.sh.
set -euo pipefail
MODEL=qwen2.5-math-1.5b exec "$(dirname "${BASH_SOURCE[0]}")/../recipe/relift/run.sh" "$@"
