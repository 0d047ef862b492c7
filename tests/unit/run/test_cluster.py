"""What a Ray cluster of our own is given before it starts; tests/integration/test_security.py attacks one."""

import inspect
import os
from pathlib import Path

import pytest
import ray
from omegaconf import OmegaConf

from verl_relift.run import cluster, private
from verl_relift.run.environment import LOOPBACK, joins_cluster, prepare_ray
from verl_relift.run.failure import RunFailed
from verl_relift.run.stopping import Stopped

OURS = (LOOPBACK, "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS", "RAY_TMPDIR")
CONFIG = OmegaConf.create({"actor_rollout_ref": {"actor": {"strategy": "megatron"}}})


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """None of our variables is set, and none stays."""
    for name in OURS:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.fixture
def parent(environment, tmp_path):
    environment.setenv("RAY_TMPDIR", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("address", "variable", "joins"),
    [
        (None, None, False),
        ("local", None, False),
        ("local", "10.0.0.1:6379", False),
        ("auto", None, True),
        ("10.0.0.1:6379", None, True),
        (None, "10.0.0.1:6379", True),
        (None, "auto", True),
    ],
)
def test_which_address_is_a_running_cluster(environment, address, variable, joins):
    if variable:
        environment.setenv("RAY_ADDRESS", variable)
    assert joins_cluster(address) is joins


@pytest.mark.parametrize(("nnodes", "address", "set_"), [(1, None, 2), (2, None, 1), (1, "auto", 0), (2, "auto", 0)])
def test_a_cluster_of_our_own_asks_for_a_token_and_stays_on_its_machine(nnodes, address, set_):
    prepare_ray(nnodes, address)
    found = {name: os.environ[name] for name in OURS if name in os.environ}
    assert found == dict(list({"RAY_AUTH_MODE": "token", LOOPBACK: "0"}.items())[:set_])


def test_what_the_user_sets_stays(environment):
    environment.setenv("RAY_AUTH_MODE", "disabled")
    environment.setenv(LOOPBACK, "1")
    prepare_ray(1, None)
    assert os.environ["RAY_AUTH_MODE"] == "disabled" and os.environ[LOOPBACK] == "1"


def test_the_folder_and_the_token_are_the_owners_alone_and_go_in_the_end(parent):
    arguments: dict = {}
    with cluster._own_folder(arguments):
        (folder,) = parent.iterdir()
        token = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
        assert folder.stat().st_mode & 0o777 == 0o700 and token.stat().st_mode & 0o777 == 0o600
        assert token.parent == folder and len(token.read_text()) == 64
        assert arguments == {"include_dashboard": False, "_temp_dir": f"{folder}/ray"}
    assert not folder.exists() and "RAY_AUTH_TOKEN_PATH" not in os.environ


def test_two_runs_have_different_tokens(parent):
    tokens = set()
    for _ in range(2):
        with cluster._own_folder({}):
            tokens.add(Path(os.environ["RAY_AUTH_TOKEN_PATH"]).read_text())
    assert len(tokens) == 2


def test_a_machine_too_busy_to_start_ray_is_the_cause(parent, monkeypatch):
    assert cluster._TOO_SLOW in inspect.getsource(ray._private.node)  # Ray still says it

    def init(**_):
        raise Exception(f"The current node {cluster._TOO_SLOW}. This could happen because some of the raylet failed")

    monkeypatch.setattr(ray, "init", init)
    config = OmegaConf.merge(CONFIG, {"ray_kwargs": {"ray_init": {}}})
    said = r"Ray did not start in 30 s, .*: this machine is too busy \(load \d+ on"
    with pytest.raises(RunFailed, match=said), cluster.started(config):
        raise AssertionError("unreachable")


@pytest.mark.parametrize(("error", "stays"), [(ValueError, True), (Stopped, False), (KeyboardInterrupt, False)])
def test_rays_logs_stay_where_a_run_failed(parent, capsys, error, stays):
    with pytest.raises(error), cluster._own_folder({}):
        (folder,) = parent.iterdir()
        raise error("it ends")
    assert folder.exists() is stays
    assert (f"Ray's logs of this run stay in {folder}" in capsys.readouterr().err) is stays
    assert bool(private.remove_unheld(folder.name, parent)) is stays  # the next run's, in a day


def test_a_users_own_choices_are_kept(parent, environment):
    environment.setenv("RAY_AUTH_TOKEN", "f" * 64)
    arguments = {"include_dashboard": True, "_temp_dir": "/data/ray"}
    with cluster._own_folder(arguments):
        assert "RAY_AUTH_TOKEN_PATH" not in os.environ
    assert arguments == {"include_dashboard": True, "_temp_dir": "/data/ray"}
    assert os.environ["RAY_AUTH_TOKEN"] == "f" * 64


def test_processes_of_one_machine_listen_on_loopback(environment):
    environment.setenv("NCCL_SOCKET_IFNAME", "ib0")
    variables = cluster._runtime_env(CONFIG, alone=True)["env_vars"]
    assert variables["VLLM_HOST_IP"] == "127.0.0.1" and variables["GLOO_SOCKET_IFNAME"] == "lo"
    assert variables["NCCL_SOCKET_IFNAME"] == "ib0"
    assert "VLLM_HOST_IP" not in cluster._runtime_env(CONFIG, alone=False)["env_vars"]


def test_settings_by_environment_reach_every_node(environment):
    given = {
        "VERL_RELIFT_TRANSFORMER_ENGINE": "1",
        "VERL_RELIFT_SPEED_PATCHES": "0",
        "VERL_RELIFT_ANOTHER": "x",
        "VERL_PLATFORM": "nvidia",
    }
    for name, value in given.items():
        environment.setenv(name, value)
    environment.setenv("NOT_VERL_RELIFT", "1")
    for alone in (True, False):
        variables = cluster._runtime_env(CONFIG, alone)["env_vars"]
        assert given.items() <= variables.items() and "NOT_VERL_RELIFT" not in variables


def test_no_secret_is_in_what_ray_puts_on_command_lines(parent):
    """Ray hands the runtime environment to its workers' launcher as an argument."""
    with cluster._own_folder({}):
        token = Path(os.environ["RAY_AUTH_TOKEN_PATH"]).read_text()
        assert token not in str(cluster._runtime_env(CONFIG, alone=True))
