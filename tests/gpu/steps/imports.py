"""What is there: hardware, versions, and whether every part of the stack loads."""

import importlib
import os
import pkgutil
import shutil
import subprocess
import sysconfig
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..report import Report
from ..step import Task

_PACKAGES = [
    "torch",
    "triton",
    "vllm",
    "verl",
    "megatron-core",
    "mbridge",
    "transformers",
    "tensordict",
    "transferqueue",
    "ray",
    "numpy",
    "flash-attn",
    "transformer-engine",
    "transformer-engine-cu13",
    "transformer-engine-torch",
    "nvidia-cublas",
    "nvidia-cudnn-cu13",
    "nvidia-nccl-cu13",
]
# Entry points of programs: importing them starts something, or needs a package that only they need.
_PROGRAMS = ("__main__",)


def run(report: Report, task: Task) -> None:
    """Note hardware and versions, then import everything and compute something with each part."""
    for package in _PACKAGES:
        try:
            report.figure(f"version of {package}", version(package))
        except PackageNotFoundError:
            report.figure(f"version of {package}", "not installed")
    report.figure("processors", len(os.sched_getaffinity(0)))
    report.figure("/dev/shm, GiB", round(shutil.disk_usage("/dev/shm").total / 2**30, 1))
    with report.part("torch"):
        _torch(report, task)
    with report.part("compiler"):
        header = Path(sysconfig.get_path("include")) / "Python.h"
        found = (shutil.which("gcc") or shutil.which("cc") or "none", header.exists())
        report.check("a C compiler and Python.h, for triton", all(found), found, "both")
    for module in ("verl", "megatron.core", "mbridge", "vllm", "transfer_queue"):
        with report.part(f"import {module}"):
            importlib.import_module(module)
    with report.part("Transformer Engine"):
        _transformer_engine(report, task)
    with report.part("vLLM's kernels"):
        _vllm(report, task)
    with report.part("modules of verl_relift"):
        failed = _own_modules()
        report.check("every module of verl_relift imports", not failed, failed or "all", "all")


def _torch(report: Report, task: Task) -> None:
    import torch

    report.figure("torch's CUDA", torch.version.cuda)
    if task.cuda:
        properties = torch.cuda.get_device_properties(0)
        report.figure(
            "GPU",
            f"{properties.name}, {properties.total_memory / 2**30:.1f} GiB, sm_{properties.major}{properties.minor}",
        )
        command = ["nvidia-smi", "--query-gpu=driver_version,memory.used", "--format=csv,noheader"]
        report.figure("driver, memory in use", subprocess.run(command, capture_output=True, text=True).stdout.strip())
        report.figure("cuDNN", torch.backends.cudnn.version())
    a = torch.randn(256, 256, device=task.device)
    error = (torch.compile(lambda x: x @ x + 1)(a) - (a @ a + 1)).abs().max().item() if task.cuda else 0.0
    report.check("a compiled function, by triton's compiler", error < 1e-3, error, "< 1e-3")


def _transformer_engine(report: Report, task: Task) -> None:
    from verl_relift.upstream.transformer_engine import why_not

    reason = why_not()
    report.figure("Transformer Engine", "loads" if reason is None else f"{reason}: the local layer spec is used")
    if reason is not None:
        missing = reason.endswith("not installed")
        report.check("Transformer Engine loads where it is installed", missing, reason, "loads, or is not installed")
        return
    import torch
    import transformer_engine.pytorch as te

    if task.cuda:
        layer = te.LayerNormLinear(256, 256, params_dtype=torch.bfloat16, device="cuda")
        output = layer(torch.randn(32, 256, device="cuda", dtype=torch.bfloat16))
        output.sum().backward()
        report.check(
            "a layer of Transformer Engine, forward and backward", bool(output.isfinite().all()), "run", "finite"
        )


def _vllm(report: Report, task: Task) -> None:
    from vllm.platforms import current_platform

    report.figure("vLLM's platform", type(current_platform).__name__)
    if task.cuda:
        import torch
        from vllm import _custom_ops as ops

        x, weight = (
            torch.randn(8, 512, device="cuda", dtype=torch.bfloat16),
            torch.ones(512, device="cuda", dtype=torch.bfloat16),
        )
        out = torch.empty_like(x)
        ops.rms_norm(out, x, weight, 1e-6)
        expected = torch.nn.functional.rms_norm(x.float(), (512,), eps=1e-6)
        error = (out.float() - expected).abs().max().item()
        report.check("vLLM's rms_norm", error < 0.05, error, "< 0.05")


def _own_modules() -> list[str]:
    """Return the modules of the package that don't import, with the reason."""
    import verl_relift

    failed = []
    for module in pkgutil.walk_packages(verl_relift.__path__, "verl_relift."):
        if module.name.rsplit(".", 1)[-1] in _PROGRAMS:
            continue
        try:
            importlib.import_module(module.name)
        except Exception as error:
            failed.append(f"{module.name}: {type(error).__name__}: {error}")
    return failed
