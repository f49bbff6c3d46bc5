"""Modules that are loaded when something of theirs is first asked for."""

import importlib.util
import sys
from typing import Any


def lazily(name: str) -> Any:
    """A module, loaded at the first use of one of its attributes."""
    if name in sys.modules:
        return sys.modules[name]
    found: Any = importlib.util.find_spec(name)
    found.loader = importlib.util.LazyLoader(found.loader)
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    found.loader.exec_module(module)
    return module
