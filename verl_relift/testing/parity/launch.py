"""Starting the ranks of a Megatron engine as processes."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch

from ...quickstart.base_model import build_tokenizer
from .batch import make_model

LAYOUTS = {"TP1": (1, 1, 1), "TP2": (2, 2, 1), "PP2": (2, 1, 2), "DP2": (2, 1, 1)}  # name -> ranks, TP, PP


def save_model(kind: str, folder: Path) -> torch.nn.Module:
    """Write a model of :func:`make_model` with a tokenizer to ``folder``."""
    model = make_model(kind)
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return model


def run_ranks(worker: str, model_folder: Path, output: Path, layout: str, *arguments: str) -> list[dict]:
    """Start ``tests.parity.<worker>`` once per rank and return what each data-parallel replica wrote."""
    ranks, tp, pp = LAYOUTS[layout]
    output.mkdir()
    environment = {
        **os.environ,
        "VERL_PLATFORM": "cpu",
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "WORLD_SIZE": str(ranks),
        "TOKENIZERS_PARALLELISM": "false",
    }
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                f"tests.parity.{worker}",
                str(model_folder),
                str(output),
                str(tp),
                str(pp),
                *arguments,
            ],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=(output / f"{rank}.log").open("w"),
            stderr=subprocess.STDOUT,
        )
        for rank in range(ranks)
    ]
    try:
        codes = [process.wait(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    logs = "\n".join((output / f"{rank}.log").read_text()[-3000:] for rank in range(ranks))
    assert codes == [0] * ranks, logs
    return [torch.load(path, weights_only=True) for path in sorted(output.glob("*.pt"))]


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
