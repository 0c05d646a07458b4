"""Name servers that give no answer: who needs one waits for `Timeouts.connect`, and nobody else waits."""

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from proxy_middleware import Connection, Credential, StaticCredentials, StaticResolver, Timeouts
from tests.callers import RawResponse, call, request
from tests.in_process import proxy_to
from tests.integration.asking import check_problem
from tests.integration.faults.doors import DOORS, serve
from tests.upstream.blocking import until
from tests.upstreams import ScriptedUpstream

LATE = (504, "connection", "upstream_timeout", "connection_timeout")
CROWD = 100
# What the engine allows itself for look-ups.
LOOK_UPS = 32

Ask = Callable[[str], RawResponse]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Until it is set, look-ups of `*.hanging.example` do not return; every other name is this machine."""
    answer, real = threading.Event(), socket.getaddrinfo

    def look_up(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        if options.get("flags", 0) & socket.AI_NUMERICHOST or not str(host).endswith(".example"):
            return real(host, port, *arguments, **options)
        if host.endswith("hanging.example"):
            answer.wait(30)
        return real("127.0.0.1", port, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    yield answer
    answer.set()
    until(lambda: not look_ups())


def look_ups() -> list[threading.Thread]:
    """The threads that look names up."""
    return [thread for thread in threading.enumerate() if thread.name == "proxy-lookup"]


@pytest.fixture(params=DOORS)
def ask(request: pytest.FixtureRequest, upstream: ScriptedUpstream) -> Iterator[Ask]:
    """Asks a door whose connections have names that hang, names that do not, and an address."""
    port = upstream.address[1]
    connections = [
        Connection("hanging", f"http://hanging.example:{port}"),
        Connection("named", f"http://named.example:{port}"),
        Connection("other", f"http://other.example:{port}"),
        Connection("address", upstream.url),
        *(Connection(f"hanging-{number}", f"http://{number}.hanging.example:{port}") for number in range(4)),
    ]
    proxy = proxy_to(
        upstream,
        resolver=StaticResolver(connections),
        credentials=StaticCredentials(dict.fromkeys((each.id for each in connections), Credential.bearer("secret"))),
        timeouts=Timeouts(connect=0.5),
    )
    with serve(request.param, proxy) as address:
        yield lambda selector: call(address, _get(selector))
    proxy.close()


def _get(selector: str) -> bytes:
    return request("GET", f"/connections/{selector}/proxy/x", [("Connection", "close")])


def test_others_are_served(ask: Ask, answers: threading.Event, upstream: ScriptedUpstream) -> None:
    """Look-ups that hang are a 504; other names, known and new, and addresses are served meanwhile."""
    assert ask("named").status == 200
    with ThreadPoolExecutor(4) as threads:
        late = [threads.submit(ask, f"hanging-{number}") for number in range(4)]
        until(lambda: len(look_ups()) == 4)
        for selector in ("address", "named", "other"):
            assert ask(selector).body == b"ok"
        assert not any(each.done() for each in late)
        for each in late:
            check_problem(each.result(), *LATE)
    assert {seen.header(b"host") for seen in upstream.requests} == {
        f"{host}:{upstream.address[1]}".encode() for host in ("127.0.0.1", "named.example", "other.example")
    }


def test_crowd_at_a_name_that_hangs(ask: Ask, answers: threading.Event, upstream: ScriptedUpstream) -> None:
    """A hundred requests at once have no thread each; whose address is known is served; then the name answers again."""
    with ThreadPoolExecutor(CROWD) as threads:
        late = list(threads.map(ask, ["hanging"] * CROWD))
    for each in late:
        check_problem(each, *LATE)
    assert len(look_ups()) <= LOOK_UPS
    assert ask("address").body == b"ok"
    answers.set()
    until(lambda: not look_ups())
    assert ask("hanging").body == b"ok"
    assert ask("named").body == b"ok"


def test_crowd_at_one_name_leaves_others_theirs(ask: Ask, answers: threading.Event, upstream: ScriptedUpstream) -> None:
    """A name that hangs does not keep other names from being looked up, however many ask for it."""
    with ThreadPoolExecutor(CROWD) as threads:
        late = [threads.submit(ask, "hanging") for _ in range(CROWD)]
        until(look_ups)
        assert ask("named").body == b"ok"
        for each in late:
            check_problem(each.result(), *LATE)
    assert ask("other").body == b"ok"
