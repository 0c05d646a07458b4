"""httpx and httpx2, blocking and on both event loops, each as if it were blocking."""

import gc
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Self

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal

from proxy_middleware.client import AsyncProxyClient, ProxyClient


class Colour:
    """One library in one colour.

    Attributes:
        library: httpx or httpx2.
        name: "blocking", "asyncio" or "trio".
        blocking: Whether there is no event loop.
    """

    def __init__(self, library: Any, name: str, portal: BlockingPortal | None) -> None:
        self.library = library
        self.name = name
        self.blocking = portal is None
        self._portal = portal
        self._close: list[Callable[[], object]] = []

    def run(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """What the function gives, on the event loop where there is one."""
        if self._portal is None:
            return function(*args, **options)

        async def awaited() -> Any:
            given = function(*args, **options)
            return await given if hasattr(given, "__await__") else given

        return self._portal.call(awaited)

    def entered(self, manager: Any) -> Any:
        """A context manager of this colour as a blocking one."""
        return manager if self._portal is None else self._portal.wrap_async_context_manager(manager)

    def pieces(self, response: Any) -> Generator[bytes, None, None]:
        """The response's body, decoded, piece by piece as it comes."""
        if self._portal is None:
            yield from response.iter_bytes()
            return
        chunks = response.aiter_bytes()
        while (piece := self._portal.call(partial(anext, chunks, None))) is not None:
            yield piece

    def transport(self, **options: Any) -> Any:
        """A transport of the library, in this colour."""
        kind = self.library.HTTPTransport if self.blocking else self.library.AsyncHTTPTransport
        return self.run(kind, verify=False, trust_env=False, **options)

    def http(self, transport: Any, **options: Any) -> Any:
        """A client of the library."""
        kind = self.library.Client if self.blocking else self.library.AsyncClient
        return self._closed(self.run(kind, transport=transport, **options))

    def proxy_client(self, base_url: str, token: str | None = None, *, transport: Any = None, **options: Any) -> Any:
        """A client of the proxy on this library."""
        kind: Any = ProxyClient if self.blocking else AsyncProxyClient
        return self._closed(self.run(kind, base_url, token, transport=transport or self.transport(), **options))

    def content(self, pieces: Iterator[bytes]) -> Any:
        """A request's body of a length that is not known."""
        return pieces if self.blocking else _Pieces(pieces)

    def closing(self, close: Callable[[], object]) -> None:
        """Has this called at the end."""
        self._close.append(close)

    def _closed(self, client: Any) -> Any:
        self.closing(client.close if self.blocking else client.aclose)
        return client

    def close(self) -> None:
        """Closes what was opened; what trio has to say of an abandoned generator is said now."""
        for close in self._close:
            self.run(close)
        if self.name == "trio":
            gc.collect(1)  # What this test has left is young.
            self.run(anyio.sleep, 0)


@contextmanager
def coloured(library: Any, colour: str) -> Iterator[Colour]:
    """One of "blocking", "asyncio" and "trio"."""
    if colour == "blocking":
        opened = Colour(library, colour, None)
        yield opened
        opened.close()
        return
    with start_blocking_portal(colour) as portal:
        opened = Colour(library, colour, portal)
        yield opened
        opened.close()


class _Pieces:
    """An iterator as an asynchronous one. No generator, which httpx leaves suspended, of which trio complains."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            return next(self._pieces)
        except StopIteration:
            raise StopAsyncIteration from None
