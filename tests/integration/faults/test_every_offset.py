"""An upstream that dies at every single byte of its answer: what is cut short is never taken for whole."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import pytest

from proxy_middleware import Connection, Credential
from tests.callers import call
from tests.in_process import proxy_to
from tests.integration.asking import asked, check_clean
from tests.integration.conftest import ProxyServer
from tests.integration.faults.doors import DOORS, asking
from tests.upstreams import Exchange, Script, ScriptedUpstream, response

OK = b"HTTP/1.1 200 OK\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n"
LENGTH = response(fields=((b"X-A", b"1"),), body=b"hello world")
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n6\r\n world\r\n0\r\nX-T: 1\r\n\r\n"
CLOSE = OK + b"X-A: 1\r\n\r\nhello world"


@dataclass(frozen=True)
class Answer:
    """What an upstream would send, were it to live, and the body that is in it."""

    sent: bytes
    body: bytes = b"hello world"
    method: str = "GET"
    until_close: bool = False

    @property
    def status(self) -> int:
        """The final status."""
        return int(self.sent.removeprefix(HINTS).split(b" ")[1])

    @property
    def head_end(self) -> int:
        """How many bytes there are until the final head is complete."""
        return self.sent.index(b"\r\n\r\n", len(HINTS) if self.sent.startswith(HINTS) else 0) + 4


ANSWERS = {
    "length": Answer(LENGTH),
    "chunks": Answer(CHUNKED),
    "until close": Answer(CLOSE, until_close=True),
    "length after interim": Answer(HINTS + LENGTH),
    "chunks after interim": Answer(HINTS + CHUNKED),
    "until close after interim": Answer(HINTS + CLOSE, until_close=True),
    "empty": Answer(response(), b""),
    "no content": Answer(b"HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n", b""),
    "to HEAD": Answer(LENGTH.removesuffix(b"hello world"), b"", "HEAD"),
    "error": Answer(response(500, ((b"Content-Type", b"application/json"),), b"{}", reason=b"Oops"), b"{}"),
}
# Those that are tried on real servers, too: at every byte of the body, and at some of the head.
ON_SERVERS = ("length", "chunks", "until close")
# Every so many bytes the connection is reset, too; a prime, so that it falls on all parts of an answer.
STEP = 7


def dying(sent: bytes, *, reset: bool) -> Script:
    """A script that sends this and dies."""

    def script(exchange: Exchange) -> None:
        exchange.read(None)
        exchange.send(sent)
        (exchange.reset if reset else exchange.close)()

    return script


def verdict(answer: Answer, at: int, status: int, body: bytes, *, whole: bool, reset: bool) -> str:
    """What the caller of an upstream that died at this byte got; "half an answer" is what nobody may ever get."""
    if status == 502:
        return "502" if whole else "a broken 502"
    if at < answer.head_end or status != answer.status or not answer.body.startswith(body):
        return "something that was not sent"
    if not whole:
        return "broken"
    ended = at == len(answer.sent) or answer.until_close
    return "whole" if ended and not reset and body == sent_until(answer, at) else "half an answer"


def sent_until(answer: Answer, at: int) -> bytes:
    """The body of an answer that ended properly here."""
    return answer.sent[answer.head_end : at] if answer.until_close else answer.body


def expected(answer: Answer, at: int, *, reset: bool) -> set[str]:
    """What a caller may get."""
    if at < answer.head_end:
        return {"502"}
    if not reset and (at == len(answer.sent) or answer.until_close):
        return {"whole"}
    return {"502", "broken"}


def deaths(answer: Answer) -> Iterator[tuple[int, bool]]:
    """Where an upstream dies, and whether it is by RST. One that is reset at its last byte may have delivered it."""
    for at in range(len(answer.sent) + 1):
        yield at, False
        if at % STEP == 0 and at < len(answer.sent):
            yield at, True


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", ANSWERS)
def test_first_answer(door: str, name: str, upstream: ScriptedUpstream) -> None:
    """Before the head it is a 502, in the body a broken transfer (or a 502), and whole only where it is."""
    answer, wrong = ANSWERS[name], []
    with asking(door, proxy_to(upstream)) as ask:
        for at, reset in deaths(answer):
            upstream.script(dying(answer.sent[:at], reset=reset))
            got = ask(answer.method)
            said = verdict(answer, at, got.status, got.body, whole=got.whole, reset=reset)
            if said not in expected(answer, at, reset=reset):
                wrong.append((at, "RST" if reset else "FIN", said))
    assert wrong == []
    assert len(upstream.requests) == len(list(deaths(answer)))


class Renewed:
    """Credentials "old 1", "old 2", ... of which each can be refreshed to "new"."""

    def __init__(self) -> None:
        self._numbers = count(1)

    def obtain(self, connection: Connection) -> Credential:
        """An old one."""
        return Credential.bearer(f"old {next(self._numbers)}")

    def refresh(self, connection: Connection, rejected: Credential) -> Credential:
        """The new one."""
        return Credential.bearer("new")


def rejecting(then: Script) -> Script:
    """A script that rejects what is old."""

    def script(exchange: Exchange) -> None:
        if exchange.request.header(b"authorization") == b"Bearer new":
            then(exchange)
        else:
            exchange.read(None)
            exchange.send(response(401, body=b"rejected", reason=b"Unauthorized"))

    return script


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", ["length", "chunks", "until close after interim"])
def test_second_answer(door: str, name: str, upstream: ScriptedUpstream) -> None:
    """The same where the answer after a refresh breaks: nobody gets the first one, and none is sent a third time."""
    answer, wrong = ANSWERS[name], []
    proxy = proxy_to(upstream, credentials=Renewed())
    with asking(door, proxy) as ask:
        for at, reset in deaths(answer):
            proxy.forget("crm")
            del upstream.requests[:]
            upstream.script(rejecting(dying(answer.sent[:at], reset=reset)))
            got = ask("POST", b"a body ", b"in pieces")
            said = verdict(answer, at, got.status, got.body, whole=got.whole, reset=reset)
            bodies = [(seen.body, seen.complete) for seen in upstream.requests]
            if said not in expected(answer, at, reset=reset) or bodies != [(b"a body in pieces", True)] * 2:
                wrong.append((at, "RST" if reset else "FIN", said, bodies))
    assert wrong == []


@pytest.mark.parametrize("server", ["uvicorn-httptools", "gunicorn-gthread"])
def test_on_servers(server: str, proxy_server: ProxyServer, shared_upstream: ScriptedUpstream) -> None:
    """The same as it is seen on the wire, with the credential nowhere in it."""
    address, wrong = proxy_server(server).address, []
    for name in ON_SERVERS:
        answer = ANSWERS[name]
        for at, reset in deaths(answer):
            if at > answer.head_end - STEP or at % STEP == 0:
                shared_upstream.script(dying(answer.sent[:at], reset=reset))
                got = call(address, asked("root/proxy/x"))
                check_clean(got)
                said = verdict(answer, at, got.status, got.body, whole=got.complete, reset=reset)
                if said not in expected(answer, at, reset=reset):
                    wrong.append((name, at, "RST" if reset else "FIN", said))
    assert wrong == []
