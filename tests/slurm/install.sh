#!/usr/bin/env bash
# Installs what tests/slurm needs besides the CPU stack, from Debian's packages. Run as root.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
apt-get update
apt-get install -y --no-install-recommends slurm-wlm munge iproute2
