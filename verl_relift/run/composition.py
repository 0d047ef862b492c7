"""Compose the configuration of a command line without importing verl."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from . import precision


def starting_with(method: str, name: str) -> str:
    """Return `name` with the method's name in front, unless it is there: a word of its own, up to `-`."""
    return name if name == method or name.startswith(f"{method}-") else f"{method}-{name}"


# Tokens of a block of vLLM's cache on a CPU, and how many blocks a server reserves at most: 0.2 to 9 GB, by model.
_BLOCK, _MOST_BLOCKS = 128, 256


def rollouts_per_server(questions: int, samples: int, devices: int, tensor_parallel: int) -> int:
    """Return how many rollouts of a step one vLLM server has, at most.

    Args:
        questions: of a step.
        samples: of each question.
        devices: of the run.
        tensor_parallel: devices of a server.
    """
    sizes = (questions, samples, devices, tensor_parallel)
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        return 1  # the checks of these keys say what is wrong
    return -(-questions * samples // max(1, devices // tensor_parallel))


def cache_blocks(sequences: int, tokens: int) -> int:
    """Return the blocks of cache that sequences need which are generated at the same time on a CPU, up to a limit.

    Args:
        sequences: how many.
        tokens: of each, at most.
    """
    if not all(isinstance(size, int) and size > 0 for size in (sequences, tokens)):
        return _MOST_BLOCKS
    each = -(-tokens // _BLOCK)
    return max(each, min(sequences * each, _MOST_BLOCKS)) + 1  # vLLM keeps one for itself


# Functions of the YAML files: `${sum:a,b}` and so on.
OmegaConf.register_new_resolver("rollouts_per_server", rollouts_per_server, replace=True)
OmegaConf.register_new_resolver("cache_blocks", cache_blocks, replace=True)
OmegaConf.register_new_resolver("cpu_dtype", lambda model: precision.cpu_dtype(model), replace=True)
OmegaConf.register_new_resolver("sum", lambda *terms: sum(terms), replace=True)
OmegaConf.register_new_resolver("starting_with", starting_with, replace=True)
OmegaConf.register_new_resolver("either", lambda condition, one, other: one if condition else other, replace=True)


@dataclass(frozen=True)
class Arguments:
    """The arguments of a training command that decide its configuration."""

    config_name: str = "relift"  # without .yaml
    config_dir: str | None = None  # a folder of the user's that holds it; None: this package's
    overrides: tuple[str, ...] = ()  # key=value

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> "Arguments":
        """Parse a command line. Options that don't change the configuration are dropped, and no other word is."""
        found, _ = get_args_parser().parse_known_intermixed_args(arguments)
        return cls(found.config_name or "relift", found.config_dir, tuple(found.overrides))

    def with_overrides(self, overrides: Sequence[str]) -> "Arguments":
        """Return a copy with other overrides."""
        return replace(self, overrides=tuple(overrides))

    def command_line(self) -> list[str]:
        """Return the arguments in the form in which a user types them."""
        folder = [] if self.config_dir is None else ["--config-dir", self.config_dir]
        return ["--config-name", self.config_name, *folder, *self.overrides]

    def compose(self, platform: str) -> DictConfig:
        """Compose the configuration; see `compose_config`."""
        return compose_config(self.config_name, self.config_dir, self.overrides, platform)


def compose_config(name: str, folder: str | None, overrides: Sequence[str], platform: str) -> DictConfig:
    """Compose the configuration that `verl_relift.train` gets from the same arguments.

    Args:
        name: the configuration's name, without `.yaml`.
        folder: a folder of the user's that holds it, or None for this package's.
        overrides: `key=value` strings.
        platform: `cuda` or `cpu`, unless an override chooses it.

    Raises:
        HydraException: an override or a file is invalid.
    """
    # By path, because `pkg://verl...` would import verl, and with it torch and Ray.
    verl = Path(next(iter(importlib.util.find_spec("verl").submodule_search_locations))) / "trainer" / "config"
    own = Path(__file__).parents[1] / "config"
    search = ",".join(f"file://{path}" for path in (own, verl))
    if not any(override.startswith("platform=") for override in overrides):
        overrides = [f"platform={platform}", *overrides]
    with initialize_config_dir(str(Path(folder).resolve() if folder else own), version_base=None):
        try:
            return compose(name, overrides=[f"hydra.searchpath=[{search}]", *overrides])
        except ValueError as error:  # Hydra's, of a group of files that an override sets to null
            groups = " ".join(override for override in overrides if "." not in override.partition("=")[0])
            raise HydraException(f"{groups}: {error}") from error
