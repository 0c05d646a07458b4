"""Uploads through the ASGI door in this process that are broken off or sent again while the caller is still silent."""

import asyncio
import gc
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import pytest

from proxy_middleware import Connection, Credential, Proxy, Replay, StaticCredentials, Timeouts
from tests.in_process import Message, host, proxy_to
from tests.upstream.blocking import never
from tests.upstream.nonblocking import LOOPS, pool_of, taken, tasks, until
from tests.upstreams import WAIT, Exchange, ScriptedUpstream, response
from tests.wire import reset

pytestmark = pytest.mark.anyio

PIECES = [os.urandom(30_000) for _ in range(6)]
WHOLE = b"".join(PIECES)
EXPIRED = response(401, body=b"expired")


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Every event loop that servers use."""
    return request.param


class Renewing:
    """Tokens that are renewed when the upstream says so."""

    def __init__(self) -> None:
        self.numbers = count(1)

    async def obtain(self, connection: Connection) -> Credential:
        """The first."""
        return Credential.bearer("0")

    async def refresh(self, connection: Connection, rejected: Credential) -> Credential:
        """The next."""
        return Credential.bearer(str(next(self.numbers)))


class Caller:
    """A caller that sends its body piece by piece, as the test says; behind a server that would lose a piece."""

    def __init__(self, method: str = "PUT", length: int | None = len(WHOLE)) -> None:
        self.sent: list[Message] = []
        self.waited_for = 0  # How many pieces have been asked for and have not come yet.
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._method = method
        self._length = length

    def give(self, *pieces: bytes, more: bool = True) -> None:
        """These pieces have come."""
        for number, piece in enumerate(pieces, 1):
            self._messages.put_nowait(
                {"type": "http.request", "body": piece, "more_body": more or number < len(pieces)}
            )

    def leave(self) -> None:
        """The caller has left."""
        self._messages.put_nowait({"type": "http.disconnect"})

    async def receive(self) -> Message:
        """The server's `receive`. What it was about to give is gone once it is cancelled, and that is noted."""
        assert not self.waited_for
        self.waited_for += 1
        async with asyncio.timeout(3 * WAIT):  # As middleware does, which belongs into the task that calls it.
            message = await self._messages.get()
        self.waited_for -= 1
        return message

    async def send(self, message: Message) -> None:
        """The server's `send`."""
        self.sent.append(message)

    async def asks(self, proxy: Proxy) -> None:
        """The request, until it has been answered."""
        known = (b"content-length", b"%d" % self._length) if self._length else (b"transfer-encoding", b"chunked")
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": self._method,
            "path": "/connections/crm/proxy/x",
            "raw_path": b"/connections/crm/proxy/x",
            "query_string": b"",
            "root_path": "",
            "headers": [known],
            "client": ("127.0.0.1", 1),
        }
        await proxy.asgi(host)(scope, self.receive, self.send)

    @property
    def answer(self) -> tuple[int, bytes, bool]:
        """Status and body of what was answered, and whether it was brought to its end."""
        body = b"".join(message.get("body", b"") for message in self.sent)
        return self.sent[0]["status"], body, self.sent[-1].get("more_body") is False


@asynccontextmanager
async def asking(caller: Caller, upstream: ScriptedUpstream, **settings: Any) -> AsyncIterator["asyncio.Task[None]"]:
    """The request is under way; in the end nothing of it is left: no task, no place, and no exception unseen."""
    reports: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    proxy = proxy_to(upstream, credentials=StaticCredentials({"crm": Renewing()}), **settings)
    # One that is idle, for what finds its connection dead.
    warm = Caller("GET", 1)
    warm.give(b"x", more=False)
    await warm.asks(proxy)
    task = asyncio.create_task(caller.asks(proxy))
    yield task
    assert await asyncio.wait([task], timeout=WAIT) == ({task}, set())
    assert task.cancelled() or task.exception() is None
    assert proxy._asyncio
    pool = pool_of(proxy._asyncio)
    await proxy.aclose()
    await until(lambda: not tasks())
    assert not taken(pool)
    gc.collect()
    assert reports == []


class Upstream:
    """An upstream that takes this much of the first upload, and then does something; the second one it takes whole."""

    def __init__(self, upstream: ScriptedUpstream, part: int, then: Callable[[Exchange], Any]) -> None:
        self.uploads: list[Exchange] = []
        self._part = part
        self._then = then
        upstream.script(self._answer)

    def _answer(self, exchange: Exchange) -> None:
        if exchange.request.method == b"GET":
            exchange.read(None)
            exchange.send(response())
            return
        self.uploads.append(exchange)
        if len(self.uploads) == 1:
            exchange.read(self._part)
            self._then(exchange)
        else:
            exchange.read(None)
            exchange.send(response(body=b"welcome"))


def rejecting(exchange: Exchange) -> None:
    """A 401 in the middle of the upload, and nothing is taken any more."""
    exchange.send(EXPIRED)
    exchange.wait_closed(WAIT)
    exchange.ended = True


def dying(exchange: Exchange) -> None:
    """The connection turns out to be dead."""
    reset(exchange.sock)
    exchange.ended = True


