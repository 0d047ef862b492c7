"""Weights go from one process to another through CUDA IPC (shared memory on a CPU), three times, and arrive as sent.

The step runs this module as the receiving process.
"""

import asyncio
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator

from ..report import Report
from ..step import Task

ROUNDS = 3
BUCKET_MIB = 64
_ANSWER = "received:"


def tensors(device: str, number: int) -> Iterator:
    """Draw the tensors of a round: both processes draw the same on the same device.

    Yields:
        (name, tensor). On CUDA one is larger than a bucket, as an embedding is.
    """
    import torch

    shapes = [(1000, 7), (64,), (513, 129), *[(896, 4864)] * 24] if device == "cuda" else [(100, 7), (64,), (513, 129)]
    shapes += [(151936, 896)] if device == "cuda" else [(2000, 896)]
    for i, shape in enumerate(shapes):
        generator = torch.Generator(device).manual_seed(1000 * number + i)
        dtype = torch.float32 if i == 2 else torch.bfloat16
        yield f"layer.{i}.weight", torch.randn(shape, device=device, generator=generator).to(dtype)


def run(report: Report, task: Task) -> None:
    """Send to a process of its own, three times."""
    import torch
    import verl  # noqa: F401  loads the platform plugin
    from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import BucketedWeightSender

    from verl_relift.run import private

    folder = private.create("verl-relift-kit-")
    handle = f"ipc://{folder}/weights.sock"
    receiver = subprocess.Popen(
        [sys.executable, "-m", __name__, task.device, handle], stdout=subprocess.PIPE, text=True
    )
    try:
        for number in range(ROUNDS):
            sent = list(tensors(task.device, number))
            size = sum(tensor.nbytes for _, tensor in sent)
            if task.cuda:
                torch.cuda.synchronize()
            started = time.perf_counter()
            sender = BucketedWeightSender(handle, BUCKET_MIB, use_shm=not task.cuda)
            asyncio.run(sender.async_send_weights(iter(sent)))
            seconds = time.perf_counter() - started
            report.figure(f"round {number + 1}: MiB, seconds", f"{size / 2**20:.0f}, {seconds:.2f}")
            answer = _answer(receiver)
            report.check(f"round {number + 1}: what arrived", answer == f"{len(sent)} equal", answer, "equal bits")
        report.check("the receiver ends", receiver.wait(timeout=60) == 0, receiver.returncode, "status 0")
        if task.cuda:
            del sent
            torch.cuda.ipc_collect()
            torch.cuda.empty_cache()
            report.check(
                "memory left", torch.cuda.memory_allocated() < 1 << 20, torch.cuda.memory_allocated(), "< 1 MiB"
            )
    finally:
        receiver.kill()
        private.release(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _answer(receiver: subprocess.Popen) -> str:
    """Return the next line that the receiver itself prints; libraries print too."""
    for line in receiver.stdout:
        if line.startswith(_ANSWER):
            return line.removeprefix(_ANSWER).strip()
    return "nothing: the receiver ended"


def main() -> None:
    """Receive, compare with what this process draws itself, and say what arrived: a line per round."""
    device, handle = sys.argv[1:]
    import torch
    import verl  # noqa: F401  loads the platform plugin
    from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import BucketedWeightReceiver

    for number in range(ROUNDS):
        received = {}

        def keep(weights, is_last=True, received=received):
            received.update({name: tensor.clone() for name, tensor in weights})

        target = torch.device("cuda:0" if device == "cuda" else "cpu")
        BucketedWeightReceiver(handle, target, use_shm=device != "cuda").receive_weights(keep)
        expected = dict(tensors(device, number))
        different = [
            name for name in expected if name not in received or not torch.equal(received[name], expected[name])
        ]
        print(_ANSWER, f"{len(received)} equal" if not different else f"different: {different}", flush=True)


if __name__ == "__main__":
    main()
