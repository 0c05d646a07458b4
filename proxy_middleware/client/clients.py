"""The two clients, blocking and asynchronous."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, Unpack

from proxy_middleware._target import checked_selector
from proxy_middleware.client.calls import Caller, Options
from proxy_middleware.client.errors import error_of, failure
from proxy_middleware.client.response import Response

__all__ = ["AsyncCalls", "AsyncClientConnection", "AsyncProxyClient", "Calls", "ClientConnection", "ProxyClient"]

# Seconds; more than the proxy's own time-outs take together, so that it is the one to say what took so long.
TIMEOUT = 90.0


class ProxyClient:
    """Calls APIs through the proxy of an application; may be used from many threads.

        with ProxyClient("https://app.example.com", token) as client:
            owners = client.connection("hubspot").proxy.get("/crm/v3/owners", params={"limit": 2})

    Responses are those of httpx, whatever their status. Only what the proxy has answered by itself is raised, as
    `ProxyFailed` or one of its kind. Redirects are not followed, cookies not kept.

    Args:
        base_url: Where the application is; a path is where it is mounted.
        token: Who is calling, as `Authorization: Bearer`; None sends none.
        prefix: Where the connections live there.
        timeout: Seconds for each wait, None for no limit, or an `httpx.Timeout`.
        transport: A blocking transport of httpx or httpx2, for proxies, certificates or tests; closed with the client.
            With one of httpx2 the responses are httpx2's, and so are the errors of the network.

    Raises:
        TypeError: The transport is no blocking one.
        ValueError: An argument is malformed.
    """

    def __init__(
        self,
        base_url: str,
        token: str | None = None,
        *,
        prefix: str = "/connections",
        timeout: Any = TIMEOUT,
        transport: Any = None,
    ) -> None:
        self._caller = Caller(base_url, token, prefix, timeout, transport, "handle_request")
        self._http = self._caller.library.httpx.Client(**self._caller.settings)

    def connection(self, selector: str) -> "ClientConnection":
        """The connection with this id, integration key or integration id.

        Raises:
            ValueError: No connection can be called that.
        """
        return ClientConnection(Calls(self._caller, self._http, checked_selector(selector)))

    def close(self) -> None:
        """Closes the connections to the proxy."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Calls:
    """Calls the API behind a connection.

    A path is sent as it is, percent-encoded already, with its query; it is appended to the connection's base URL,
    unless it is a full URL of an origin that the connection allows. All methods take httpx's `params`, `headers`,
    `content`, `data`, `files`, `json` and `timeout`; a payload is sent as JSON. They raise:

        ProxyFailed: The proxy has answered by itself.
        httpx.TransportError: The proxy could not be reached, or its response broke off.
        ValueError: The path cannot be sent as it is: it has blanks, `#`, dot segments, or what is not ASCII.
    """

    def __init__(self, caller: Caller, http: Any, selector: str) -> None:
        self._caller = caller
        self._http = http
        self._selector = selector

    def request(self, method: str, path: str = "", payload: Any = None, /, **options: Unpack[Options]) -> Response:
        """The response to a request, read to its end; any method, spelled as it is."""
        return self._send(method, path, payload, options, stream=False)

    def get(self, path: str = "", /, **options: Unpack[Options]) -> Response:
        """GET."""
        return self.request("GET", path, **options)

    def post(self, path: str = "", payload: Any = None, /, **options: Unpack[Options]) -> Response:
        """POST, with a payload that is sent as JSON."""
        return self.request("POST", path, payload, **options)

    def put(self, path: str = "", payload: Any = None, /, **options: Unpack[Options]) -> Response:
        """PUT, with a payload that is sent as JSON."""
        return self.request("PUT", path, payload, **options)

    def patch(self, path: str = "", payload: Any = None, /, **options: Unpack[Options]) -> Response:
        """PATCH, with a payload that is sent as JSON."""
        return self.request("PATCH", path, payload, **options)

    def delete(self, path: str = "", /, **options: Unpack[Options]) -> Response:
        """DELETE."""
        return self.request("DELETE", path, **options)

    @contextmanager
    def stream(
        self, method: str, path: str = "", payload: Any = None, /, **options: Unpack[Options]
    ) -> Iterator[Response]:
        """The response once its head is there; its body is read while it comes, and given up at the end."""
        response = self._send(method, path, payload, options, stream=True)
        try:
            yield response
        finally:
            response.close()

    def _send(self, method: str, path: str, payload: Any, options: Options, *, stream: bool) -> Response:
        request = self._caller.request(self._http, self._selector, method, path, payload, options)
        response: Any = self._http.send(request, stream=True)
        try:
            error = error_of(response)
            if error is not None or not stream:
                response.read()
            if error is not None:
                raise failure(response, error)
        except BaseException:
            response.close()
            raise
        given: Response = response
        return given


