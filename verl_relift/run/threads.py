"""How many threads a process computes with on a CPU: its share of the cores, if the model is wide enough.

Training and vLLM take turns and have as many processes each, so both share out all cores. What else a run starts
(trainer, storage, judges) has one thread.
"""

import math
import os
from pathlib import Path

# The number for the processes that compute; `OMP_NUM_THREADS` is that of all others.
THREADS = "VERL_RELIFT_THREADS"
# Set where the value of `OMP_NUM_THREADS` is this program's, not the user's.
_OURS = "VERL_RELIFT_OWN_OMP_NUM_THREADS"

# Below this width a matrix product is over before a second thread has begun, and whatever else needs the other core
# makes both wait.
MIN_WIDTH = 512

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cores() -> int:
    """Return the cores that this process may use: those of its affinity, and no more than a container's quota."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = _QUOTA.read_text().split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no control group, or `max`
        return cores


def share(width: int, processes: int, cores: int) -> int:
    """Return the threads of each of several processes that compute at the same time.

    Args:
        width: `hidden_size` of the model.
        processes: how many compute at the same time on one machine.
        cores: of the machine.
    """
    return max(1, cores // processes) if width >= MIN_WIDTH else 1


def prepare() -> None:
    """Give this process and its children one thread each, unless `OMP_NUM_THREADS` is set: then all have that many."""
    if "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = os.environ[_OURS] = "1"
    if _OURS not in os.environ:
        os.environ.setdefault(THREADS, os.environ["OMP_NUM_THREADS"])


def choose(given: int | None, width: int, processes: int) -> tuple[int, str]:
    """Choose the threads of this run's training ranks and vLLM workers, and leave the number in the environment.

    Args:
        given: `relift.threads`.
        width: `hidden_size` of the model.
        processes: training ranks of a node.

    Returns:
        The number, and why it is that.
    """
    cores = usable_cores()
    if given is not None:
        threads, why = given, "relift.threads"
    elif os.environ.get(THREADS, "").isdigit():
        threads, why = max(1, int(os.environ[THREADS])), "OMP_NUM_THREADS"
    else:
        threads = share(width, processes, cores)
        why = f"{cores} cores, {processes} processes" if width >= MIN_WIDTH else f"hidden_size {width}"
    os.environ[THREADS] = str(threads)
    return threads, why


def apply() -> None:
    """Compute with the chosen number of threads in this process."""
    if THREADS in os.environ:
        import torch

        torch.set_num_threads(int(os.environ[THREADS]))
