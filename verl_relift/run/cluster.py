"""Start or join the Ray cluster of a run, and clean up after it."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
from omegaconf import DictConfig, OmegaConf
from verl.trainer.constants_ppo import get_ppo_ray_runtime_env

from .environment import SPEED_PATCHES

_SHARED_MEMORY = Path("/dev/shm")
# Python's shared_memory, vLLM's CPU communicator and verl's weight transfer. Their owners unlink them unless killed.
_SEGMENTS = ("psm_*", "vllm_dist_*", "verl_weights_*")


@contextmanager
def started(config: DictConfig) -> Iterator[None]:
    """Run Ray for the length of the context, with the arguments of `ray_kwargs.ray_init` and verl's environment.

    Where RAY_ADDRESS or `ray_kwargs.ray_init.address` names a cluster, join it instead of starting one.
    """
    defaults = get_ppo_ray_runtime_env(config)
    variables = defaults.setdefault("env_vars", {})
    variables["TRANSFER_QUEUE_ENABLE"] = "1"
    if SPEED_PATCHES in os.environ:
        variables[SPEED_PATCHES] = os.environ[SPEED_PATCHES]  # the same on every node
    arguments = OmegaConf.to_container(config.ray_kwargs.ray_init, resolve=True)
    if os.environ.get("RAY_ADDRESS") or arguments.get("address"):
        # These describe a cluster to start; Ray rejects them when it joins an existing one.
        for name in ("num_cpus", "num_gpus", "object_store_memory", "include_dashboard"):
            arguments.pop(name, None)
    own = arguments.pop("runtime_env", None) or {}
    runtime_env = OmegaConf.to_container(OmegaConf.merge(defaults, {k: v for k, v in own.items() if v is not None}))
    start = time.time()
    ray.init(**arguments, runtime_env=runtime_env)
    try:
        yield
    finally:
        ray.shutdown()
        remove_orphaned_segments(since=start)


def remove_orphaned_segments(since: float) -> list[str]:
    """Unlink this user's shared memory that no living process maps.

    Args:
        since: only segments created at or after this time, in Unix seconds.

    Returns:
        The paths of the segments removed, sorted.
    """
    candidates = {}
    for pattern in _SEGMENTS:
        for path in _SHARED_MEMORY.glob(pattern):
            status = path.stat()
            if status.st_uid == os.getuid() and status.st_ctime >= since:
                candidates[str(path)] = path
    if not candidates:
        return []
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            mapped = maps.read_text()
        except OSError:
            continue  # the process has ended, or belongs to another user
        for name in [name for name in candidates if name in mapped]:
            del candidates[name]
    for path in candidates.values():
        path.unlink(missing_ok=True)
    return sorted(candidates)
