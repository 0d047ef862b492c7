"""How many threads the processes that compute on a CPU have."""

import os
import subprocess
import sys

import pytest

from verl_relift.run import threads
from verl_relift.run.environment import SPEED_PATCHES, prepare_environment


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """`prepare_environment` changes os.environ itself; give it a copy, on a CPU with nothing set."""
    names = ("OMP_NUM_THREADS", threads.THREADS, threads._OURS)
    kept = {name: value for name, value in os.environ.items() if name not in names}
    monkeypatch.setattr(os, "environ", kept | {"VERL_PLATFORM": "cpu"})


@pytest.mark.parametrize(
    ("width", "processes", "cores", "each"),
    [
        (128, 2, 64, 1),  # the quickstart's model
        (576, 2, 2, 1),  # SmolLM2, DP2 or PP2 on two cores
        (576, 1, 2, 2),
        (576, 2, 64, 32),
        (896, 2, 7, 3),  # Qwen2.5 0.5B
        (576, 8, 2, 1),
    ],
)
def test_cores_are_shared_out_among_the_processes_of_a_wide_model(width, processes, cores, each):
    assert threads.share(width, processes, cores) == each


def test_the_trainer_keeps_one_thread_and_the_workers_get_theirs(monkeypatch):
    monkeypatch.setattr(threads, "usable_cores", lambda: 16)
    prepare_environment()
    assert threads.choose(None, 576, 2) == (8, "16 cores, 2 processes")
    assert (os.environ["OMP_NUM_THREADS"], os.environ[threads.THREADS]) == ("1", "8")


def test_a_child_of_the_command_chooses_for_itself(monkeypatch):
    """A restarted training, or a stage of a method, inherits the environment that its parent has prepared."""
    monkeypatch.setattr(threads, "usable_cores", lambda: 16)
    prepare_environment()
    prepare_environment()
    assert threads.choose(None, 576, 2)[0] == 8


@pytest.mark.parametrize("given", ["1", "7"])
def test_what_the_user_sets_counts_for_all_processes(monkeypatch, given):
    monkeypatch.setattr(threads, "usable_cores", lambda: 16)
    os.environ["OMP_NUM_THREADS"] = given
    prepare_environment()
    assert threads.choose(None, 576, 2) == (int(given), "OMP_NUM_THREADS")
    assert threads.choose(3, 576, 2) == (3, "relift.threads")


@pytest.mark.parametrize(("quota", "cores"), [("max 100000", 8), ("150000 100000", 2), ("20000 100000", 1)])
def test_a_container_has_the_cores_of_its_quota(monkeypatch, tmp_path, quota, cores):
    (tmp_path / "cpu.max").write_text(quota + "\n")
    monkeypatch.setattr(threads, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert threads.usable_cores() == cores


@pytest.mark.parametrize(("forks", "number"), [("1", "1"), ("0", "5")])
def test_a_server_of_vllm_has_one_thread_if_it_forks_its_engine(forks, number):
    from verl_relift.upstream.cpu.platform import PlatformCPU

    os.environ |= {threads.THREADS: "5", SPEED_PATCHES: forks}
    assert PlatformCPU().rollout_env_vars()["OMP_NUM_THREADS"] == number


# A process as a server of vLLM: it computes, and forks one that does.
SERVER = """
import torch
from verl_relift.upstream.speed.vllm import _EngineContext

def compute():
    product = torch.randn(600, 600) @ torch.randn(600, 600)
    return torch.randn(1_000_000).exp().sum() + product.sum()

def engine():
    compute()
    print("engine", torch.get_num_threads(), flush=True)

compute()
print("server", torch.get_num_threads(), flush=True)
process = _EngineContext().Process(target=engine)
process.start()
process.join(60)
process.kill()
"""


def test_a_forked_engine_computes_with_its_number_of_threads():
    environment = os.environ | {"OMP_NUM_THREADS": "1", threads.THREADS: "2"}
    result = subprocess.run([sys.executable, "-c", SERVER], env=environment, capture_output=True, text=True)
    assert result.stdout.splitlines() == ["server 1", "engine 2"], result.stderr
