"""Start or join the Ray cluster of a run, and clean up after it."""

import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import ray
from omegaconf import DictConfig, OmegaConf
from verl.trainer.constants_ppo import get_ppo_ray_runtime_env

from . import leftovers, private
from .environment import LOOPBACK, ON_LOOPBACK, joins_cluster
from .failure import RunFailed
from .stopping import Stopped

# Folders below /tmp: of a cluster of our own, and of the sockets over which weights go to vLLM (verl's name).
_FOLDER, SOCKETS = "relift-ray-", "rl-colocate-zmq-"
_TOO_SLOW = "timed out during startup"  # in what `ray.init` raises
# Settings by environment that every process must have: this project's, and the platform.
_OURS = ("VERL_RELIFT_", "VERL_PLATFORM")


@contextmanager
def started(config: DictConfig) -> Iterator[None]:
    """Run Ray for the length of the context, with the arguments of `ray_kwargs.ray_init` and verl's environment.

    Where RAY_ADDRESS or `ray_kwargs.ray_init.address` names a cluster, join it instead of starting one.

    Raises:
        RunFailed: the machine is too busy to start Ray.
    """
    arguments = OmegaConf.to_container(config.ray_kwargs.ray_init, resolve=True)
    joins = joins_cluster(arguments.get("address"))
    own = arguments.pop("runtime_env", None) or {}
    defaults = _runtime_env(config, alone=not joins and os.environ.get(LOOPBACK) == "0")
    runtime_env = OmegaConf.to_container(OmegaConf.merge(defaults, {k: v for k, v in own.items() if v is not None}))
    start = time.time()
    private.remove_unheld(SOCKETS)
    with nullcontext() if joins else _own_folder(arguments):
        if joins:
            # These describe a cluster to start; Ray rejects them when it joins an existing one.
            for name in ("num_cpus", "num_gpus", "object_store_memory", "include_dashboard"):
                arguments.pop(name, None)
        try:
            ray.init(**arguments, runtime_env=runtime_env)
        except Exception as error:  # Ray has no class for it
            if _TOO_SLOW not in str(error):
                raise
            raise RunFailed(
                f"Ray did not start in 30 s, the time that it gives itself: this machine is too busy (load "
                f"{os.getloadavg()[0]:.0f} on {os.cpu_count()} cores); start again when there is less to do on it"
            ) from error
        try:
            yield
        finally:
            ray.shutdown()
            leftovers.remove_segments(since=start)
            private.remove_unheld(SOCKETS)


def _runtime_env(config: DictConfig, alone: bool) -> dict:
    """verl's environment of Ray's processes, and ours.

    Args:
        alone: no process of the run is on another machine.
    """
    runtime_env = get_ppo_ray_runtime_env(config)
    variables = runtime_env.setdefault("env_vars", {})
    variables["TRANSFER_QUEUE_ENABLE"] = "1"
    # The same on every node.
    variables |= {name: value for name, value in os.environ.items() if name.startswith(_OURS)}
    if alone:
        variables |= {name: os.environ.get(name, value) for name, value in ON_LOOPBACK.items()}
    return runtime_env


@contextmanager
def _own_folder(arguments: dict) -> Iterator[None]:
    """Give a cluster of our own a folder that no other user can open, with a token that Ray asks every client for.

    The folder is removed in the end. If the run fails it stays for a day, because it holds Ray's logs.

    Args:
        arguments: of `ray.init`, which are completed.
    """
    if arguments.get("include_dashboard") is None:
        arguments["include_dashboard"] = False
    parent = Path(os.environ.get("RAY_TMPDIR", private.PARENT))
    private.remove_unheld(_FOLDER, parent, older_than=86400.0)
    folder = private.create(_FOLDER, parent)
    # Ray opens its own folder to all users.
    arguments.setdefault("_temp_dir", str(folder / "ray"))
    given = os.environ.keys() & {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}
    if not given:
        token = folder / "token"
        with open(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(token)
    failed = False
    try:
        yield
    except Exception as error:
        failed = not isinstance(error, Stopped)
        raise
    finally:
        private.release(folder)
        if not given:
            del os.environ["RAY_AUTH_TOKEN_PATH"]
        if failed:
            print(f"Ray's logs of this run stay in {folder} for a day", file=sys.stderr, flush=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)
