"""Run a function right after, or right before, a module is imported.

A process that never imports Megatron must not pay for patching it, so patches wait for the module they belong to.
"""

import importlib.abc
import importlib.util
import itertools
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType

Hook = Callable[[ModuleType], None]


class _HookedLoader(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader, hooks: list[Hook]):
        self._loader = loader
        self._hooks = hooks

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        for hook in self._hooks:
            hook(module)

    def __getattr__(self, name: str):
        # Package data, `get_source` and the like stay with the real loader.
        return getattr(self._loader, name)


class _HookFinder(importlib.abc.MetaPathFinder):
    def __init__(self):
        # Every import asks: a dictionary for modules, a loop for the few packages. The numbers keep the order.
        self._modules: dict[str, list[tuple[int, Hook]]] = {}
        self._packages: dict[str, list[tuple[int, Hook]]] = {}
        self._before: dict[str, Callable[[], object]] = {}
        self._numbers = itertools.count()
        self._searching: set[str] = set()

    def register(self, pattern: str, hook: Hook) -> None:
        where = self._packages if pattern.endswith(".*") else self._modules
        where.setdefault(pattern, []).append((next(self._numbers), hook))

    def _hooks_of(self, name: str) -> list[Hook]:
        hooks = list(self._modules.get(name, ()))
        for pattern, more in self._packages.items():
            if matches(pattern, name):
                hooks += more
        return [hook for _, hook in sorted(hooks, key=lambda numbered: numbered[0])]

    def register_before(self, name: str, function: Callable[[], object]) -> None:
        self._before[name] = function

    def find_spec(self, fullname, path=None, target=None) -> ModuleSpec | None:
        if fullname in self._before:
            self._before.pop(fullname)()
        hooks = self._hooks_of(fullname)
        if not hooks or fullname in self._searching:
            return None
        self._searching.add(fullname)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._searching.discard(fullname)
        if spec is None or spec.loader is None:
            return None
        spec.loader = _HookedLoader(spec.loader, hooks)
        return spec


_FINDER = _HookFinder()


def matches(pattern: str, module: str) -> bool:
    """Return whether `module` is the one that `pattern` names; `package.*` names a package and all in it."""
    if not pattern.endswith(".*"):
        return module == pattern
    package = pattern[:-2]
    return module == package or module.startswith(package + ".")


def after_import(pattern: str, hook: Hook) -> None:
    """Call `hook(module)` when a module has been imported, at once if it already is.

    Args:
        pattern: a module's name, or `package.*` for every module of a package, present and future.
        hook: the hooks of a module run in the order in which they were registered.
    """
    _listen()
    _FINDER.register(pattern, hook)
    present = list(sys.modules) if pattern.endswith(".*") else [pattern]
    for name in present:
        if matches(pattern, name) and sys.modules.get(name) is not None:
            hook(sys.modules[name])


def before_import(name: str, function: Callable[[], object]) -> None:
    """Call `function()` when a module is about to be imported for the first time, at once if it already is."""
    if name in sys.modules:
        function()
    else:
        _listen()
        _FINDER.register_before(name, function)


def _listen() -> None:
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
