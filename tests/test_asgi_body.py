"""A request body under ASGI that is sent a second time while the first is still coming."""

import asyncio
import os
from collections.abc import Callable
from typing import Any

import pytest

from proxy_middleware import Replay, asgi_body
from proxy_middleware.asgi_body import RequestBody
from tests.upstream.nonblocking import until
from tests.upstreams import WAIT

pytestmark = pytest.mark.anyio

PIECES = [os.urandom(30_000) for _ in range(3)]


class Server:
    """Where the body comes from, piece by piece."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def hand_over(self, piece: bytes, *, more: bool = True) -> None:
        """The next piece has come."""
        self._messages.put_nowait({"type": "http.request", "body": piece, "more_body": more})

    async def receive(self) -> dict[str, Any]:
        """The server's `receive`."""
        return await self._messages.get()


class BusyThreads:
    """Worker threads that hold up what is added to a spool; all else is done at once."""

    def __init__(self) -> None:
        self.held = 0
        self.go = asyncio.Event()

    async def call(self, function: Callable[..., Any], argument: Any) -> Any:
        """What the body calls for anything that touches the disk."""
        if function.__name__ == "add":
            self.held += 1
            await self.go.wait()
        return function(argument)


async def abandoned(body: RequestBody) -> None:
    """The engine's first try ends while it waits for a piece."""
    reading = asyncio.create_task(body.read())
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait([reading])


async def replayed(body: RequestBody) -> bytes:
    """All of the body, from the start."""
    body.rewind()
    pieces = []
    while not body.at_end:
        pieces.append(await body.read())
    return b"".join(pieces)


@pytest.mark.parametrize("length", [None, 90_000])
async def test_replay_waits_for_what_is_on_its_way_to_the_disk(
    monkeypatch: pytest.MonkeyPatch, length: int | None
) -> None:
    """A last piece that has come, but is not kept yet, is part of the body: what is kept so far is not the whole."""
    server, threads = Server(), BusyThreads()
    body = RequestBody(server.receive, None, Replay(memory=60_000))
    body.expect(length)
    body.keep()
    for piece in PIECES[:2]:
        server.hand_over(piece)
        await body.read()
    monkeypatch.setattr(asgi_body, "_on_disk", threads.call)
    await abandoned(body)
    server.hand_over(PIECES[2], more=False)
    await until(lambda: threads.held)
    replaying = asyncio.create_task(replayed(body))
    await asyncio.wait([replaying], timeout=0.05)
    threads.go.set()
    assert await asyncio.wait_for(replaying, WAIT) == b"".join(PIECES)
    body.close()


async def test_replay_beside_a_pull() -> None:
    """What comes while the replay goes on is sent once, in its place, wherever it is kept."""
    server = Server()
    body = RequestBody(server.receive, None, Replay(memory=50_000))
    body.expect(None)
    body.keep()
    for piece in PIECES[:2]:
        server.hand_over(piece)
        await body.read()
    await abandoned(body)
    replaying = asyncio.create_task(replayed(body))
    await asyncio.wait([replaying], timeout=0.05)
    server.hand_over(PIECES[2], more=False)
    assert await asyncio.wait_for(replaying, WAIT) == b"".join(PIECES)
    body.close()


@pytest.mark.parametrize(("messages", "left"), [(0, True), (2, True), (1000, False)])
async def test_watching_for_the_caller_ends(messages: int, left: bool) -> None:
    """Leaving is noticed behind a stray message; a `receive` that never waits cannot keep the loop busy."""
    asked = 0

    async def receive() -> dict[str, Any]:
        nonlocal asked
        asked += 1
        return {"type": "http.request" if asked <= messages else "http.disconnect"}

    body = RequestBody(receive, None, Replay())
    body.expect(0)
    assert await body.wait_left() is left
    assert asked <= 3


@pytest.mark.parametrize("last", [True, False])
async def test_kept_piece_is_sent_once(monkeypatch: pytest.MonkeyPatch, last: bool) -> None:
    """A piece that a replay has read from the spool before its pull was done is not sent again."""
    server, added, go = Server(), asyncio.Event(), asyncio.Event()

    async def late(function: Callable[..., Any], argument: Any) -> Any:
        outcome = function(argument)
        if function.__name__ == "add":
            added.set()
            await go.wait()
        return outcome

    body = RequestBody(server.receive, None, Replay(memory=70_000))
    body.expect(None)
    body.keep()
    for piece in PIECES[:2]:
        server.hand_over(piece)
        await body.read()
    monkeypatch.setattr(asgi_body, "_on_disk", late)
    await abandoned(body)
    server.hand_over(PIECES[2], more=not last)
    await asyncio.wait_for(added.wait(), WAIT)
    again = asyncio.create_task(replayed(body))
    await asyncio.sleep(0)
    go.set()
    if not last:
        server.hand_over(b"", more=False)
    assert await asyncio.wait_for(again, WAIT) == b"".join(PIECES)
    body.close()
