"""The bare host applications: `/bare` answers the payload, everything else is a 404."""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

from tests.benchmarks.scenario import BARE_PATH, CONTENT_TYPE, PAYLOAD

Message = MutableMapping[str, Any]


async def asgi(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Answer the payload at `/bare`; refuse the lifespan protocol, as a server has to accept."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    found = scope["path"] == BARE_PATH
    body = PAYLOAD if found else b""
    fields = [(b"content-type", CONTENT_TYPE.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200 if found else 404, "headers": fields})
    await send({"type": "http.response.body", "body": body})


def wsgi(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer the payload at `/bare`."""
    found = environ["PATH_INFO"] == BARE_PATH
    body = PAYLOAD if found else b""
    fields = [("Content-Type", CONTENT_TYPE), ("Content-Length", str(len(body)))]
    start_response("200 OK" if found else "404 Not Found", fields)
    return [body]
