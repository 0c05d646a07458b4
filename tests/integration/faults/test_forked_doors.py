"""Forks of a process whose doors are warm: everybody gets their own answers, the parent on its own connections."""

import asyncio
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count

import pytest

from proxy_middleware import Connection, Credential, Proxy
from tests.in_process import host, proxy_to
from tests.integration.faults.doors import Ask, Call, asking
from tests.upstreams import Exchange, ScriptedUpstream, response

CHILDREN, REQUESTS, WARM = 2, 20, 5
# Seconds after which a child that hangs is ended.
PATIENCE = 20


class Tokens:
    """A provider that never gives the same token twice."""

    def __init__(self) -> None:
        self._numbers = count(1)

    def obtain(self, connection: Connection) -> Credential:
        """The next token."""
        return Credential.bearer(f"token-{next(self._numbers)}")


def _echo(exchange: Exchange) -> None:
    credential = exchange.request.header(b"authorization") or b""
    exchange.send(response(body=credential + b" " + exchange.body))


class Doors:
    """Both doors of one proxy in this process."""

    def __init__(self, proxy: Proxy, ask: Ask) -> None:
        self.aclose = proxy.aclose
        self._asgi = proxy.asgi(host)
        self._ask = ask

    def check(self, runner: asyncio.Runner, who: str, number: int) -> None:
        """So many requests at once through each door, of which each has its own body and must get that back."""
        for bodies, answers in (
            (_bodies(f"{who} asgi", number), lambda bodies: runner.run(self._through_asgi(bodies))),
            (_bodies(f"{who} wsgi", number), self._through_wsgi),
        ):
            assert answers(bodies) == [b"Bearer token-1 " + body for body in bodies]

    async def _through_asgi(self, bodies: list[bytes]) -> list[bytes]:
        calls = await asyncio.gather(*(Call("POST", [body]).at(self._asgi) for body in bodies))
        return [b"".join(message.get("body", b"") for message in call.sent) for call in calls]

    def _through_wsgi(self, bodies: list[bytes]) -> list[bytes]:
        with ThreadPoolExecutor(len(bodies)) as threads:
            return [answer.body for answer in threads.map(lambda body: self._ask("POST", body), bodies)]


def _bodies(who: str, number: int) -> list[bytes]:
    return [f"{who} {each} ".encode() * 100 for each in range(number)]


@pytest.fixture
def doors(upstream: ScriptedUpstream) -> Iterator[Doors]:
    """Both doors, closed in the end."""
    upstream.script(_echo)
    proxy = proxy_to(upstream, credentials=Tokens())
    with asking("wsgi", proxy) as ask:
        yield Doors(proxy, ask)


def _child(doors: Doors, who: str) -> int:
    """Forks a child that asks through both doors at once; its process."""
    child = os.fork()
    if not child:
        signal.alarm(PATIENCE)
        with suppress(BaseException), asyncio.Runner() as runner:
            doors.check(runner, who, REQUESTS)
            os._exit(0)
        os._exit(1)
    return child


# From Python 3.12 on, forking beside threads is warned of; servers do it all the same.
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_children_of_warm_doors(doors: Doors, upstream: ScriptedUpstream) -> None:
    """No answer is mixed up between processes, all use the credential that is cached, and the parent's pools last."""
    with asyncio.Runner() as runner:
        doors.check(runner, "before", WARM)
        warm = {seen.connection_number for seen in upstream.requests}
        children = [_child(doors, f"child {number}") for number in range(CHILDREN)]
        doors.check(runner, "parent", REQUESTS)
        assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * CHILDREN
        doors.check(runner, "after", WARM)
        runner.run(doors.aclose())
        used = {who: _used(upstream, who) for who in (b"parent", b"after", b"child")}
    assert warm & used[b"parent"]
    assert not (warm | used[b"parent"] | used[b"after"]) & used[b"child"]
    assert len(upstream.requests) == 2 * (2 * WARM + (1 + CHILDREN) * REQUESTS)


def _used(upstream: ScriptedUpstream, who: bytes) -> set[int]:
    """The connections on which requests of somebody came."""
    return {seen.connection_number for seen in upstream.requests if seen.body.startswith(who)}
