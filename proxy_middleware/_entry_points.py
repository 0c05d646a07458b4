"""Plugins that other packages bring, found by the name that they have among the installed entry points."""

from collections.abc import Callable
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from inspect import signature
from typing import Any, cast

from proxy_middleware.protocols import ConnectionResolver, CredentialProvider

__all__ = ["load_credentials", "load_resolver"]

RESOLVERS = "proxy_middleware.resolvers"
CREDENTIALS = "proxy_middleware.credentials"


def load_resolver(name: str, /, **options: Any) -> ConnectionResolver:
    """Makes the resolver that an installed package calls by this name.

    The package names a class or function of its own in the entry-point group `proxy_middleware.resolvers`; it is called
    with the options. What it raises itself is raised here, too.

    Args:
        name: Of the entry point.
        options: Keywords for the plugin.

    Raises:
        LookupError: No installed package has a resolver of this name, or more than one has.
        ImportError: The plugin cannot be loaded; the error that prevents it is the cause.
        TypeError: The plugin does not take these options, or what it makes has no `resolve` method.
    """
    return cast("ConnectionResolver", _make(RESOLVERS, name, options, "resolve"))


def load_credentials(name: str, /, **options: Any) -> CredentialProvider:
    """Makes the credential provider that an installed package calls by this name.

    The entry-point group is `proxy_middleware.credentials`; the rest is as with `load_resolver`.

    Args:
        name: Of the entry point.
        options: Keywords for the plugin.

    Raises:
        LookupError: No installed package has a provider of this name, or more than one has.
        ImportError: The plugin cannot be loaded; the error that prevents it is the cause.
        TypeError: The plugin does not take these options, or what it makes has no `obtain` method.
    """
    return cast("CredentialProvider", _make(CREDENTIALS, name, options, "obtain"))


def _make(group: str, name: str, options: dict[str, Any], method: str) -> object:
    entry_point = _find(group, name)
    plugin = f"{group}: {name!r} of {_package(entry_point)}"
    factory = _load(entry_point, plugin)
    _check_options(factory, options, plugin)
    try:
        made = factory(**options)
    except Exception as error:
        error.add_note(f"raised by {plugin}")
        raise
    if not callable(getattr(made, method, None)):
        raise TypeError(f"{plugin} made {type(made).__name__}, which has no `{method}` method")
    return made


def _find(group: str, name: str) -> EntryPoint:
    installed = entry_points(group=group)
    found = tuple(installed.select(name=name))
    if not found:
        raise LookupError(f"{group}: no installed package has {name!r}; there is {_names(installed)}")
    if len(found) > 1:
        packages = " and ".join(sorted(_package(entry_point) for entry_point in found))
        raise LookupError(f"{group}: {name!r} is claimed by {packages}; uninstall all but one")
    return found[0]


def _names(installed: EntryPoints) -> str:
    return ", ".join(repr(name) for name in sorted(installed.names)) or "none at all"


def _package(entry_point: EntryPoint) -> str:
    if entry_point.dist is None:
        return entry_point.value
    return f"{entry_point.dist.name} {entry_point.dist.version} ({entry_point.value})"


def _load(entry_point: EntryPoint, plugin: str) -> Callable[..., object]:
    try:
        factory = entry_point.load()
    except Exception as error:
        raise ImportError(f"{plugin} cannot be loaded: {type(error).__name__}") from error
    if not callable(factory):
        raise TypeError(f"{plugin} is a {type(factory).__name__}, not a class or function that makes a plugin")
    return cast("Callable[..., object]", factory)


def _check_options(factory: Callable[..., object], options: dict[str, Any], plugin: str) -> None:
    """Raises a TypeError that does not show any option's value."""
    try:
        parameters = signature(factory)
    except ValueError:
        return  # Some that are written in C do not tell; they see for themselves.
    try:
        parameters.bind(**options)
    except TypeError as error:
        raise TypeError(f"{plugin}: {error}") from None
