"""Answers that take so long that somebody watches meanwhile whether the caller leaves."""

import pytest

from tests.callers import open_call
from tests.integration.asking import SERVERS, asked
from tests.integration.conftest import ProxyServer
from tests.upstreams import Exchange, ScriptedUpstream

# Longer than it takes until a watch is kept.
WHILE = 0.5


def _slowly(exchange: Exchange) -> None:
    exchange.read(None)
    exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    assert not exchange.wait_closed(WHILE)
    exchange.send(b"6\r\n world\r\n0\r\n\r\n")


@pytest.mark.parametrize("server", SERVERS)
def test_connection_goes_on_after_a_slow_answer(
    server: str, proxy_server: ProxyServer, shared_upstream: ScriptedUpstream
) -> None:
    """The answer ends properly, and where the server keeps the connection the next request on it is served."""
    shared_upstream.script(_slowly)
    with open_call(proxy_server(server).address, asked("crm/proxy/x")) as opened:
        first = opened.read_rest()
        assert (first.status, first.body, first.complete) == (200, b"hello world", True)
        if b"close" in first.values(b"connection"):
            assert server in ("gunicorn-sync", "waitress", "werkzeug")  # after any answer, or one without a length
            return
        opened.send(asked("crm/proxy/y", "POST", body=b"{}"))
        second = opened.read_rest()
    assert (second.status, second.body, second.complete) == (200, b"hello world", True)


@pytest.mark.parametrize("server", SERVERS)
def test_connection_ends_after_a_slow_answer(
    server: str, proxy_server: ProxyServer, shared_upstream: ScriptedUpstream
) -> None:
    """Where the end of the connection ends the answer, for HTTP/1.0, that end comes."""
    shared_upstream.script(_slowly)
    sent = asked("crm/proxy/x").replace(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", 1)
    with open_call(proxy_server(server).address, sent, timeout=3) as opened:
        answer = opened.read_rest()
        assert opened.closes_within(1)
    assert (answer.status, answer.body, answer.complete) == (200, b"hello world", True)
