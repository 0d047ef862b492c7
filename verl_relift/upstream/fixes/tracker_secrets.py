"""The configuration that trackers store, without secrets."""

import functools
from types import ModuleType

from ...run.redact import redact
from ..registry import Where, patch, replace

_MODULE = "verl.utils.tracking"


@patch(
    where=Where.EVERYWHERE,
    replaces=(f"{_MODULE}:Tracking.__init__",),
    versions=("verl",),
    upstream="hands the whole configuration to the trackers, which store it in files and on servers, with passwords in "
    "URLs and what `env_vars` holds",
    canary="test_verl_still_hands_the_configuration_to_trackers",
)
def redact_configuration(module: ModuleType) -> None:
    create = module.Tracking.__init__

    @functools.wraps(create)
    def create_without_secrets(self, project_name, experiment_name, default_backend="console", config=None) -> None:
        create(self, project_name, experiment_name, default_backend, redact(config) if config else config)

    replace(module.Tracking, "__init__", create_without_secrets)
