"""What the Python peers share: where the upstream is, who may call, and which fields belong to one hop only."""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from hmac import compare_digest
from typing import Any

from tests.benchmarks.scenario import CALLER_TOKEN, PROXY_PREFIX, UPSTREAM_TOKEN, own_settings

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

UPSTREAM = own_settings().connections["c0"]
CALLER = f"Bearer {CALLER_TOKEN}"
CREDENTIAL = f"Bearer {UPSTREAM_TOKEN}"

POOL_SIZE = 1000
"""How many connections each may open, as every other target."""
PIECE_SIZE = 2**16

_DROPPED = frozenset(
    (
        "authorization",
        "connection",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)


def is_known(authorization: str) -> bool:
    """Whether the caller's token is right."""
    return compare_digest(authorization.encode(), CALLER.encode())


def target(path: str, query: str) -> str:
    """Return the URL of the upstream."""
    url = UPSTREAM + path.removeprefix(PROXY_PREFIX)
    return f"{url}?{query}" if query else url


def end_to_end(fields: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the fields that are not for one hop only (RFC 9110 section 7.6.1), without host and authorization."""
    return [(name, value) for name, value in fields if name.lower() not in _DROPPED]


def asgi_fields(scope: Message) -> list[tuple[str, str]]:
    """Return the request's fields as text."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]


def wsgi_fields(environ: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the request's fields under their own names."""
    fields = [(name[5:].replace("_", "-"), value) for name, value in environ.items() if name.startswith("HTTP_")]
    return fields + [(name.replace("_", "-"), environ[name]) for name in ("CONTENT_TYPE",) if environ.get(name)]


async def refuse(send: Send) -> None:
    """Answer a caller whom nobody knows."""
    await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


async def start(send: Send, status: int, fields: Iterable[tuple[str, str]]) -> None:
    """Begin the answer."""
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in end_to_end(fields)]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def pieces(receive: Receive) -> Any:
    """Give the request body while it comes."""
    more = True
    while more:
        message = await receive()
        yield message.get("body", b"")
        more = message.get("more_body", False)
