"""What a GPU machine must have beside the Python packages, and what of it would get in their way.

The GPU stack brings CUDA as wheels, in `site-packages/nvidia`. torch finds its libraries there whatever the
environment says. Transformer Engine looks in a CUDA toolkit and in LD_LIBRARY_PATH first, and so do the parts of cuDNN.
"""

import importlib.util
import os
import shutil
import sysconfig
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_TOOLKITS = ("CUDA_HOME", "CUDA_PATH")
# Where Transformer Engine looks before the wheels, beside LD_LIBRARY_PATH.
_SEARCHED = ("CUDNN_HOME", "CUDNN_PATH", "NVRTC_HOME", "NVRTC_PATH", *_TOOLKITS)
_DEFAULT_TOOLKIT = "/usr/local/cuda"
_LATER = "preparing data, plan, report and export work here"


def installed() -> Path | None:
    """Return the folder of the CUDA toolkit that is installed as wheels, None if there is none."""
    spec = importlib.util.find_spec("nvidia")
    places = spec.submodule_search_locations or () if spec else ()
    return next((Path(place, "cu13") for place in places if Path(place, "cu13", "lib").is_dir()), None)


def use_installed() -> None:
    """Name the wheels' toolkit in CUDA_HOME, unless the environment names one.

    Without it Transformer Engine takes libraries of /usr/local/cuda, of whatever version, and vLLM's FlashInfer finds
    no compiler where there is no such folder.
    """
    toolkit = installed()
    if toolkit is not None and (toolkit / "bin" / "nvcc").exists() and not any(map(os.environ.get, _TOOLKITS)):
        os.environ["CUDA_HOME"] = str(toolkit)


def gpu_problems() -> Iterator[str]:
    """Yield what keeps this machine's GPUs from being used, a line each: no GPU, no compiler, other CUDA libraries."""
    import torch

    if not torch.cuda.is_available():
        yield (
            "trainer.device=cuda, but this process sees no GPU (torch.cuda.is_available() is false): start it where "
            f"nvidia-smi lists one, in Slurm with --gpus; {_LATER}"
        )
    yield from compiler_problems()
    yield from foreign_libraries()


def cpu_problems() -> Iterator[str]:
    """Yield why vLLM can't run on this machine's CPU: its CUDA build is installed."""
    try:
        build = version("vllm")
    except PackageNotFoundError:
        return
    if "cpu" not in build:
        yield (
            f"this process sees no GPU, and vllm {build} is the build for CUDA: start it where nvidia-smi lists a GPU, "
            f"in Slurm with --gpus, or make an environment for CPUs with `make install VENV=.venv-cpu`; {_LATER}"
        )


def compiler_problems() -> Iterator[str]:
    """Yield what Triton lacks to compile its launchers, which it does when training starts."""
    compiler = os.environ.get("CC")
    if not any(shutil.which(name) for name in ([compiler] if compiler else ["gcc", "clang"])):
        named = f"CC={compiler} is not there" if compiler else "there is no gcc or clang"
        yield f"{named}: Triton compiles when training starts; install gcc on the machines with GPUs, or name one in CC"
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.exists():
        yield (
            f"{header}: no such file, and Triton compiles against it when training starts; install Python's headers "
            "on the machines with GPUs (Ubuntu: python3.12-dev; pyenv's and uv's Python have them)"
        )


def foreign_libraries() -> Iterator[str]:
    """Yield where the environment names CUDA libraries that would be loaded instead of the wheels'."""
    toolkit = installed()
    if toolkit is None:
        return
    own = toolkit.parent
    for folder in dict.fromkeys(os.environ.get("LD_LIBRARY_PATH", "").split(":")):
        library = _foreign_library(folder, own, "")
        if library is not None:
            yield (
                f"LD_LIBRARY_PATH has {folder}, whose {library} would be loaded instead of the one in {own}: unload "
                "the CUDA and cuDNN modules, or take the folder out of LD_LIBRARY_PATH"
            )
    for name in _SEARCHED:
        folder = os.environ.get(name, "")
        library = _foreign_library(folder, own, "**/")
        if library is not None:
            yield (
                f"{name}={folder} has {library}, which Transformer Engine would load instead of the one in {own}: "
                f"unload the CUDA and cuDNN modules, or unset {name}"
            )
    library = _foreign_library(_DEFAULT_TOOLKIT, own, "**/")
    if library is not None and library.startswith("libcudnn") and not os.environ.get("CUDNN_HOME"):
        yield (
            f"{_DEFAULT_TOOLKIT} has {library}, which Transformer Engine would load instead of the one in {own}: "
            f"export CUDNN_HOME={own / 'cudnn'} LD_LIBRARY_PATH={own / 'cudnn' / 'lib'}"
        )


def _foreign_library(folder: str, own: Path, below: str) -> str | None:
    """Return the name of a library in `folder` that must not take the place of the one in `own`, if there is one.

    That is cuDNN, whose parts must be of one version, and a run-time compiler of another major version of CUDA.
    """
    if not folder or own.resolve() in Path(folder).resolve().parents:
        return None
    try:
        found = sorted(
            path.name for name in ("libcudnn*.so*", "libnvrtc.so*") for path in Path(folder).glob(below + name)
        )
    except OSError:  # not ours to read: the loader finds nothing there either
        return None
    cudnn = next((name for name in found if name.startswith("libcudnn")), None)
    if "libnvrtc.so" in found and not any(name.startswith("libnvrtc.so.13") for name in found):
        return cudnn or "libnvrtc.so"
    return cudnn
