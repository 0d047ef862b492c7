"""Say in one line what is wrong with the options of a training command, and what to write instead."""

import difflib
import re
import shlex
from collections.abc import Iterator, Sequence

from hydra._internal.utils import get_args_parser

from .composition import defaults
from .keys import key_meant, names_of

# Of the options that begin alike, the ones that a user of this program may mean.
_USUAL = ("--config-name", "--config-dir")
_EXAMPLE = "actor_rollout_ref.actor.optim.lr=1e-6"


# What other trainers have a flag for, and what does the same here.
_ELSEWHERE = {
    "--resume": "a run resumes by itself from its last checkpoint, in trainer.default_local_dir (trainer.resume_mode)",
    "--dry-run": "python -m verl_relift.plan with the same settings checks them and says what the run needs",
}


class _Refused(Exception):
    """Hydra's parser would print its usage and exit."""


def flag_problems(arguments: Sequence[str], own: Sequence[str], platform: str) -> Iterator[str]:
    """Yield a line for each option that there is not, or the first one that can't be read.

    Args:
        arguments: of the command line, without this program's own options.
        own: the names of these, to suggest one of them.
        platform: `cuda` or `cpu`.
    """
    parser = get_args_parser()

    def refuse(message: str) -> None:
        raise _Refused(message)

    parser.error = refuse
    try:
        _, unknown = parser.parse_known_intermixed_args(arguments)
    except _Refused as error:
        yield _unreadable(str(error))
        return
    names = [name for action in parser._actions for name in action.option_strings if name.startswith("--")]
    for argument in unknown:
        if argument.startswith("-"):
            yield _no_flag(argument, _value_of(argument, arguments), [*own, *names], platform)


def _unreadable(message: str) -> str:
    """Return the line about an option that Hydra's parser refuses."""
    if found := re.match(r"ambiguous option: (\S+) could match (.*)", message):
        name, options = found[1].partition("=")[0], found[2].split(", ")
        usual = [option for option in options if option in _USUAL] or options
        return f"{name}: write the whole name, {' or '.join(usual)}; --help explains them"
    if found := re.match(r"argument (\S+): (.*)", message):
        # The parser names every spelling: --cfg/-c.
        return f"{found[1].partition('/')[0]}: {found[2]}; --help explains the options"
    return f"{message}; see --help"


def _value_of(argument: str, arguments: Sequence[str]) -> str | None:
    """Return the value that follows an option, behind = or as the next argument."""
    _, equals, value = argument.partition("=")
    if equals:
        return value
    place = arguments.index(argument) if argument in arguments else len(arguments)
    following = arguments[place + 1 : place + 2]
    return next((word for word in following if "=" not in word and not word.startswith("--")), None)


def _no_flag(argument: str, value: str | None, names: Sequence[str], platform: str) -> str:
    name = argument.partition("=")[0]
    long = "--" + name.lstrip("-").replace("_", "-")
    if close := difflib.get_close_matches(long, names, n=1, cutoff=0.8):
        return f"{name}: no such flag; did you mean {close[0]}?"
    if name in _ELSEWHERE:
        return f"{name}: no such flag; {_ELSEWHERE[name]}"
    default, values = defaults("relift", platform)
    key, known = name.lstrip("-").replace("-", "_"), set(names_of(default))
    meant = key if key in known else None
    if meant is None and (question := key_meant(key, known, values)) and "?" in question:
        meant = question.removeprefix("did you mean ").removesuffix("?")
    if meant is not None and meant.endswith(".*"):
        return f"{name}: no such flag; settings are key=value, here with the keys {meant}"
    example = _EXAMPLE if meant is None else shlex.quote(f"{meant}={'VALUE' if value is None else value}")
    return f"{name}: no such flag; settings are key=value, such as {example}"
