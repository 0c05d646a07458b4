"""Credentials out of what was written as an `auth` for httpx or httpx2."""

from collections.abc import Iterator
from typing import Any

from proxy_middleware._credential import Credential, Pair
from proxy_middleware.errors import InternalError
from proxy_middleware.models import UpstreamRequest
from proxy_middleware.upstream.httpx_library import library_of

__all__ = ["from_httpx_auth"]

# The framing is the proxy's own: httpx computes some of it for every request that it makes.
_FRAMING = frozenset({b"host", b"content-length", b"transfer-encoding"})


def from_httpx_auth(auth: Any, *, expires_at: float | None = None) -> Credential:
    """A credential that puts on what an `auth` for httpx or httpx2 puts on.

    It is asked for every request, and has to answer with the request itself, as its first step, with header fields
    added, changed or removed. What changes more (URL, method, body), changes nothing, or asks a server first, makes the
    request fail: it is never sent without a credential. `request.url` is the library's reading of the URL, which
    percent-encodes some characters that the proxy sends as they came.

    Args:
        auth: A (user, password) pair, a function from request to request, or an object with `sync_auth_flow` or
            `auth_flow`. It is used from many threads at once, and under ASGI on the event loop: it must not block.
        expires_at: Unix seconds.

    Raises:
        TypeError: It is none of these, or needs a response first, as digest authentication does.
    """
    if isinstance(auth, tuple):
        user, password = auth
        return Credential.basic(user, password, expires_at=expires_at)
    if not callable(_flow_of(auth) or auth):
        raise TypeError("from_httpx_auth: neither a pair, nor a function, nor an object with an auth_flow")
    if getattr(auth, "requires_response_body", False) or _is_digest(auth):
        raise TypeError(f"from_httpx_auth: {type(auth).__name__} needs a response before it can authenticate")
    needs_body = bool(getattr(auth, "requires_request_body", False))
    return Credential.signed(_Signer(auth), needs_body=needs_body, expires_at=expires_at)


class _Unread:
    """The stream of a request whose body was not asked for."""

    def __iter__(self) -> Iterator[bytes]:
        raise RuntimeError("the auth reads the body, but does not say requires_request_body")


class _Signer:
    """Runs the first step of a flow on a request of the auth's own library, and reads off what it did to the fields."""

    def __init__(self, auth: Any) -> None:
        self._auth = auth
        # Functions, and what merely looks like an auth, get the requests of our own library.
        self._make = library_of(auth).httpx.Request

    def __call__(self, request: UpstreamRequest) -> list[Pair]:
        content = {"stream": _Unread()} if request.body is None else {"content": request.body}
        made = self._make(request.method, request.url, headers=list(request.fields), **content)
        before = _by_name(made)
        method, url, stream = made.method, made.url, made.stream
        done = self._first_step(made)
        same_body = done.stream is stream or (request.body is not None and done.read() == request.body)
        if (done.method, done.url) != (method, url) or not same_body:
            raise InternalError("The connection's auth changes more of a request than its header fields")
        pairs = _changes(before, _by_name(done))
        if all(value is None for _, value in pairs):
            raise InternalError("The connection's auth adds nothing to a request")
        return pairs

    def _first_step(self, request: Any) -> Any:
        flow_of = _flow_of(self._auth)
        if flow_of is None:
            return self._auth(request)
        flow = flow_of(request)
        try:
            return next(flow, request)
        finally:
            flow.close()


def _flow_of(auth: Any) -> Any:
    return getattr(auth, "sync_auth_flow", None) or getattr(auth, "auth_flow", None)


def _is_digest(auth: Any) -> bool:
    return any(kind.__name__ == "DigestAuth" for kind in type(auth).__mro__)


def _by_name(request: Any) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for name, value in request.headers.raw:
        if name.lower() not in _FRAMING:
            found.setdefault(name.lower(), []).append(value)
    return found


def _changes(before: dict[bytes, list[bytes]], after: dict[bytes, list[bytes]]) -> list[Pair]:
    pairs: list[Pair] = [
        (name, value) for name, values in after.items() if before.get(name) != values for value in values
    ]
    return pairs + [(name, None) for name in before if name not in after]
