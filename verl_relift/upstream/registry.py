"""The registry of patches: every attribute of upstream code that this package replaces, and why.

A patch is a function of one upstream module, declared with `patch`. It replaces attributes through
`replace`, `add` and `replaced_during`, which refuse what the declaration does not name. So the table
in README.md, made from the declarations, is complete, and its counts are exact.

The folder of a patch says why it exists:

* `cpu`, `local_spec` and `fixes` hold patches without which results are wrong or a run fails. On an upstream
  version that they were not written for, the process stops.
* `speed` holds patches that change how fast a result comes, not the result. On a version that they were not written
  for they turn themselves off with a warning, and all of them are off where `VERL_RELIFT_SPEED_PATCHES=0` is set.
"""

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from types import ModuleType
from typing import Any

from ..run import console
from . import transformer_engine, versions
from .post_import import after_import, matches

SPEED_VARIABLE = "VERL_RELIFT_SPEED_PATCHES"


class Kind(StrEnum):
    """Why a patch exists; also the name of its folder."""

    CPU = "cpu"
    LOCAL_SPEC = "local_spec"
    FIX = "fixes"
    SPEED = "speed"


class Where(StrEnum):
    """The processes in which a patch is active."""

    EVERYWHERE = "everywhere"
    LOCAL_SPEC = "without Transformer Engine"
    CPU = "CPU"
    VLLM_CPU = "vLLM on CPU"
    JUDGE = "judge processes"


@dataclass(frozen=True, eq=False)
class Patch:
    """One change of upstream code. Calling it installs it in this process; a second call does nothing.

    Attributes:
        apply: makes the change. Gets the upstream module, or nothing if `after` names none.
        kind: why it exists.
        where: the processes in which it is active.
        after: the upstream modules after whose import it runs, `package.*` for all of a package.
        replaces: the attributes that it replaces, as `module:attribute` or `module:Class.attribute`.
        adds: the attributes that it adds where upstream has none.
        during: the attributes that it replaces only while some upstream function runs.
        sets: what else it changes: extension points of upstream and settings of the process.
        upstream: what upstream does and why that is changed, for the table.
        versions: the distributions whose version matters, keys of `versions.SUPPORTED`.
        needed: tells of the upstream module whether it needs the patch at all; without it, it always does.
        canary: the test that fails when upstream no longer needs the patch.
        issue: upstream's issue or pull request about it, `owner/repository#number`.
    """

    apply: Callable[..., None]
    kind: Kind
    where: Where
    after: tuple[str, ...]
    replaces: tuple[str, ...]
    adds: tuple[str, ...]
    during: tuple[str, ...]
    sets: tuple[str, ...]
    upstream: str
    versions: tuple[str, ...]
    needed: Callable[[ModuleType], bool] | None
    canary: str
    issue: str | None

    @property
    def name(self) -> str:
        """`folder/file.py:function`."""
        folder, file = self.apply.__module__.split(".")[-2:]
        return f"{folder}/{file}.py:{self.apply.__name__}"

    def __call__(self) -> None:
        if self in _INSTALLED or (self.kind is Kind.SPEED and not speed_patches_wanted()):
            return
        _INSTALLED.add(self)
        for pattern in self.after:
            after_import(pattern, functools.partial(_run, self))
        if not self.after:
            _run(self)

    def declares(self, target: str) -> bool:
        """Return whether `target` is one of the attributes that the declaration names."""
        module, _, attribute = target.partition(":")
        declared = (one.partition(":") for one in (*self.replaces, *self.adds, *self.during))
        return any(matches(pattern, module) and name == attribute for pattern, _, name in declared)


PATCHES: list[Patch] = []  # in the order of their declaration
ORIGINALS: dict[str, Any] = {}  # what was replaced in this process, by `module:attribute`
_INSTALLED: set[Patch] = set()
_running: list[Patch] = []
_warned: set[str] = set()


