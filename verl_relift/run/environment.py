"""Set the environment of this process and its children, before torch, Ray or vLLM is imported."""

import os
from pathlib import Path

from . import threads

# "0" turns off the speed patches of verl_relift/upstream, in this process and its children.
SPEED_PATCHES = "VERL_RELIFT_SPEED_PATCHES"


def detect_platform() -> str:
    """Return `cuda` if this machine has an NVIDIA device, else `cpu`. The variable VERL_PLATFORM overrides this."""
    chosen = os.environ.get("VERL_PLATFORM", "").strip().lower()
    if chosen:
        return "cpu" if chosen == "cpu" else "cuda"
    return "cuda" if any(Path("/dev").glob("nvidia[0-9]*")) else "cpu"


_EVERYWHERE = {
    # verl sets the same for its workers; without it the tokenizers library warns in every forked process
    "TOKENIZERS_PARALLELISM": "true",
}

_ON_CPU = {
    "VERL_PLATFORM": "cpu",
    "TQ_NUM_THREADS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "TORCHDYNAMO_DISABLE": "1",
    "CUDA_DEVICE_MAX_CONNECTIONS": "1",
    # an empty CUDA_VISIBLE_DEVICES, which Ray sets for actors without a GPU, sends libraries looking for a driver
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def keep_kernels() -> None:
    """Let torch keep compiled kernels among the user's own files, before it is imported.

    By default they are in /tmp/torchinductor_USER, where another user could put code first.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache / "torchinductor"))


def prepare_environment() -> None:
    """Set the variables that the user has not set, and unset three that break or slow down every run.

    The three are CUDA_VISIBLE_DEVICES (on a CPU only), ROCR_VISIBLE_DEVICES (unless VERL_PLATFORM=amd) and
    PYTHONDONTWRITEBYTECODE.
    """
    for name, value in _EVERYWHERE.items():
        os.environ.setdefault(name, value)
    keep_kernels()
    if detect_platform() == "cpu":
        for name, value in _ON_CPU.items():
            os.environ.setdefault(name, value)
        threads.prepare()
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    # Slurm sets it in every allocation with GPUs, beside CUDA_VISIBLE_DEVICES, and verl's workers refuse to choose.
    if os.environ.get("VERL_PLATFORM", "").strip().lower() != "amd":
        os.environ.pop("ROCR_VISIBLE_DEVICES", None)
    # Ten processes import the same thousand modules; without bytecode on disk, each process compiles them again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


# Where every process is on this machine, no other machine needs to reach one.
ON_LOOPBACK = {"VLLM_HOST_IP": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}

# "0" keeps a Ray that this process starts to the loopback interface. Ray's name for it: elsewhere that is its default.
LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


def joins_cluster(address: str | None) -> bool:
    """Return whether Ray joins a cluster that runs already.

    Args:
        address: `ray_kwargs.ray_init.address`; without it RAY_ADDRESS counts.
    """
    return (address or os.environ.get("RAY_ADDRESS") or "local") != "local"


def prepare_ray(nnodes: int, address: str | None) -> None:
    """Set the variables that Ray reads when it is imported, where this process starts a cluster of its own.

    Nobody uses such a cluster without a token, and if it is to have one node, nobody reaches it from another machine.

    Args:
        nnodes: `trainer.nnodes`.
        address: `ray_kwargs.ray_init.address`.
    """
    if joins_cluster(address):
        return
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if nnodes == 1:
        os.environ.setdefault(LOOPBACK, "0")
