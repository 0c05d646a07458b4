"""The peer: an ASGI proxy on httpx, streaming as its documentation shows it. httpx2 has the same interface."""

from collections.abc import Awaitable, Callable
from typing import Any

from tests.benchmarks.peers.common import (
    CREDENTIAL,
    Message,
    Receive,
    Send,
    asgi_fields,
    end_to_end,
    is_known,
    pieces,
    refuse,
    start,
    target,
)


def proxy(client: Any) -> Callable[[Message, Receive, Send], Awaitable[None]]:
    """Return the application; `client` is an `AsyncClient`."""

    async def application(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        fields = asgi_fields(scope)
        if not is_known(dict(fields).get("authorization", "")):
            await refuse(send)
            return
        request = client.build_request(
            scope["method"],
            target(scope["path"], scope["query_string"].decode()),
            headers=[*end_to_end(fields), ("authorization", CREDENTIAL)],
            content=pieces(receive) if scope["method"] == "POST" else None,
        )
        response = await client.send(request, stream=True)
        try:
            await start(send, response.status_code, response.headers.multi_items())
            async for piece in response.aiter_raw():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            await response.aclose()

    return application
