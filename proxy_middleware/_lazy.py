"""Names that a module gives, and whose own module is imported only when they are first asked for."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazily(module: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a module (PEP 562).

    Args:
        module: Its name.
        homes: The module that each name comes from; one within a package may begin with a dot.
    """

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        value = getattr(import_module(homes[name], module), name)
        setattr(sys.modules[module], name, value)
        return value

    return find