def patch(
    *,
    where: Where,
    upstream: str,
    canary: str,
    versions: tuple[str, ...] = (),
    after: tuple[str, ...] | None = None,
    replaces: tuple[str, ...] = (),
    adds: tuple[str, ...] = (),
    during: tuple[str, ...] = (),
    sets: tuple[str, ...] = (),
    needed: Callable[[ModuleType], bool] | None = None,
    issue: str | None = None,
) -> Callable[[Callable[..., None]], Patch]:
    """Return a decorator that declares a function as a patch; see `Patch` for the arguments.

    `after` is by default the modules of the attributes that the patch replaces or adds.
    """
    if after is None:
        after = tuple(dict.fromkeys(target.partition(":")[0] for target in (*replaces, *adds)))

    def declare(function: Callable[..., None]) -> Patch:
        kind = Kind(function.__module__.split(".")[-2])
        declared = Patch(
            function, kind, where, after, replaces, adds, during, sets, upstream, versions, needed, canary, issue
        )
        PATCHES.append(declared)
        return declared

    return declare


def install(*where: Where) -> None:
    """Install the declared patches of these processes, those of whole packages first: others build on them."""
    for declared in sorted(PATCHES, key=lambda one: not any(name.endswith(".*") for name in one.after)):
        if declared.where in where:
            declared()


def speed_patches_wanted() -> bool:
    """Return whether the environment leaves the speed patches on.

    Raises:
        ValueError: if the variable has a value other than 0 or 1.
    """
    value = os.environ.get(SPEED_VARIABLE, "1").strip()
    if value not in ("0", "1"):
        raise ValueError(f"{SPEED_VARIABLE}={value}: expected 0 (speed patches off) or 1 (on)")
    return value == "1"


def _run(declared: Patch, *module: ModuleType) -> None:
    # Asked as late as this, because the answer takes an import of seconds, which only Megatron's processes need.
    if declared.where is Where.LOCAL_SPEC and transformer_engine.usable():
        return
    if declared.needed is not None and not declared.needed(*module):
        return
    try:
        for distribution in declared.versions:
            versions.require(distribution)
    except versions.UnsupportedVersion as error:
        if declared.kind is not Kind.SPEED:
            raise
        return _warn(f"{error}. Until then the speed patches for it are off: same results, but slower")
    _running.append(declared)
    try:
        declared.apply(*module)
    finally:
        _running.pop()


def _warn(message: str) -> None:
    """Say it once in this process. Not by `logging`: verl, vLLM and the judge silence what is not theirs."""
    if message not in _warned:
        _warned.add(message)
        console.say(f"verl_relift: warning: {message}")


# ---- what patches change with ----------------------------------------------------------------------------------------


def replace(owner: ModuleType | type, name: str, value: Any) -> None:
    """Replace an attribute of an upstream module or class; to be called by a patch that declares it.

    Raises:
        AttributeError: if upstream has no such attribute.
    """
    target = _declared(owner, name)
    # As it stands in a class, not bound to it.
    ORIGINALS.setdefault(target, vars(owner)[name] if name in vars(owner) else getattr(owner, name))
    setattr(owner, name, value)


def add(owner: ModuleType | type, name: str, value: Any) -> None:
    """Give an upstream module or class an attribute, unless it has one."""
    _declared(owner, name)
    if not hasattr(owner, name):
        setattr(owner, name, value)


@contextmanager
def replaced_during(owner: ModuleType | type, name: str, value: Any) -> Iterator[None]:
    """Replace an attribute for the duration of the context, in all threads of the process."""
    target = _target(owner, name)
    if not any(target in declared.during for declared in PATCHES):
        raise ValueError(f"no patch declares that it replaces {target} for the duration of a call")
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


def _declared(owner: ModuleType | type, name: str) -> str:
    target = _target(owner, name)
    if not _running[-1].declares(target):
        raise ValueError(f"{_running[-1].name} changes {target}, which its declaration does not name")
    return target


def _target(owner: ModuleType | type, name: str) -> str:
    if isinstance(owner, ModuleType):
        return f"{owner.__name__}:{name}"
    return f"{owner.__module__}:{owner.__qualname__}.{name}"
