"""Callers that speak HTTP/1.0, as nginx does by default: they could not tell a cut response from a whole one."""

import pytest

from tests.callers import RawResponse, open_call
from tests.integration.asking import SERVERS, asked, check_problem
from tests.integration.conftest import MIB, ProxyServer
from tests.upstreams import Exchange, ScriptedUpstream, response

CHUNKED = b"HTTP/1.1 200 OK\r\nX-A: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\nX-A: 1\r\n\r\n"


def _asked(path: str = "crm/proxy/x", method: str = "GET") -> bytes:
    return asked(path, method).replace(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", 1)


def _ask(proxy_server: ProxyServer, server: str, method: str = "GET") -> RawResponse:
    """The answer, after which the server closes the connection."""
    with open_call(proxy_server(server).address, _asked(method=method)) as opened:
        answer = opened.read_rest()
        assert opened.closes_within(2)
        return answer


@pytest.mark.parametrize("server", SERVERS)
def test_response_with_a_length(server: str, proxy_server: ProxyServer, shared_upstream: ScriptedUpstream) -> None:
    """A response that has a length keeps it, and the upstream is spoken to in HTTP/1.1."""
    shared_upstream.answer(response(body=b"hello"))
    answer = _ask(proxy_server, server)
    assert (answer.status, answer.body, answer.header(b"content-length")) == (200, b"hello", b"5")
    assert shared_upstream.requests[0].version == b"HTTP/1.1"


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("size", [0, 5, 300 * 1024])
@pytest.mark.parametrize("framing", ["chunked", "until close"])
def test_response_without_a_length(
    server: str, size: int, framing: str, proxy_server: ProxyServer, shared_upstream: ScriptedUpstream
) -> None:
    """A response without a length gets one once it is known to be whole."""
    body = b"x" * size
    chunk = b"%x\r\n%b\r\n" % (size, body) if size else b""
    shared_upstream.answer(CHUNKED + chunk + b"0\r\n\r\n" if framing == "chunked" else UNTIL_CLOSE + body)
    answer = _ask(proxy_server, server)
    assert (answer.status, answer.body == body, answer.complete) == (200, True, True)
    assert answer.header(b"content-length") == b"%d" % size
    assert answer.header(b"x-a") == b"1"


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("sent", [b"", b"5\r\nhello\r\n"], ids=["at once", "later"])
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_response_without_a_length_breaks_off(
    server: str, sent: bytes, reset: bool, proxy_server: ProxyServer, shared_upstream: ScriptedUpstream
) -> None:
    """One that breaks off is a clean 502."""

    @shared_upstream.script
    def script(exchange: Exchange) -> None:
        exchange.send(CHUNKED + sent)
        (exchange.reset if reset else exchange.close)()

    problem = (502, "connection", "upstream_unreachable", "connection_terminated")
    check_problem(_ask(proxy_server, server), *problem)


@pytest.mark.parametrize("server", SERVERS)
def test_response_without_a_length_that_is_long(
    server: str, proxy_server: ProxyServer, shared_upstream: ScriptedUpstream
) -> None:
    """One that is longer than may be spooled is streamed from there on, and nothing of it is lost."""
    piece = bytes(range(256)) * 4096
    pieces = 10

    @shared_upstream.script
    def script(exchange: Exchange) -> None:
        exchange.send(CHUNKED)
        for _ in range(pieces):
            exchange.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        exchange.send(b"0\r\n\r\n")

    answer = _ask(proxy_server, server)
    assert (answer.status, len(answer.body)) == (200, pieces * MIB)
    assert answer.body == piece * pieces


@pytest.mark.parametrize("server", SERVERS)
def test_event_stream(server: str, proxy_server: ProxyServer, shared_upstream: ScriptedUpstream) -> None:
    """An event stream is never held back."""

    @shared_upstream.script
    def script(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata:1\n")
        assert exchange.wait_closed(5)
        exchange.ended = True

    with open_call(proxy_server(server).address, _asked()) as opened:
        assert opened.read(7) == b"data:1\n"
        shared_upstream.forget()


@pytest.mark.parametrize("server", SERVERS)
def test_head_and_bodiless_responses(server: str, proxy_server: ProxyServer, shared_upstream: ScriptedUpstream) -> None:
    """A response to HEAD keeps the length that it has, and gets none that it has not; a 204 has none."""
    shared_upstream.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
    assert _ask(proxy_server, server, method="HEAD").header(b"content-length") == b"9"
    shared_upstream.answer(b"HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n")
    answer = _ask(proxy_server, server)
    assert (answer.status, answer.values(b"content-length"), answer.body) == (204, [], b"")
