"""Methods by name: what `method=NAME` chooses. The trainer, the checks and `plan` read this and no other list."""

from importlib import import_module
from typing import Any

from ..settings import SettingsError, build
from .base import Method

# name -> module and class, imported when they are asked for
METHODS: dict[str, str] = {
    "relift": ".relift:ReLIFT",
    "relift_authors": ".relift_authors:AuthorsReLIFT",
    "relift_splice": ".relift_splice:SplicedReLIFT",
    "luffy": ".luffy:LUFFY",
    "rl_plus": ".rl_plus:RLPlus",
    "srft": ".srft:SRFT",
    "hpt": ".hpt:HPT",
    "superrl": ".superrl:SuperRL",
    "factorial": ".factorial:Factorial",
    "chord_mu": ".chord_mu:CHORD",
    "chord_phi": ".chord_phi:CHORDPhi",
    "grpo": ".grpo:GRPO",
    "sft": ".sft:SFT",
    "rl_with_sft_loss": ".rl_with_sft_loss:RLWithSFTLoss",
    "prefix_rft": ".prefix_rft:PrefixRFT",
    "uft": ".uft:UFT",
    "hint_retry": ".hint_retry:HintRetry",
    "regft": ".regft:ReGFT",
    "sft_then_rl": ".sft_then_rl:SFTThenRL",
}


def method_class(name: str) -> type[Method]:
    """Return the class of a method.

    Raises:
        SettingsError: there is no method of that name.
    """
    if name not in METHODS:
        raise SettingsError(f"method={name}: there is no such method; choose one of {', '.join(sorted(METHODS))}")
    module, _, attribute = METHODS[name].partition(":")
    return getattr(import_module(module, __package__), attribute)


def without_solutions(settings: Any) -> str:
    """Return what a user can do with data that have no solutions, with the settings of a method that needs them."""
    asks = hasattr(settings, "teacher")
    teacher = "ask a teacher" if asks else "method=relift with a teacher"
    return f"use method=grpo, or {teacher} (docs/teacher.md)"


def read_method(group: dict[str, Any]) -> tuple[type[Method], Any]:
    """Return the method that the configuration's group `method` describes, and its checked settings.

    Args:
        group: the group as a plain dict, `name` included.

    Raises:
        SettingsError: naming the first key that is unknown, of the wrong type or out of range.
    """
    settings = dict(group)
    cls = method_class(str(settings.pop("name", None)))
    return cls, build(cls.Settings, settings, "method")
