"""Upstreams that cannot be reached, break off, take too long or talk nonsense: the table's error, on every server."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
import trustme

from tests.callers import call, open_call
from tests.integration.asking import FIVE, FOUR, SERVERS, ask, asked, check_clean, check_problem
from tests.integration.conftest import MIB, ProxyServer
from tests.servers import ASGI_SERVERS, WSGI_SERVERS
from tests.upstreams import Exchange, Script, ScriptedUpstream, response

LOST = ("connection", "upstream_unreachable")
GARBLED = (502, "connection", "upstream_protocol_error", "http_protocol_error")
BROKEN = (502, *LOST, "connection_terminated")
LATE = (504, "connection", "upstream_timeout")
BAD_CERTIFICATE = (502, *LOST, "tls_certificate_error")
OK = b"HTTP/1.1 200 OK\r\n"


def sending(*pieces: bytes, reset: bool = False) -> Script:
    """A script that reads the request, sends this, and closes the connection."""

    def script(exchange: Exchange) -> None:
        exchange.read(None)
        for piece in pieces:
            exchange.send(piece)
        (exchange.reset if reset else exchange.close)()

    return script


NONSENSE = {
    "no HTTP": b"garbage\r\n\r\n",
    "binary": bytes(range(256)),
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "HTTP/2": b"HTTP/2 200 OK\r\nContent-Length: 0\r\n\r\n",
    "no colon": OK + b"nonsense\r\nContent-Length: 0\r\n\r\n",
    "blank in a name": OK + b"X A: 1\r\nContent-Length: 0\r\n\r\n",
    "blank before the colon": OK + b"Content-Length : 0\r\n\r\n",
    "folded field": OK + b"X-A: 1\r\n 2\r\nContent-Length: 0\r\n\r\n",
    "control character in a value": OK + b"X-A: 1\x002\r\nContent-Length: 0\r\n\r\n",
    "bare CR in a value": OK + b"X-A: 1\rX-B: 2\r\nContent-Length: 0\r\n\r\n",
    "length of letters": OK + b"Content-Length: ten\r\n\r\n",
    "signed length": OK + b"Content-Length: +2\r\n\r\nok",
    "two lengths": OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
    "length and chunks": OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "unknown coding": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "unknown coding and a body": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "coding that is not the last": OK + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "head too large": OK + b"X-A: " + b"a" * 17 * 1024 + b"\r\nContent-Length: 0\r\n\r\n",
    "head too large and a body": OK + b"X-A: " + b"a" * 17 * 1024 + b"\r\nContent-Length: 5\r\n\r\nhello",
    "too many fields": OK + b"X-A: a\r\n" * 3000 + b"Content-Length: 0\r\n\r\n",
    "head without an end": OK + b"X-A: " + b"a" * 128 * 1024,
    "switched protocols": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: foo\r\nConnection: upgrade\r\n\r\n",
    "too many interim responses": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 9 + OK + b"Content-Length: 0\r\n\r\n",
}
# Under trio an httpx transport speaks to the upstream. It joins folded lines, absorbs any number of interim responses,
# and has a limit of its own for the head, of 100 KiB.
LENIENT = {
    "folded field",
    "too many interim responses",
    "head too large",
    "head too large and a body",
    "too many fields",
}


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("nonsense", NONSENSE)
def test_answer_is_no_http(
    server: str, nonsense: str, proxy_server: ProxyServer, shared_upstream: ScriptedUpstream
) -> None:
    """An answer that is not well-formed HTTP/1.1 is a 502, and none of it reaches the caller."""
    shared_upstream.script(sending(NONSENSE[nonsense]))
    answer = ask(proxy_server(server).address, "crm/proxy/x")
    if server == "hypercorn-trio" and nonsense in LENIENT:
        assert (answer.status, answer.complete) == (200, True)
        return
    check_problem(answer, *GARBLED)
    assert len(shared_upstream.requests) == 1


@pytest.mark.parametrize("server", SERVERS)
def test_status_that_asgi_does_not_know(
    server: str, proxy_server: ProxyServer, shared_upstream: ScriptedUpstream
) -> None:
    """A status above 599 goes to the caller under WSGI; ASGI servers fail on one, so that it is a 502 there."""
    shared_upstream.answer(response(999, body=b"odd", reason=b"Odd"))
    answer = ask(proxy_server(server).address, "crm/proxy/x")
    if server in ASGI_SERVERS:
        check_problem(answer, *GARBLED)
    else:
        assert (answer.status, answer.reason, answer.body) == (999, b"Odd", b"odd")


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("sent", [b"", OK + b"X-A: "], ids=["nothing", "half a head"])
def test_connection_breaks_before_the_answer(
    server: str, reset: bool, sent: bytes, proxy_server: ProxyServer, shared_upstream: ScriptedUpstream
) -> None:
    """A connection that ends before the response head is a 502; a POST is not sent again."""
    shared_upstream.script(sending(sent, reset=reset))
    answer = ask(proxy_server(server).address, "crm/proxy/x", "POST", body=b"{}")
    check_problem(answer, *BROKEN)
    assert len(shared_upstream.requests) == 1


TRUNCATED = {
    "length": (OK + b"Content-Length: 100\r\n\r\n", b"x" * 10),
    "chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"a\r\n" + b"x" * 10 + b"\r\n"),
    "inside a chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"64\r\n" + b"x" * 10),
    "bad chunk size": (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"a\r\n" + b"x" * 10 + b"\r\n"),
}
BREAKS = {"bad chunk size": b"zz\r\n"}


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("framing", TRUNCATED)
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_answer_breaks_off(
    server: str, framing: str, reset: bool, proxy_server: ProxyServer, shared_upstream: ScriptedUpstream
) -> None:
    """A response that breaks off in its body never ends properly at the caller."""
    arrived = threading.Event()

    @shared_upstream.script
    def script(exchange: Exchange) -> None:
        exchange.send(b"".join(TRUNCATED[framing]))
        exchange.wait(arrived)
        exchange.send(BREAKS.get(framing, b""))
        (exchange.reset if reset else exchange.close)()

    with open_call(proxy_server(server).address, asked("crm/proxy/x")) as opened:
        assert opened.read(10) == b"x" * 10
        arrived.set()
        answer = opened.read_rest()
    check_clean(answer)
    assert answer.complete is False


@pytest.mark.parametrize("server", WSGI_SERVERS)
@pytest.mark.parametrize("framing", TRUNCATED)
def test_answer_breaks_off_before_its_first_byte_under_wsgi(
    server: str, framing: str, proxy_server: ProxyServer, shared_upstream: ScriptedUpstream
) -> None:
    """A response that breaks off between head and body is a clean 502."""
    shared_upstream.script(sending(TRUNCATED[framing][0]))
    check_problem(ask(proxy_server(server).address, "crm/proxy/x"), *BROKEN)


@pytest.mark.parametrize("server", FIVE)
def test_connect_takes_too_long(server: str, proxy_server: ProxyServer, stalled_port: int) -> None:
    """A connection attempt without an answer is a 504 after `Timeouts.connect`."""
    answer = ask(proxy_server(server).address, f"hasty/proxy/http://127.0.0.1:{stalled_port}/x")
    check_problem(answer, *LATE, "connection_timeout")


@pytest.mark.parametrize("server", FIVE)
def test_tls_handshake_takes_too_long(server: str, proxy_server: ProxyServer) -> None:
    """A handshake without an answer counts as connecting."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        answer = ask(proxy_server(server).address, f"hasty/proxy/https://127.0.0.1:{silent.getsockname()[1]}/x")
    check_problem(answer, *LATE, "connection_timeout")


