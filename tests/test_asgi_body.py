"""A request body under ASGI that is sent a second time while the first is still coming."""

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from proxy_middleware import Replay, _spool, asgi_body
from proxy_middleware._spool import READ_SIZE
from proxy_middleware.asgi_body import RequestBody
from proxy_middleware.errors import CallerLeft, InternalError, InvalidRequest, PayloadTooLarge
from tests.test_spool import missing
from tests.upstream.nonblocking import tasks, until
from tests.upstreams import WAIT

pytestmark = pytest.mark.anyio

PIECES = [os.urandom(30_000) for _ in range(4)]
WHOLE = b"".join(PIECES)


class Server:
    """Where the body comes from, piece by piece."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._owner: asyncio.Task[Any] | None = None

    def hand_over(self, piece: bytes, *, more: bool = True) -> None:
        """The next piece has come."""
        self._messages.put_nowait({"type": "http.request", "body": piece, "more_body": more})

    def leave(self) -> None:
        """The caller has left."""
        self._messages.put_nowait({"type": "http.disconnect"})

    async def receive(self) -> dict[str, Any]:
        """The server's `receive`, which takes one reader at a time."""
        assert self._owner is None
        self._owner = asyncio.current_task()
        try:
            return await self._messages.get()
        finally:
            self._owner = None

    async def body(
        self, replay: Replay, length: int | None = None, read: int = 2, limit: int | None = None
    ) -> RequestBody:
        """A body from here that is kept, and of which so many pieces have been read."""
        body = RequestBody(self.receive, limit, replay)
        body.loop = asyncio.get_running_loop()
        body.expect(length)
        body.keep()
        for piece in PIECES[:read]:
            self.hand_over(piece)
            assert await body.read() == piece
        return body


class BusyThreads:
    """Worker threads that hold up the first call of this name, before or after it is done, and no other."""

    def __init__(self, name: str, *, after: bool = False) -> None:
        self.held = 0
        self.go = asyncio.Event()
        self._name = name
        self._after = after

    async def call(self, function: Callable[..., Any], argument: Any) -> Any:
        """What the body calls for anything that touches the disk."""
        held = function.__name__ == self._name and not self.held
        if held and not self._after:
            await self._hold()
        outcome = function(argument)
        if held and self._after:
            await self._hold()
        return outcome

    async def _hold(self) -> None:
        self.held += 1
        await self.go.wait()


@pytest.fixture(autouse=True)
async def nothing_left() -> AsyncIterator[None]:
    """No task goes on once a body is closed, and none has failed unseen."""
    reports: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    yield
    await until(lambda: not tasks())
    gc.collect()
    assert reports == []


async def given_up(body: RequestBody) -> "asyncio.Task[bytes]":
    """An upload that is given up while it waits for a piece. It waits on, as the engine's does."""

    async def upload() -> bytes:
        try:
            return await body.read()
        except Exception:
            return b""

    reading = asyncio.create_task(upload())
    await asyncio.sleep(0)
    return reading


async def replayed(body: RequestBody) -> bytes:
    """All of the body, from the start."""
    body.rewind()
    pieces = []
    while not body.at_end:
        pieces.append(await body.read())
    return b"".join(pieces)


async def replaying(body: RequestBody) -> "asyncio.Task[bytes]":
    """The same, which has come to the end of what is kept, and waits."""
    task = asyncio.create_task(replayed(body))
    await until(lambda: body._spool and body._position == body._spool.size)
    await asyncio.sleep(0)
    return task


@pytest.mark.parametrize("length", [None, 120_000])
async def test_replay_waits_for_what_is_on_its_way_to_the_disk(
    monkeypatch: pytest.MonkeyPatch, length: int | None
) -> None:
    """A last piece that has come, but is not kept yet, is part of the body: what is kept so far is not the whole."""
    server, threads = Server(), BusyThreads("add")
    body = await server.body(Replay(memory=90_000), length, 3)
    monkeypatch.setattr(asgi_body, "_on_disk", threads.call)
    await given_up(body)
    server.hand_over(PIECES[3], more=False)
    await until(lambda: threads.held)
    again = await replaying(body)
    assert not again.done()
    threads.go.set()
    assert await asyncio.wait_for(again, WAIT) == WHOLE
    body.close()


