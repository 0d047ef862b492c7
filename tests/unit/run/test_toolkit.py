"""What a GPU machine must have beside the packages, and what of it gets in their way."""

import importlib.util
import sysconfig
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from verl_relift.run import toolkit


@pytest.fixture
def wheels(tmp_path, monkeypatch) -> Path:
    """The folder `nvidia` of an environment with CUDA as wheels."""
    folder = tmp_path / "site-packages" / "nvidia"
    fill(folder / "cu13" / "lib", "libnvrtc.so.13", "libcublas.so.13")
    fill(folder / "cu13" / "bin", "nvcc")
    fill(folder / "cudnn" / "lib", "libcudnn.so.9")
    spec = ModuleSpec("nvidia", None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec if name == "nvidia" else None)
    for name in (*toolkit._SEARCHED, "LD_LIBRARY_PATH"):
        monkeypatch.setenv(name, "")  # so that what the test sets is undone
        monkeypatch.delenv(name)
    monkeypatch.setattr(toolkit, "_DEFAULT_TOOLKIT", str(tmp_path / "usr-local-cuda"))
    return folder


def fill(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch()
    return folder


def test_the_wheels_toolkit_is_named_unless_another_one_is(wheels, monkeypatch):
    toolkit.use_installed()
    assert toolkit.os.environ["CUDA_HOME"] == str(wheels / "cu13")
    monkeypatch.setenv("CUDA_HOME", "/apps/cuda/13.0")
    toolkit.use_installed()
    assert toolkit.os.environ["CUDA_HOME"] == "/apps/cuda/13.0"
    monkeypatch.delenv("CUDA_HOME")
    monkeypatch.setenv("CUDA_PATH", "/apps/cuda/13.0")
    toolkit.use_installed()
    assert "CUDA_HOME" not in toolkit.os.environ


def test_without_a_compiler_no_toolkit_is_named(wheels):
    (wheels / "cu13" / "bin" / "nvcc").unlink()
    toolkit.use_installed()
    assert "CUDA_HOME" not in toolkit.os.environ


@pytest.mark.parametrize(
    ("libraries", "named"),
    [
        (["libnvrtc.so", "libnvrtc.so.12", "libcublas.so.12"], "libnvrtc.so"),
        (["libcudnn.so.9", "libcudnn_graph.so.9"], "libcudnn.so.9"),
        (["libcudnn_graph.so.9"], "libcudnn_graph.so.9"),
        (["libnvrtc.so", "libnvrtc.so.13", "libcublas.so.13"], None),  # as in NVIDIA's images
        (["libcuda.so.1", "libfabric.so.1", "libnccl-net.so"], None),
        ([], None),
    ],
)
def test_libraries_that_would_take_the_place_of_the_wheels_are_named(wheels, tmp_path, monkeypatch, libraries, named):
    module = tmp_path / "apps" / "cuda"
    folder = fill(module / "lib64", *libraries)
    monkeypatch.setenv("LD_LIBRARY_PATH", f"/no/such/folder:{folder}::{folder}")
    problems = list(toolkit.foreign_libraries())
    assert len(problems) == (named is not None)
    if named:
        assert problems[0].startswith(f"LD_LIBRARY_PATH has {folder}, whose {named} would be loaded instead of the one")
    for name in ("CUDA_HOME", "CUDA_PATH", "CUDNN_HOME", "NVRTC_PATH"):
        monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
        monkeypatch.setenv(name, str(module))
        problems = list(toolkit.foreign_libraries())
        assert len(problems) == (named is not None)
        if named:
            assert problems[0].startswith(f"{name}={module} has {named}, which Transformer Engine would load instead")
            assert problems[0].endswith(f"unset {name}")
        monkeypatch.delenv(name)


def test_cudnn_in_the_default_toolkit_is_named(wheels, tmp_path, monkeypatch):
    fill(tmp_path / "usr-local-cuda" / "lib64", "libnvrtc.so", "libnvrtc.so.12")
    assert list(toolkit.foreign_libraries()) == []  # CUDA_HOME comes first
    fill(tmp_path / "usr-local-cuda" / "targets" / "lib", "libcudnn.so.9")
    (problem,) = toolkit.foreign_libraries()
    assert f"export CUDNN_HOME={wheels}/cudnn LD_LIBRARY_PATH={wheels}/cudnn/lib" in problem
    monkeypatch.setenv("CUDNN_HOME", str(wheels / "cudnn"))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(wheels / "cudnn" / "lib"))
    assert list(toolkit.foreign_libraries()) == []


def test_the_wheels_own_folders_are_not_foreign(wheels, monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", str(wheels / "cudnn" / "lib"))
    monkeypatch.setenv("CUDA_HOME", str(wheels / "cu13"))
    assert list(toolkit.foreign_libraries()) == []


def test_without_wheels_nothing_is_foreign(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(fill(tmp_path / "lib64", "libcudnn.so.9")))
    assert list(toolkit.foreign_libraries()) == []


def test_a_missing_compiler_and_missing_headers_are_named(tmp_path, monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    compiler, header = toolkit.compiler_problems()
    assert compiler.startswith("there is no gcc or clang: ")
    assert header.startswith(f"{tmp_path}/Python.h: no such file")
    monkeypatch.setenv("CC", "icx")
    assert next(toolkit.compiler_problems()).startswith("CC=icx is not there: ")
    for name in ("Python.h", "icx"):
        (tmp_path / name).touch(mode=0o755)
    assert list(toolkit.compiler_problems()) == []


def test_vllms_cuda_build_on_a_cpu_is_named(monkeypatch):
    for version, problems in (("0.24.0+cpu", 0), ("0.24.0", 1), ("0.24.0+cu130", 1)):
        monkeypatch.setattr(toolkit, "version", lambda name, version=version: version)
        found = list(toolkit.cpu_problems())
        assert len(found) == problems
    assert found[0].startswith("this process sees no GPU, and vllm 0.24.0+cu130 is the build for CUDA: ")


def test_a_process_without_a_gpu_is_named(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert next(toolkit.gpu_problems()).startswith("trainer.device=cuda, but this process sees no GPU")