@dataclass(frozen=True, slots=True)
class ClientConnection:
    """A connection, as a client sees it.

    Attributes:
        proxy: Calls its API.
    """

    proxy: Calls


class AsyncProxyClient:
    """The same on an event loop, asyncio's or trio's; for one of them.

        async with AsyncProxyClient("https://app.example.com", token) as client:
            owners = await client.connection("hubspot").proxy.get("/crm/v3/owners")

    Takes what `ProxyClient` takes; the transport is an asynchronous one.
    """

    def __init__(
        self,
        base_url: str,
        token: str | None = None,
        *,
        prefix: str = "/connections",
        timeout: Any = TIMEOUT,
        transport: Any = None,
    ) -> None:
        self._caller = Caller(base_url, token, prefix, timeout, transport, "handle_async_request")
        self._http = self._caller.library.httpx.AsyncClient(**self._caller.settings)

    def connection(self, selector: str) -> "AsyncClientConnection":
        """The connection with this id, integration key or integration id.

        Raises:
            ValueError: No connection can be called that.
        """
        return AsyncClientConnection(AsyncCalls(self._caller, self._http, checked_selector(selector)))

    async def aclose(self) -> None:
        """Closes the connections to the proxy."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


class AsyncCalls:
    """Calls the API behind a connection; everything is as in `Calls`, but awaited."""

    def __init__(self, caller: Caller, http: Any, selector: str) -> None:
        self._caller = caller
        self._http = http
        self._selector = selector

    async def request(
        self, method: str, path: str = "", payload: Any = None, /, **options: Unpack[Options]
    ) -> Response:
        """The response to a request, read to its end; any method, spelled as it is."""
        return await self._send(method, path, payload, options, stream=False)

    async def get(self, path: str = "", /, **options: Unpack[Options]) -> Response:
        """GET."""
        return await self.request("GET", path, **options)

    async def post(self, path: str = "", payload: Any = None, /, **options: Unpack[Options]) -> Response:
        """POST, with a payload that is sent as JSON."""
        return await self.request("POST", path, payload, **options)

    async def put(self, path: str = "", payload: Any = None, /, **options: Unpack[Options]) -> Response:
        """PUT, with a payload that is sent as JSON."""
        return await self.request("PUT", path, payload, **options)

    async def patch(self, path: str = "", payload: Any = None, /, **options: Unpack[Options]) -> Response:
        """PATCH, with a payload that is sent as JSON."""
        return await self.request("PATCH", path, payload, **options)

    async def delete(self, path: str = "", /, **options: Unpack[Options]) -> Response:
        """DELETE."""
        return await self.request("DELETE", path, **options)

    @asynccontextmanager
    async def stream(
        self, method: str, path: str = "", payload: Any = None, /, **options: Unpack[Options]
    ) -> AsyncIterator[Response]:
        """The response once its head is there; its body is read while it comes, and given up at the end."""
        response = await self._send(method, path, payload, options, stream=True)
        try:
            yield response
        finally:
            await response.aclose()

    async def _send(self, method: str, path: str, payload: Any, options: Options, *, stream: bool) -> Response:
        request = self._caller.request(self._http, self._selector, method, path, payload, options)
        response: Any = await self._http.send(request, stream=True)
        try:
            error = error_of(response)
            if error is not None or not stream:
                await response.aread()
            if error is not None:
                raise failure(response, error)
        except BaseException:
            await response.aclose()
            raise
        given: Response = response
        return given


@dataclass(frozen=True, slots=True)
class AsyncClientConnection:
    """A connection, as a client sees it.

    Attributes:
        proxy: Calls its API.
    """

    proxy: AsyncCalls
