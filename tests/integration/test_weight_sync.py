"""Two runs on one host, each with a Ray cluster of its own, hand over weights under different names."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import ray

from verl_relift.upstream.fixes.weight_socket import with_unique_job_id

NAMES = """
import sys, ray
from verl_relift.upstream.fixes.weight_socket import unique_job_id, with_unique_job_id
ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
job = ray.get_runtime_context().get_job_id()
task = ray.remote(num_cpus=1)(unique_job_id)
handle = with_unique_job_id(f"ipc:///run/rl-colocate-zmq-{job}-replica-0-rank-1.sock")
print(job, unique_job_id(), ray.get(task.remote()), handle, flush=True)
sys.stdin.read()
"""


def test_clusters_on_one_host_have_different_names():
    clusters, names = [], []
    try:
        for _ in range(2):
            clusters.append(
                subprocess.Popen(
                    [sys.executable, "-c", NAMES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            )
            names.append(clusters[-1].stdout.readline().split())
    finally:
        for cluster in clusters:
            cluster.communicate(timeout=300)
    (job, mine, in_task, handle), (other_job, other, _, other_handle) = names
    assert job == other_job  # which is why it is not enough
    assert mine == in_task
    assert mine != other
    assert handle != other_handle
    assert handle == f"ipc:///run/rl-colocate-zmq-{mine}-replica-0-rank-1.sock"
    assert len(handle) < 107  # what the kernel allows of a socket's path


def test_a_name_of_another_form_is_refused(monkeypatch):
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_job_id=lambda: "01000000"))
    with pytest.raises(ValueError, match="01000000"):
        with_unique_job_id("ipc:///run/another-name.sock")