# What there is room for: all, in memory and on disk; or not what the caller sends last.
ROOMS = {
    "memory": Replay(),
    "disk": Replay(memory=50_000),
    "too little": Replay(memory=70_000, disk=10_000),
}


@pytest.mark.parametrize("length", [len(WHOLE), None], ids=["length", "chunked"])
@pytest.mark.parametrize("replay", ROOMS.values(), ids=ROOMS)
@pytest.mark.parametrize("trouble", [rejecting, dying])
async def test_sent_again(
    upstream: ScriptedUpstream, trouble: Callable[[Exchange], None], replay: Replay, length: int | None
) -> None:
    """In the middle of an upload, while the caller is silent: at the second try every byte comes once, in order."""
    seen, caller = Upstream(upstream, 60_000, trouble), Caller("PUT", length)
    async with asking(caller, upstream, replay=replay):
        caller.give(*PIECES[:2])
        await until(lambda: len(seen.uploads) == 2 and len(seen.uploads[1].request.body) == 60_000)
        assert caller.waited_for == 1
        caller.give(*PIECES[2:], more=False)
    assert caller.answer == (200, b"welcome", True)
    first, second = (each.request for each in seen.uploads)
    assert (first.complete, second.wait_ended(), second.body) == (False, True, WHOLE)


async def test_sent_again_over_tls(tls_upstream: ScriptedUpstream, trusting_context: ssl.SSLContext) -> None:
    """The same under TLS, whose transports are others."""
    seen, caller = Upstream(tls_upstream, 60_000, rejecting), Caller()
    async with asking(caller, tls_upstream, ssl_context=trusting_context):
        caller.give(*PIECES[:2])
        await until(lambda: len(seen.uploads) == 2 and len(seen.uploads[1].request.body) == 60_000)
        caller.give(*PIECES[2:], more=False)
    assert (caller.answer, seen.uploads[1].body) == ((200, b"welcome", True), WHOLE)


@pytest.mark.parametrize("trouble", [rejecting, dying])
async def test_caller_leaves_before_the_second_try_is_whole(
    upstream: ScriptedUpstream, trouble: Callable[[Exchange], None]
) -> None:
    """The piece that is waited for never comes: both tries end, and neither looks whole."""
    seen, caller = Upstream(upstream, 60_000, trouble), Caller("PUT", None)
    async with asking(caller, upstream):
        caller.give(*PIECES[:2])
        await until(lambda: len(seen.uploads) == 2)
        caller.leave()
    assert not caller.sent
    assert not any(each.request.wait_ended() for each in seen.uploads)


async def test_error_at_the_second_try(upstream: ScriptedUpstream) -> None:
    """What comes to the upload that was given up may be too much; that is answered."""
    seen, caller = Upstream(upstream, 60_000, rejecting), Caller("PUT", 70_000)
    async with asking(caller, upstream):
        caller.give(*PIECES[:2])
        await until(lambda: len(seen.uploads) == 2)
        caller.give(PIECES[2])
    assert caller.answer[::2] == (400, True)
    assert not any(each.request.wait_ended() for each in seen.uploads)


async def test_cancelled_at_the_second_try(upstream: ScriptedUpstream) -> None:
    """A request that its server cancels is over at once, and so is its waiting for the caller."""
    seen, caller = Upstream(upstream, 60_000, rejecting), Caller()
    async with asking(caller, upstream) as task:
        caller.give(*PIECES[:2])
        await until(lambda: len(seen.uploads) == 2)
        task.cancel()
    assert task.cancelled()
    assert not any(each.request.wait_ended() for each in seen.uploads)


def refusing(exchange: Exchange) -> None:
    """An early answer, after which the connection is closed."""
    exchange.send(response(413, ((b"Connection", b"close"),), b"too large"))
    exchange.close()


@pytest.mark.parametrize("method", ["PUT", "POST"])
async def test_early_answer(upstream: ScriptedUpstream, method: str) -> None:
    """It is returned while the caller is silent, whose next piece nobody waits for any more."""
    seen, caller = Upstream(upstream, 60_000, refusing), Caller(method)
    async with asking(caller, upstream):
        caller.give(*PIECES[:2])
    assert caller.answer == (413, b"too large", True)
    assert len(seen.uploads) == 1


async def test_caller_leaves_after_an_early_answer(upstream: ScriptedUpstream) -> None:
    """An answer that has begun ends when the caller leaves, whose upload goes on beside it."""

    def begin(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        exchange.wait_closed(WAIT)
        exchange.ended = True

    seen, caller = Upstream(upstream, 60_000, begin), Caller("POST")
    async with asking(caller, upstream):
        caller.give(*PIECES[:2])
        await until(lambda: any(message.get("body") == b"ab" for message in caller.sent))
        caller.leave()
    assert caller.answer == (200, b"ab", False)
    assert not seen.uploads[0].request.wait_ended()


async def test_silent_caller(upstream: ScriptedUpstream) -> None:
    """A caller that sends nothing for too long is told so; nobody waits for it any more."""
    seen, caller = Upstream(upstream, 60_000, never), Caller()
    async with asking(caller, upstream, timeouts=Timeouts(idle=0.1)):
        caller.give(*PIECES[:2])
    assert caller.answer[::2] == (504, True)
    assert not seen.uploads[0].request.complete
