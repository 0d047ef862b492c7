"""Whether this process takes Megatron's layers from Transformer Engine, or from Megatron's local spec.

Installed is not enough: its libraries must load, which depends on the CUDA libraries that the process finds. Megatron
and peft don't survive a Transformer Engine that is installed and broken, so it is hidden from them then.
"""

import functools
import importlib
import importlib.util
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator

from ..run import console

NAME = "transformer_engine"
# 1: end with the reason if it can't be used. 0: the local spec. Unset: Transformer Engine where it loads.
VARIABLE = "VERL_RELIFT_TRANSFORMER_ENGINE"
# Packages that look for it when they are imported.
USERS = ("megatron.core", "peft")


class TransformerEngineMissing(RuntimeError):
    """The user demands Transformer Engine, and it can't be used here."""


def demanded() -> bool:
    """Return whether the environment demands it.

    Raises:
        ValueError: if the variable has a value other than 0 or 1.
    """
    return _choice() == "1"


def hide() -> None:
    """Make this process see no Transformer Engine: imports of it fail, and importlib finds nothing."""
    for module in [name for name in sys.modules if name == NAME or name.startswith((f"{NAME}.", f"{NAME}_torch"))]:
        del sys.modules[module]
    sys.modules[NAME] = None


def rule_out(problem: str) -> None:
    """Hide it, because of `problem`.

    Raises:
        TransformerEngineMissing: it is demanded.
        ValueError: see `demanded`.
    """
    hide()
    if demanded():
        raise TransformerEngineMissing(f"{VARIABLE}=1, but {problem}")


@functools.cache
def usable() -> bool:
    """Return whether this process has Transformer Engine; imports it to know, and hides it if that fails.

    Raises:
        TransformerEngineMissing, ValueError: see `rule_out`.
    """
    if _choice() == "0":
        hide()
    problem = why_not()
    if problem is None:
        return True
    rule_out(problem)
    if "not installed" not in problem:
        console.say(
            f"verl_relift: warning: {problem}. Megatron's local layer spec takes its place: slower, and without "
            "context parallelism. `make check-gpu-stack` tests an installation"
        )
    return False


def who_demands(config) -> Iterator[str]:
    """Yield what of the environment and of a run's configuration Megatron's local spec can't do, as `name=value`."""
    if demanded():
        yield f"{VARIABLE}=1"
    for model in ("actor", "ref"):
        megatron, path = config.actor_rollout_ref[model].megatron, f"actor_rollout_ref.{model}.megatron"
        if megatron.context_parallel_size > 1:
            yield f"{path}.context_parallel_size={megatron.context_parallel_size}"
        for name in ("fp8", "fp4", "tp_comm_overlap"):
            value = megatron.override_transformer_config.get(name)
            if value:
                yield f"{path}.override_transformer_config.{name}={value}"


def found_in_another_process() -> str | None:
    """Return what `why_not` returns in a process of its own, so that this one loads no CUDA libraries."""
    code = f"from {__name__} import why_not; print(why_not() or '', end='')"
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    if ran.returncode:
        return f"Transformer Engine is installed but ends the process that imports it (status {ran.returncode})"
    return ran.stdout or None


def why_not() -> str | None:
    """Import Transformer Engine and return why that fails, in one line; None if it works."""
    if importlib.util.find_spec(NAME) is None:
        return "Transformer Engine is not installed"
    import torch  # noqa: F401  before it: its libraries are then those that torch was built with

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns that the part which fails below is missing
            importlib.import_module(f"{NAME}.pytorch")
    except Exception as error:  # OSError of a library, RuntimeError, AssertionError: whatever it raises, it is unusable
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return f"Transformer Engine is installed but doesn't load ({lines[0]})"
    return None


def _choice() -> str:
    value = os.environ.get(VARIABLE, "").strip()
    if value not in ("", "0", "1"):
        raise ValueError(f"{VARIABLE}={value}: expected 1 (required), 0 (the local layer spec), or unset")
    return value
