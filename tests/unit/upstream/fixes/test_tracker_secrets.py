"""Trackers get the configuration without secrets."""

import inspect
import sys
from types import SimpleNamespace

import verl  # noqa: F401  loads the plugin
from verl.trainer.ppo.v1 import trainer_base
from verl.utils import tracking

from verl_relift.upstream.registry import ORIGINALS


def test_verl_still_hands_the_configuration_to_trackers():
    """The day this fails, `redact_configuration` can go."""
    assert "config=config" in inspect.getsource(ORIGINALS["verl.utils.tracking:Tracking.__init__"])
    fit = inspect.getsource(trainer_base.PPOTrainer.fit)
    assert "config=OmegaConf.to_container(self.config, resolve=True)" in fit
    assert trainer_base.Tracking is tracking.Tracking


def test_trackers_get_no_secrets(monkeypatch):
    stored = []
    wandb = SimpleNamespace(init=lambda **given: stored.append(given), finish=lambda **_: None)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    config = {"trainer": {"x": 1}, "url": "https://me:pa55@host", "env_vars": {"A": "b"}, "hf_token": "t"}
    tracker = tracking.Tracking("project", "name", ["wandb"], config)
    tracker.finish()
    shown = {"trainer": {"x": 1}, "url": "https://me:***@host", "env_vars": {"A": "***"}, "hf_token": "***"}
    assert stored[0]["config"] == shown and stored[0]["project"] == "project"
    assert config["hf_token"] == "t"  # the run's own is as it was
    tracking.Tracking("project", "name", "console").finish()