@pytest.mark.parametrize("last", [True, False])
async def test_kept_piece_is_sent_once(monkeypatch: pytest.MonkeyPatch, last: bool) -> None:
    """A piece that a replay has read from the spool before its pull was done is not sent again."""
    server, threads = Server(), BusyThreads("add", after=True)
    body = await server.body(Replay(memory=100_000), None, 3)
    monkeypatch.setattr(asgi_body, "_on_disk", threads.call)
    await given_up(body)
    server.hand_over(PIECES[3], more=not last)
    await until(lambda: threads.held)
    again = await replaying(body)
    threads.go.set()
    if not last:
        server.hand_over(b"", more=False)
    assert await asyncio.wait_for(again, WAIT) == WHOLE
    body.close()


ROOM = {
    "in memory": (Replay(memory=200_000), None),
    "on disk": (Replay(memory=50_000), 120_000),
    "no more room": (Replay(memory=60_000, disk=0), None),
    "no more room on disk": (Replay(memory=30_000, disk=50_000), None),
    "known to be too long": (Replay(memory=60_000, disk=50_000), 120_000),
}


@pytest.mark.parametrize(("replay", "length"), ROOM.values(), ids=ROOM)
@pytest.mark.parametrize("moment", ["before the replay", "while it reads what is kept", "when it waits"])
async def test_replay_beside_a_pull(replay: Replay, length: int | None, moment: str) -> None:
    """What an upload that was given up waits for is sent once, in its place, wherever it is kept; so is the rest."""
    server = Server()
    body = await server.body(replay, length)
    assert body.replayable
    upload = await given_up(body)
    if moment == "before the replay":
        server.hand_over(PIECES[2])
        await asyncio.wait([upload])
    again = asyncio.create_task(replayed(body)) if moment != "when it waits" else await replaying(body)
    if moment != "before the replay":
        server.hand_over(PIECES[2])
    server.hand_over(PIECES[3], more=False)
    assert await asyncio.wait_for(again, WAIT) == WHOLE
    assert upload.done()
    body.close()


@pytest.mark.parametrize("piece", [PIECES[2], b""], ids=["a piece", "nothing more"])
async def test_last_piece(piece: bytes) -> None:
    """The same where the end is what is waited for."""
    server = Server()
    body = await server.body(Replay())
    await given_up(body)
    again = await replaying(body)
    server.hand_over(piece, more=False)
    assert await asyncio.wait_for(again, WAIT) == b"".join(PIECES[:2]) + piece
    body.close()


async def test_three_readers() -> None:
    """Of several uploads that were given up, none takes anything from the one that goes on."""
    server = Server()
    body = await server.body(Replay())
    first = await given_up(body)
    second = await replaying(body)
    third = await replaying(body)
    server.hand_over(PIECES[2])
    server.hand_over(PIECES[3], more=False)
    assert await asyncio.wait_for(third, WAIT) == WHOLE
    await asyncio.wait([first, second])
    body.close()


