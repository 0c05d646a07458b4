"""httpx and its successor httpx2: which of the two, and the requests and streams that both need spelled exactly.

What others hand over (transports, requests, auths) is dealt with in its own library. Calls of our own are made with
httpx, and with httpx2 where httpx is not installed: never by what else happens to be installed, since the responses and
errors of the one are none of the other's.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple


class Library(NamedTuple):
    """One of the two, and what it stands on: both are modules."""

    httpx: Any
    httpcore: Any


@cache
def _httpx() -> Library:
    import httpcore
    import httpx

    return Library(httpx, httpcore)


@cache
def _httpx2() -> Library:
    import httpcore2
    import httpx2

    return Library(httpx2, httpcore2)


@cache
def own_library() -> Library:
    """The library for calls of our own.

    Raises:
        ImportError: Neither is installed.
    """
    try:
        return _httpx()
    except ImportError:
        return _httpx2()


def library_of(thing: object) -> Library:
    """The library whose class this is of; our own for what merely looks like it."""
    modules = {kind.__module__.partition(".")[0] for kind in type(thing).__mro__}
    if "httpx2" in modules:
        return _httpx2()
    return _httpx() if "httpx" in modules else own_library()


def bound_method(transport: Any, name: str) -> Callable[[Any], Any] | None:
    """The method by which a transport sends; None where this is none of that colour, or a class."""
    method = getattr(transport, name, None)
    return None if isinstance(transport, type) or not callable(method) else method


@cache
def mixed(mixin: type, library: Library, base: str) -> Any:
    """The class with this base of the library, which tells what it is handed by isinstance."""
    return type(mixin.__name__.strip("_"), (mixin, getattr(library.httpx, base)), {})


class _ExactURL:
    """A URL whose target is what it was before the library normalised it.

    The extension "target" would do that, too, but httpcore 1 also puts it into the CONNECT request to an egress proxy.
    """

    target: bytes

    @property
    def raw_path(self) -> bytes:
        return self.target

    def __reduce__(self) -> tuple[Any, ...]:
        # The class has no module to be found in; what has been sent is kept as the library spells it.
        return type(self).__bases__[1], (str(self),)


def spell(library: Library, request: Any, method: str, origin: str, target: bytes) -> Any:
    """The same request, with method and target as they are given.

    Both are set afterwards, since the constructor puts the method into capitals and copies the URL.
    """
    url = mixed(_ExactURL, library, "URL")(origin + target.decode("ascii"))
    url.target = target
    request.method, request.url = method, url
    return request
