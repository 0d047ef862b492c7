"""Compose the configuration of a command line without importing verl."""

import importlib.util
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

# `${sum:a,b}` in the YAML files.
OmegaConf.register_new_resolver("sum", lambda *terms: sum(terms), replace=True)


def compose_config(name: str, folder: str | None, overrides: list[str], platform: str) -> DictConfig:
    """Compose the configuration that ``verl_relift.train`` gets from the same arguments.

    Args:
        name: the configuration's name, without ``.yaml``.
        folder: a folder of the user's that holds it, or None for this package's.
        overrides: ``key=value`` strings.
        platform: ``cuda`` or ``cpu``, unless an override chooses it.

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
        return compose(name, overrides=[f"hydra.searchpath=[{search}]", *overrides])
