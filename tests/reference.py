"""Makes the API reference out of the docstrings: `python -m tests.reference [output folder]`.

It needs pdoc, which comes with the extra `dev`. What pdoc warns of is an error.
"""

import argparse
import inspect
import sys
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

# What users import; everything else is the package's own.
MODULES = (
    "proxy_middleware",
    "proxy_middleware.access",
    "proxy_middleware.client",
    "proxy_middleware.credentials",
    "proxy_middleware.errors",
    "proxy_middleware.jwt",
    "proxy_middleware.observe",
    "proxy_middleware.resolvers",
    "proxy_middleware.stores",
    "proxy_middleware.testing",
    "proxy_middleware.toml",
    "proxy_middleware.transport",
)
OUTPUT = Path("build/reference")


def public(module: ModuleType) -> Iterator[tuple[str, object]]:
    """The public classes and functions of a module, with the methods and properties that are the package's own."""
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value):
            for member, found in inspect.getmembers(value):
                if not member.startswith("_") and _own(found):
                    yield f"{module.__name__}.{name}.{member}", found
        if inspect.isclass(value) or inspect.isroutine(value):
            yield f"{module.__name__}.{name}", value


def _own(member: object) -> bool:
    if isinstance(member, property):
        member = member.fget
    return inspect.isroutine(member) and (getattr(member, "__module__", None) or "").startswith("proxy_middleware")


def load(name: str) -> ModuleType:
    """A module with its public names in place, also those that it imports when they are first asked for."""
    module = import_module(name)
    for public_name in module.__all__:
        vars(module)[public_name] = getattr(module, public_name)
    return module


def main(arguments: list[str]) -> int:
    """Writes the reference."""
    parser = argparse.ArgumentParser(prog="python -m tests.reference", description="Makes the API reference.")
    parser.add_argument("output", nargs="?", type=Path, default=OUTPUT, help="folder (default: %(default)s)")
    output: Path = parser.parse_args(arguments).output
    import pdoc

    warnings.simplefilter("error")
    package, *others = [load(name) for name in MODULES]
    # Only what stands in `__all__` gets a page.
    vars(package)["__all__"] += [module.__name__.rpartition(".")[2] for module in others]
    pdoc.render.configure(docformat="google", show_source=False)
    pdoc.pdoc(package.__name__, output_directory=output)
    print(output / "index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
