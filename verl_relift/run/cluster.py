"""Starting, or joining, the Ray cluster of a run, and leaving nothing of it behind."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
from omegaconf import DictConfig, OmegaConf
from verl.trainer.constants_ppo import get_ppo_ray_runtime_env

_SHARED_MEMORY = Path("/dev/shm")
# Python's shared_memory and vLLM's CPU communicator. Their owners unlink them, unless they are killed.
_SEGMENTS = ("psm_*", "vllm_dist_*", "verl_weights_*")


@contextmanager
def started(config: DictConfig) -> Iterator[None]:
    """Ray for the duration of a run: what ``ray_kwargs.ray_init`` says, with verl's runtime environment."""
    defaults = get_ppo_ray_runtime_env(config)
    defaults.setdefault("env_vars", {})["TRANSFER_QUEUE_ENABLE"] = "1"
    arguments = OmegaConf.to_container(config.ray_kwargs.ray_init, resolve=True)
    if os.environ.get("RAY_ADDRESS") or arguments.get("address"):
        # These say what to start; Ray refuses them where it joins a cluster that is there.
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
    """Unlink shared memory of this user, made after ``since`` (Unix seconds), that no living process maps.

    Returns:
        The names removed.
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
            continue  # it ended meanwhile, or is another user's
        for name in [name for name in candidates if name in mapped]:
            del candidates[name]
    for path in candidates.values():
        path.unlink(missing_ok=True)
    return sorted(candidates)
