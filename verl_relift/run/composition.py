"""The configuration of a command line, composed without importing verl."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

# `${sum:a,b}` in the YAML files.
OmegaConf.register_new_resolver("sum", lambda *terms: sum(terms), replace=True)


@dataclass(frozen=True)
class Arguments:
    """A training command's arguments: Hydra's options that choose the configuration, and the overrides."""

    config_name: str = "relift"
    config_dir: str | None = None
    overrides: tuple[str, ...] = ()

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> "Arguments":
        """Read them off a command line; options of Hydra's that change nothing of the configuration are left out."""
        values = {"--config-name": "relift", "--config-dir": None}
        short = {"-cn": "--config-name", "-cd": "--config-dir"}
        overrides, rest = [], list(arguments)
        while rest:
            argument = rest.pop(0)
            name, separator, value = argument.partition("=")
            name = short.get(name, name)
            if name in values:
                values[name] = value if separator else rest.pop(0) if rest else None
            elif separator and not argument.startswith("-"):
                overrides.append(argument)
        return cls(values["--config-name"] or "relift", values["--config-dir"], tuple(overrides))

    def with_overrides(self, overrides: Sequence[str]) -> "Arguments":
        """Return the same command with other overrides."""
        return replace(self, overrides=tuple(overrides))

    def command_line(self) -> list[str]:
        """Return the arguments as they are typed."""
        folder = [] if self.config_dir is None else ["--config-dir", self.config_dir]
        return ["--config-name", self.config_name, *folder, *self.overrides]

    def compose(self, platform: str) -> DictConfig:
        """Return the configuration; see :func:`compose_config`."""
        return compose_config(self.config_name, self.config_dir, self.overrides, platform)


def compose_config(name: str, folder: str | None, overrides: Sequence[str], platform: str) -> DictConfig:
    """Return the configuration that ``verl_relift.train`` composes from the same arguments.

    Raises:
        HydraException: an override or a file is wrong.
    """
    # By path: `pkg://verl...` would import verl, and with it torch and Ray.
    verl = Path(next(iter(importlib.util.find_spec("verl").submodule_search_locations))) / "trainer" / "config"
    own = Path(__file__).parents[1] / "config"
    search = ",".join(f"file://{path}" for path in (own, verl))
    if not any(override.startswith("platform=") for override in overrides):
        overrides = [f"platform={platform}", *overrides]
    with initialize_config_dir(str(Path(folder).resolve() if folder else own), version_base=None):
        return compose(name, overrides=[f"hydra.searchpath=[{search}]", *overrides])