async def test_reading_from_the_disk_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload that was given up while it read what is kept does not move the one that goes on."""
    server, threads = Server(), BusyThreads("read")
    body = await server.body(Replay(memory=20_000), 120_000, 4)
    monkeypatch.setattr(asgi_body, "_on_disk", threads.call)
    body.rewind()
    threads.held = 1
    start = await body.read()
    threads.held = 0
    upload = await given_up(body)
    body.rewind()
    assert await body.read() == start
    threads.go.set()
    await asyncio.wait([upload])
    assert start + await body.read() + await body.read() == WHOLE
    assert body.at_end
    body.close()


ENDINGS: dict[str, tuple[Callable[[Server], None], type[Exception]]] = {
    "left": (Server.leave, CallerLeft),
    "short": (lambda server: server.hand_over(b"", more=False), CallerLeft),
    "longer than announced": (lambda server: server.hand_over(b"x" * 35_000), InvalidRequest),
    "more than allowed": (lambda server: server.hand_over(b"x" * 50_000), PayloadTooLarge),
}


@pytest.mark.parametrize(("ending", "error"), ENDINGS.values(), ids=ENDINGS)
@pytest.mark.parametrize("waiting", [False, True])
async def test_error_is_for_who_reads_on(
    ending: Callable[[Server], None], error: type[Exception], waiting: bool
) -> None:
    """An error that an upload that was given up has met comes out of the replay, after what is kept, and stays."""
    server = Server()
    body = await server.body(Replay(), 90_000, limit=100_000)
    upload = await given_up(body)
    again = await replaying(body) if waiting else None
    ending(server)
    await asyncio.wait([upload])
    with pytest.raises(error):
        await asyncio.wait_for(again or replayed(body), WAIT)
    with pytest.raises(error):
        await asyncio.wait_for(body.read(), WAIT)
    body.close()


@pytest.mark.parametrize("readers", [1, 2])
async def test_closing_ends_the_waiting(readers: int) -> None:
    """Once the request is over nobody waits for its body any more."""
    server = Server()
    body = await server.body(Replay())
    waiting = [await given_up(body)]
    if readers == 2:
        waiting.append(await given_up_replay(body))
    body.close()
    await asyncio.wait(waiting, timeout=WAIT)
    assert waiting[0].cancelled()
    assert server._owner is None


async def given_up_replay(body: RequestBody) -> "asyncio.Task[bytes]":
    """A second upload that waits behind the first one."""
    body.rewind()
    assert await body.read() == b"".join(PIECES[:2])
    return await given_up(body)


async def test_cancelled_reader() -> None:
    """Where somebody else cancels the reader, its piece may be lost, and the body is not sent again."""
    server = Server()
    body = await server.body(Replay())
    upload = await given_up(body)
    assert body.replayable
    upload.cancel()
    await asyncio.wait([upload])
    assert not body.replayable
    body.close()


async def test_reader_is_cancelled_before_a_waiting_replay() -> None:
    """A second try that waits for a piece which is lost ends with an error, not with a gap."""
    server = Server()
    body = await server.body(Replay())
    upload = await given_up(body)
    replay = await replaying(body)
    upload.cancel()
    server.hand_over(PIECES[3], more=False)
    with pytest.raises(InternalError):
        await asyncio.wait_for(replay, WAIT)
    body.close()


async def test_reader_is_cancelled_beside_a_replay() -> None:
    """A second try that has begun when a piece is lost ends with an error, and does not go on in a circle."""
    server = Server()
    body = await server.body(Replay(), read=3)
    upload = await given_up(body)
    body.rewind()
    assert await body.read() == WHOLE[:READ_SIZE]
    upload.cancel()
    await asyncio.wait([upload])
    with pytest.raises(InternalError):
        await body.read()
    body.close()


async def test_overflown_before_a_replay() -> None:
    """Where readers given up have taken more than could be kept, a second try ends with an error, not with a gap."""
    server = Server()
    body = await server.body(Replay(memory=70_000, disk=0))
    for piece in PIECES[2:]:
        server.hand_over(piece, more=piece is PIECES[2])
        await body.read()
    with pytest.raises(InternalError):
        await asyncio.wait_for(replayed(body), WAIT)
    body.close()


async def test_collected_without_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a signer has been given is sent whole, also where the disk is full or not there."""
    monkeypatch.setattr(_spool, "TemporaryFile", missing)
    server = Server()
    body = await server.body(Replay(memory=40_000), len(WHOLE), read=0)
    for piece in PIECES:
        server.hand_over(piece)
    assert await body.collect(len(WHOLE)) == WHOLE
    assert await replayed(body) == WHOLE
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
