"""Modules that are loaded when something of theirs is first asked for."""

import importlib
from typing import Any


class LazyImport:
    """A module that a first gradient does without, in the place of the import statement."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)
