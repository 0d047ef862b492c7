"""Run a function right after a module is imported.

A process that never imports Megatron must not pay for patching it, so patches wait for the module they belong to.
"""

import importlib.abc
import importlib.util
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
        self.exact: dict[str, list[Hook]] = {}
        self.prefix: dict[str, list[Hook]] = {}
        self._searching: set[str] = set()

    def hooks_of(self, name: str) -> list[Hook]:
        hooks = list(self.exact.get(name, []))
        for prefix, more in self.prefix.items():
            if name == prefix or name.startswith(prefix + "."):
                hooks += more
        return hooks

    def find_spec(self, fullname, path=None, target=None) -> ModuleSpec | None:
        hooks = self.hooks_of(fullname)
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


def after_import(module: str, hook: Hook) -> None:
    """Call ``hook(module)`` when ``module`` has been imported, at once if it already is."""
    _install_finder()
    _FINDER.exact.setdefault(module, []).append(hook)
    if module in sys.modules:
        hook(sys.modules[module])


def after_import_of_package(package: str, hook: Hook) -> None:
    """Call ``hook`` for every module of ``package``, present and future."""
    _install_finder()
    _FINDER.prefix.setdefault(package, []).append(hook)
    for name, module in list(sys.modules.items()):
        if module is not None and (name == package or name.startswith(package + ".")):
            hook(module)


def _install_finder() -> None:
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