@pytest.mark.parametrize("server", FIVE)
def test_head_takes_too_long(server: str, proxy_server: ProxyServer, shared_upstream: ScriptedUpstream) -> None:
    """No response head within `Timeouts.head` is a 504, and the upstream connection is closed."""
    closed: list[bool] = []
    shared_upstream.script(lambda exchange: closed.append(exchange.wait_closed(5)))
    check_problem(ask(proxy_server(server).address, "hasty/proxy/x"), *LATE, "http_response_timeout")
    shared_upstream.forget()
    assert closed == [True]


@pytest.mark.parametrize("server", FIVE)
def test_interim_responses_do_not_extend_the_deadline(
    server: str, proxy_server: ProxyServer, shared_upstream: ScriptedUpstream
) -> None:
    """Interim responses, and a head that trickles in, do not push `Timeouts.head` back."""

    @shared_upstream.script
    def trickle(exchange: Exchange) -> None:
        for _ in range(6):
            exchange.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
            if exchange.wait_closed(0.25):
                break
        exchange.send(OK + b"Content-Length: 0\r\n\r\n")

    check_problem(ask(proxy_server(server).address, "hasty/proxy/x"), *LATE, "http_response_timeout")


@pytest.mark.parametrize("server", FIVE)
def test_body_stands_still(server: str, proxy_server: ProxyServer, shared_upstream: ScriptedUpstream) -> None:
    """A response body that stands still for `Timeouts.idle` breaks the transfer off: nothing else can be said then."""

    @shared_upstream.script
    def script(exchange: Exchange) -> None:
        exchange.send(OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        assert exchange.wait_closed(5)
        exchange.ended = True

    with open_call(proxy_server(server).address, asked("hasty/proxy/x")) as opened:
        assert opened.read(5) == b"hello"
        assert opened.read_rest().complete is False


@pytest.mark.parametrize("server", ["gunicorn-gthread", "waitress"])
def test_body_never_begins_under_wsgi(
    server: str, proxy_server: ProxyServer, shared_upstream: ScriptedUpstream
) -> None:
    """Where nothing has been sent to the caller, a body that does not begin is a 504."""

    @shared_upstream.script
    def script(exchange: Exchange) -> None:
        exchange.send(OK + b"Transfer-Encoding: chunked\r\n\r\n")
        assert exchange.wait_closed(5)
        exchange.ended = True

    check_problem(ask(proxy_server(server).address, "hasty/proxy/x"), *LATE, "connection_read_timeout")


@pytest.mark.parametrize("server", FIVE)
def test_event_stream_may_stand_still(
    server: str, proxy_server: ProxyServer, shared_upstream: ScriptedUpstream
) -> None:
    """`Timeouts.idle` does not hold for an event stream, and each event arrives before the next one is sent."""

    @shared_upstream.script
    def script(exchange: Exchange) -> None:
        exchange.send(OK + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n7\r\ndata:1\n\r\n")
        assert not exchange.wait_closed(0.8)
        exchange.send(b"7\r\ndata:2\n\r\n0\r\n\r\n")

    with open_call(proxy_server(server).address, asked("hasty/proxy/x")) as opened:
        assert opened.read(7) == b"data:1\n"
        rest = opened.read_rest()
    assert (rest.body, rest.complete) == (b"data:2\n", True)


@pytest.fixture
def narrow_upstream() -> Iterator[ScriptedUpstream]:
    """An upstream whose sockets hold next to nothing, so that who sends to it soon stands still."""
    with ScriptedUpstream() as scripted:
        scripted._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        yield scripted


@pytest.mark.parametrize("server", FIVE)
def test_upload_stands_still(server: str, proxy_server: ProxyServer, narrow_upstream: ScriptedUpstream) -> None:
    """An upstream that takes nothing of the body for `Timeouts.idle` is a 504."""
    narrow_upstream.script(lambda exchange: exchange.wait(exchange.request._whole, 5))
    path = f"hasty/proxy/http://127.0.0.1:{narrow_upstream.address[1]}/x"
    answer = ask(proxy_server(server).address, path, "POST", body=b"x" * 4 * MIB)
    narrow_upstream._cancelled.set()
    check_problem(answer, *LATE, "connection_write_timeout")


@pytest.mark.parametrize("server", FIVE)
def test_pool_is_full(server: str, proxy_server: ProxyServer, shared_upstream: ScriptedUpstream) -> None:
    """A request for which no connection comes free is a 503. A sync worker never has two requests."""

    @shared_upstream.script
    def script(exchange: Exchange) -> None:
        exchange.send(OK + b"Content-Type: text/event-stream\r\n\r\ndata:1\n")
        assert exchange.wait_closed(5)
        exchange.ended = True

    address = proxy_server(server).address
    with open_call(address, asked("root/proxy/x")) as first:
        assert first.read(7) == b"data:1\n"
        answer = ask(address, "hasty/proxy/x")
    check_problem(answer, 503, "concurrency", "lock_timeout", "connection_limit_reached")
    assert answer.header(b"retry-after") == b"1"
    assert len(shared_upstream.requests) == 1


def _context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    return context


CERTIFICATES: dict[str, Callable[[trustme.CA], trustme.LeafCert]] = {
    "of nobody we know": lambda ca: trustme.CA().issue_cert("127.0.0.1"),
    "for another name": lambda ca: ca.issue_cert("other.test", "127.0.0.2"),
    "expired": lambda ca: ca.issue_cert("127.0.0.1", not_after=datetime.now(UTC) - timedelta(days=1)),
}


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("certificate", CERTIFICATES)
def test_certificate_is_refused(server: str, certificate: str, proxy_server: ProxyServer, ca: trustme.CA) -> None:
    """A certificate that is not valid for the name is a 502, and no request is sent."""
    with ScriptedUpstream(_context(CERTIFICATES[certificate](ca))) as upstream:
        answer = ask(proxy_server(server).address, f"open/proxy/https://127.0.0.1:{upstream.address[1]}/x")
        assert upstream.requests == []
    check_problem(answer, *BAD_CERTIFICATE)


@pytest.mark.parametrize("server", SERVERS)
def test_certificate_is_good(server: str, proxy_server: ProxyServer, tls_upstream: ScriptedUpstream) -> None:
    """With a certificate for its name from an authority that is trusted, an https upstream is called."""
    port = tls_upstream.address[1]
    for start in ("https://127.0.0.1", "https://localhost", "https:/localhost"):
        assert ask(proxy_server(server).address, f"open/proxy/{start}:{port}//x?y=%2f").body == b"ok"
    assert [(seen.target, seen.header(b"host")) for seen in tls_upstream.requests] == [
        (b"//x?y=%2f", b"%b:%d" % (host, port)) for host in (b"127.0.0.1", b"localhost", b"localhost")
    ]


@pytest.mark.parametrize("server", FOUR)
def test_upstream_speaks_no_tls(server: str, proxy_server: ProxyServer) -> None:
    """An https URL that leads to something else than TLS is a 502."""
    with socket.create_server(("127.0.0.1", 0)) as plain:
        path = f"open/proxy/https://127.0.0.1:{plain.getsockname()[1]}/x"
        with open_call(proxy_server(server).address, asked(path)) as opened:
            peer, _ = plain.accept()
            with peer:
                peer.recv(4096)
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                check_problem(opened.read_rest(), 502, *LOST, "tls_protocol_error")


@pytest.mark.parametrize("server", SERVERS)
def test_idempotent_request_survives_a_stale_connection(
    server: str, proxy_server: ProxyServer, shared_upstream: ScriptedUpstream
) -> None:
    """A connection that was closed while it was idle costs a GET nothing."""
    shared_upstream.answer(response(body=b"1"))
    address = proxy_server(server).address
    assert ask(address, "crm/proxy/x").body == b"1"
    with shared_upstream._changed:  # Some may be on their way out.
        for number in shared_upstream._live:
            shared_upstream._hang_up(number)
    assert call(address, asked("crm/proxy/y")).body == b"1"
    assert [seen.target for seen in shared_upstream.requests] == [b"/base/x", b"/base/y"]
