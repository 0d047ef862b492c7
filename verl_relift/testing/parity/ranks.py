"""Start the ranks of a Megatron engine as processes on this machine."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch

from ...quickstart.base_model import build_tokenizer
from .batch import make_model

LAYOUTS = {"TP1": (1, 1, 1), "TP2": (2, 2, 1), "PP2": (2, 1, 2), "DP2": (2, 1, 1)}  # name -> ranks, TP, PP

_TIMEOUT_SECONDS = 240


def save_model(kind: str, folder: Path) -> torch.nn.Module:
    """Write a model of `make_model` with a tokenizer to `folder` and return the model."""
    model = make_model(kind)
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return model


def run_ranks(worker: str, model_folder: Path, output: Path, layout: str, *arguments: str) -> list[dict]:
    """Run a worker of this package once per rank.

    Args:
        worker: module of this package, called as `worker MODEL OUTPUT TP PP [ARGUMENT ...]`.
        model_folder: a model in Hugging Face's format.
        output: a new folder for the ranks' logs and results.
        layout: a name in `LAYOUTS`.
        arguments: further arguments of the worker.

    Returns:
        What each data-parallel replica wrote, in the order of the replicas.

    Raises:
        AssertionError: a rank failed; the message ends with the ranks' logs.
    """
    ranks, tp, pp = LAYOUTS[layout]
    output.mkdir()
    environment = {
        **os.environ,
        "VERL_PLATFORM": "cpu",
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(ranks),
        "TOKENIZERS_PARALLELISM": "false",
    }
    command = [sys.executable, "-m", f"{__package__}.{worker}", str(model_folder), str(output), str(tp), str(pp)]
    processes = [
        subprocess.Popen(
            [*command, *arguments],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=(output / f"{rank}.log").open("w"),
            stderr=subprocess.STDOUT,
        )
        for rank in range(ranks)
    ]
    try:
        codes = [process.wait(timeout=_TIMEOUT_SECONDS) for process in processes]
    finally:
        for process in processes:
            process.kill()
    logs = "\n".join((output / f"{rank}.log").read_text()[-3000:] for rank in range(ranks))
    assert codes == [0] * ranks, logs
    return [torch.load(path, weights_only=True) for path in sorted(output.glob("*.pt"))]


def free_port() -> int:
    """Return a TCP port of this machine that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
