"""A module as some other modules should see it: itself, except for a few of its attributes."""

import types
from types import ModuleType
from typing import Any


class View(types.ModuleType):
    """A module that shows another one, with other values for the attributes given."""

    def __init__(self, shown: ModuleType, **instead: Any):
        super().__init__(shown.__name__)
        self.__dict__.update(instead, _shown=shown)

    def __getattr__(self, name: str):
        return getattr(self.__dict__["_shown"], name)
