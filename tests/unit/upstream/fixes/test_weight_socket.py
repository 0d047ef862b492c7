"""The name of the socket for weights; tests/integration/test_weight_sync.py tells two clusters apart."""

import inspect

import verl  # noqa: F401  loads the plugin


def test_verl_still_names_its_socket_after_the_job_alone():
    """The day this fails, `fixes/weight_socket.py` can go."""
    from verl.workers.rollout.vllm_rollout import vllm_rollout

    source = inspect.getsource(vllm_rollout.ServerAdapter)
    assert "job_id = ray.get_runtime_context().get_job_id()" in source
    assert "rl-colocate-zmq-{job_id}-replica-{self.replica_rank}-rank-{local_rank}.sock" in source
