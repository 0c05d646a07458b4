"""The peer: an ASGI proxy on aiohttp's client, streaming as its documentation shows it."""

from functools import cache

import aiohttp

from tests.benchmarks.peers.common import (
    CREDENTIAL,
    POOL_SIZE,
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


@cache
def session() -> aiohttp.ClientSession:
    """Return the one session, which has to be made while the event loop runs."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=POOL_SIZE), cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
    )


async def asgi(scope: Message, receive: Receive, send: Send) -> None:
    """Forward one request."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    fields = asgi_fields(scope)
    if not is_known(dict(fields).get("authorization", "")):
        await refuse(send)
        return
    async with session().request(
        scope["method"],
        target(scope["path"], scope["query_string"].decode()),
        headers=[*end_to_end(fields), ("authorization", CREDENTIAL)],
        data=pieces(receive) if scope["method"] == "POST" else None,
        allow_redirects=False,
    ) as response:
        await start(send, response.status, response.headers.items())
        async for piece in response.content.iter_any():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
