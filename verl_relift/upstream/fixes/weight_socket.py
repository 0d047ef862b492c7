"""The name under which a training worker hands weights to the vLLM worker beside it.

verl names the socket after the Ray job, so that two runs on a host do not meet. But the first job of every Ray cluster
has the same number, and a run starts a cluster of its own: two runs on a host would take each other's weights,
unnoticed where the models have the same shapes.
"""

import re

import ray


def unique_job_id() -> str:
    """The Ray job id, with the cluster's address: unique among the clusters that a host has a part in."""
    context = ray.get_runtime_context()
    return f"{context.get_job_id()}-{re.sub(r'[^0-9a-zA-Z.]', '-', context.gcs_address)}"


def with_unique_job_id(handle: str) -> str:
    """A socket's name as verl's rollout adapter makes it, with `unique_job_id` in place of the job id.

    Raises:
        ValueError: if the job id is not in it.
    """
    job = ray.get_runtime_context().get_job_id()
    before, found, after = handle.partition(f"-{job}-")
    if not found:
        raise ValueError(f"{handle}: expected the Ray job id {job} in the name of the weights' socket")
    return f"{before}-{unique_job_id()}-{after}"
