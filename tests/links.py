"""A caller's request, and what a link in its answer is for the caller."""

from typing import Any

from proxy_middleware import Connection, ProxyRequest
from proxy_middleware._fields import Field
from proxy_middleware._links import rewrite_links
from proxy_middleware._target import resolve_target
from tests.target.requests import scope

API = Connection("c", "https://api.example.com/v3", allowed_origins=("https://files.example.com", "https://*.eu.test"))
BARE = Connection("c", "https://api.example.com")
PLACE = b"/connections/c/proxy"
HOST = (b"host", b"app.test:8000")
SITE = b"http://app.test:8000"


def asked(
    target: bytes = b"/owners?page=1", *, place: bytes = PLACE, fields: tuple[Field, ...] = (HOST,), **more: Any
) -> ProxyRequest:
    """A caller's request under ASGI."""
    raw = place + target.partition(b"?")[0]
    return ProxyRequest("GET", "c", target, fields, scope={**scope(raw), "scheme": "http", **more})


def rewritten(
    reference: bytes,
    request: ProxyRequest | None = None,
    connection: Connection = API,
    *,
    name: bytes = b"location",
    root_path: str | None = None,
) -> bytes:
    """What a response's field is for the caller, when its request was this one."""
    request = request or asked()
    path, mark, query = request.target.partition(b"?")
    origin, target, _ = resolve_target(path, query if mark else None, connection.base, connection.origins)
    fields = [(b"content-type", b"text/plain"), (name, reference), (b"x-link", reference)]
    first, (same, value), last = rewrite_links(fields, request, connection, origin, target, root_path)
    assert (first, same, last) == (fields[0], name, fields[2])
    return value
