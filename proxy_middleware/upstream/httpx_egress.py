"""A blocking httpx transport for single calls of our own: it dials only checked addresses, and keeps to one deadline.

httpx knows a time-out for each read only, which an answer that comes byte by byte outlasts.
"""

import os
import ssl
import time
from collections.abc import Iterable, Sequence
from typing import Any

from proxy_middleware._target import Origin
from proxy_middleware.models import EgressPolicy
from proxy_middleware.upstream.egress import AddrInfo, dialable
from proxy_middleware.upstream.httpx_library import Library
from proxy_middleware.upstream.lookup import Lookups

__all__ = ["answer_of", "one_call_transport"]


def one_call_transport(library: Library, egress: EgressPolicy, ssl_context: ssl.SSLContext, deadline: float) -> Any:
    """A transport for calls that have all to be over at one moment. Reuses no connection, obeys no environment.

    A refused address is raised as `AddressRefused`, everything else as httpx does.

    Args:
        library: Whose transport it is.
        egress: Which addresses may be dialled.
        ssl_context: Verifies the server.
        deadline: By `time.monotonic()`; look-up, connect, TLS, request and response all end before it.
    """
    httpx, httpcore = library
    transport = httpx.HTTPTransport(verify=ssl_context, trust_env=False)
    # httpx takes no network backend; the pool it has made is still empty.
    transport._pool = httpcore.ConnectionPool(
        ssl_context=ssl_context,
        max_keepalive_connections=0,
        network_backend=_CheckedBackend(egress, deadline, httpcore),
    )
    return transport


def answer_of(library: Library, transport: Any, request: Any, limit: int, deadline: float) -> tuple[int, bytes | None]:
    """Sends a request, and reads all of the answer: its status and its body, None for one that is too long.

    Args:
        library: Whose request it is.
        transport: A blocking one, which may be of the application's own, and know no deadline.
        request: The request.
        limit: Bytes that the body may have.
        deadline: By `time.monotonic()`; later pieces are a `ReadTimeout`.
    """
    response = transport.handle_request(request)
    try:
        body = bytearray()
        for piece in response.stream:
            body += piece
            if len(body) > limit:
                return response.status_code, None
            if time.monotonic() > deadline:
                raise library.httpx.ReadTimeout("")
        return response.status_code, bytes(body)
    finally:
        response.close()


class _CheckedBackend:
    """Dials the addresses that it has checked itself. TLS goes by the name all the same."""

    def __init__(self, egress: EgressPolicy, deadline: float, httpcore: Any) -> None:
        self._egress = egress
        self._deadline = deadline
        self._httpcore = httpcore
        self._dialler = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> Any:
        *others, last = dialable(self._egress, self._look_up(Origin("https", host, port)))
        for tried, info in enumerate(others):
            # No address has more than its share of the time.
            share = self._left() / (len(others) + 1 - tried)
            try:
                return self._dial(info, share, local_address, socket_options)
            except (self._httpcore.ConnectError, self._httpcore.ConnectTimeout):
                continue
        return self._dial(last, self._left(), local_address, socket_options)

    def _look_up(self, origin: Origin) -> Sequence[AddrInfo]:
        try:
            return _lookups.find(origin, self._left())
        except TimeoutError:
            raise self._httpcore.ConnectTimeout from None
        except (OSError, UnicodeError):
            raise self._httpcore.ConnectError from None

    def _dial(self, info: AddrInfo, timeout: float, *options: Any) -> "_Stream":
        address, port = info[4][:2]
        return _Stream(self._dialler.connect_tcp(address, port, timeout, *options), self._deadline, self._httpcore)

    def _left(self) -> float:
        return _left(self._deadline, self._httpcore.ConnectTimeout)


class _Stream:
    """A connection on which nothing waits beyond the deadline, however often it is read."""

    def __init__(self, stream: Any, deadline: float, httpcore: Any) -> None:
        self._stream = stream
        self._deadline = deadline
        self._httpcore = httpcore

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data: bytes = self._stream.read(max_bytes, _left(self._deadline, self._httpcore.ReadTimeout))
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(self._deadline, self._httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> "_Stream":
        left = _left(self._deadline, self._httpcore.ConnectTimeout)
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, left), self._deadline, self._httpcore)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(deadline: float, late: type[Exception]) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise late
    return left


_lookups = Lookups()


def _after_fork() -> None:
    # The threads of the parent are not there to work the queue off.
    global _lookups
    _lookups = Lookups()


os.register_at_fork(after_in_child=_after_fork)
