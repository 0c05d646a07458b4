"""Answers that take so long that somebody watches meanwhile whether the caller leaves; and callers that take none."""

import pytest

from proxy_middleware import Limits, Timeouts
from tests.callers import call, open_call, request
from tests.in_process import host, proxy_to
from tests.integration.asking import SERVERS, asked
from tests.integration.bulk import GIB, sending
from tests.integration.conftest import ProxyServer
from tests.servers import serve_asgi
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


def test_caller_that_takes_nothing(upstream: ScriptedUpstream) -> None:
    """It makes room for the next one after `Timeouts.idle`, and what it takes later does not look whole."""
    upstream.route(b"/large", sending(GIB, chunked=True))
    proxy = proxy_to(upstream, limits=Limits(connections_per_origin=1), timeouts=Timeouts(idle=0.5, pool=8))
    with (
        serve_asgi(proxy.asgi(host)) as address,
        open_call(address, request("GET", "/connections/crm/proxy/large")) as caller,
    ):
        upstream.wait_for_requests(1)
        answer = call(address, request("GET", "/connections/crm/proxy/x"))
        assert (answer.status, answer.body) == (200, b"ok")
        assert upstream.connections == 2
        count, complete = caller.discard()
    assert 0 < count < GIB
    assert not complete
