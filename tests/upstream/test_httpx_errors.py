"""httpx and httpx2 transports as upstream: what goes wrong, and the transport for trio."""

import socket
import ssl
import threading
import time
from contextlib import suppress
from typing import Any

import pytest

from proxy_middleware import errors
from proxy_middleware.models import EgressPolicy, Limits, Timeouts
from proxy_middleware.upstream.httpx import default_async_transport
from tests.upstream.httpx_driver import Driver, forward_to
from tests.upstreams import Exchange, ScriptedUpstream, response

LOOPBACK = EgressPolicy(allow=["127.0.0.0/8"])

# What goes wrong.

CAUSES: dict[str, type[Exception]] = {
    "ConnectTimeout": errors.ConnectTimeout,
    "ReadTimeout": errors.HeadTimeout,
    "WriteTimeout": errors.WriteTimeout,
    "PoolTimeout": errors.PoolExhausted,
    "ConnectError": errors.ConnectFailed,
    "ReadError": errors.ConnectionTerminated,
    "WriteError": errors.ConnectionTerminated,
    "CloseError": errors.UpstreamError,
    "RemoteProtocolError": errors.ConnectionTerminated,
    "LocalProtocolError": errors.InvalidRequest,
    "ProxyError": errors.UpstreamError,
    "UnsupportedProtocol": errors.UpstreamError,
    "InvalidURL": errors.InvalidTarget,
}


@pytest.mark.parametrize("name", CAUSES)
def test_errors_are_told_by_their_names(driver: Driver, name: str) -> None:
    """Each error of the library becomes one of ours, with nothing of the library's own behind it."""

    def handler(_: Any) -> Any:
        raise getattr(driver.library, name)("secret")

    with pytest.raises(errors.ProxyError) as caught:
        driver.send(forward_to(80), driver.mock(handler))
    assert type(caught.value) is CAUSES[name]
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"", errors.ConnectionTerminated),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n", errors.ConnectionTerminated),
        (b"SSH-2.0-OpenSSH\r\n\r\n", errors.ProtocolViolation),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", errors.ProtocolViolation),
    ],
)
def test_bad_heads(driver: Driver, upstream: ScriptedUpstream, sent: bytes, expected: type[Exception]) -> None:
    """An end before the head, garbage, and a switch of protocols are told apart."""

    @upstream.script
    def script(exchange: Exchange) -> None:
        exchange.send(sent)
        exchange.close()

    with pytest.raises(expected):
        driver.send(forward_to(upstream))


def test_a_reset_before_and_after_the_head(driver: Driver, upstream: ScriptedUpstream) -> None:
    """A reset is a closed connection before the head, a truncated response after it."""
    upstream.script(lambda exchange: exchange.reset())
    with pytest.raises(errors.ConnectionTerminated):
        driver.send(forward_to(upstream))
    read = threading.Event()

    @upstream.script
    def script(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
        exchange.wait(read)
        exchange.reset()

    got = driver.send(forward_to(upstream))
    assert got.read() == b"abc"
    read.set()
    with pytest.raises(errors.ResponseTruncated):
        got.read()


def test_connections_that_fail(driver: Driver, closed_port: int, stalled_port: int) -> None:
    """A refused connection and one that nobody answers are told apart."""
    with pytest.raises(errors.ConnectFailed):
        driver.send(forward_to(closed_port))
    with pytest.raises(errors.ConnectTimeout):
        driver.send(forward_to(stalled_port, timeouts=Timeouts(5, 0.2, 5, 5)))


def test_names_that_do_not_resolve(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up that fails, and a name that cannot be looked up, are DNS failures."""
    with pytest.raises(errors.DNSFailure):
        driver.send(forward_to(80, host="a" * 64 + ".example"))

    def fail(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(errors.DNSFailure):
        driver.send(forward_to(80, host="nowhere.example"))


def test_certificates(driver: Driver, tls_upstream: ScriptedUpstream, trusting_context: ssl.SSLContext) -> None:
    """A certificate that is trusted serves; one that is not is refused; no TLS at all is a TLS failure."""
    forward = forward_to(tls_upstream, scheme="https")
    assert driver.send(forward, driver.upstream(verify=trusting_context)).read_all() == b"ok"
    with pytest.raises(errors.CertificateRefused):
        driver.send(forward, driver.upstream(verify=ssl.create_default_context()))
    with socket.create_server(("127.0.0.1", 0)) as plain:
        answering = threading.Thread(target=answer_in_clear, args=(plain,))
        answering.start()
        with pytest.raises(errors.TLSFailure):
            driver.send(forward_to(plain.getsockname()[1], scheme="https"))
        answering.join()


def answer_in_clear(listener: socket.socket) -> None:
    """Answers a handshake with HTTP."""
    sock, _ = listener.accept()
    with sock:
        sock.recv(65536)
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        sock.settimeout(5)
        with suppress(ConnectionResetError):
            while sock.recv(65536):
                pass


def test_time_outs(driver: Driver, upstream: ScriptedUpstream) -> None:
    """No head in time, a body that stands still, one that is not taken, and no free connection are told apart."""
    never = threading.Event()
    upstream.route(b"/silent", lambda exchange: exchange.wait(never))
    short = Timeouts(0.2, 5, 0.2, 0.2)
    with pytest.raises(errors.HeadTimeout):
        driver.send(forward_to(upstream, b"/silent", timeouts=short))
    endless = driver.body(*[b"x" * 2**20] * 64)
    with pytest.raises(errors.WriteTimeout):
        driver.send(forward_to(upstream, b"/silent", method=b"POST", body=endless, timeouts=short))

    @upstream.script
    def script(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
        exchange.wait_closed(5)

    single = driver.upstream(limits=driver.library.Limits(max_connections=1))
    got = driver.send(forward_to(upstream, timeouts=short), single)
    assert got.read() == b"abc"
    with pytest.raises(errors.PoolExhausted):
        driver.send(forward_to(upstream, timeouts=short), single)
    with pytest.raises(errors.ReadTimeout):
        got.read()


def test_a_head_may_take_longer_than_a_body_may_stand_still(driver: Driver, upstream: ScriptedUpstream) -> None:
    """`Timeouts.head` holds for the head even where `Timeouts.idle` is shorter."""

    @upstream.script
    def script(exchange: Exchange) -> None:
        time.sleep(0.4)
        exchange.send(response(body=b"ok"))

    assert driver.send(forward_to(upstream, timeouts=Timeouts(5, 5, 5, 0.1))).read_all() == b"ok"


@pytest.mark.parametrize("piece", [b"H", b"HTTP/1.1 102 Processing\r\n\r\n"])
def test_the_whole_head_has_one_deadline(driver: Driver, upstream: ScriptedUpstream, piece: bytes) -> None:
    """A head in small pieces, or after many interim ones, is late all the same; not so for blocking transports."""
    if driver.blocking:
        pytest.skip("a blocking transport cannot be interrupted")

    @upstream.script
    def script(exchange: Exchange) -> None:
        while not exchange.wait_closed(0.05):
            exchange.send(piece)

    with pytest.raises(errors.HeadTimeout):
        driver.send(forward_to(upstream, timeouts=Timeouts(5, 5, 0.3, 5)))


# The transport made here.


def own_upstream(driver: Driver, egress: EgressPolicy = LOOPBACK, tls: ssl.SSLContext | None = None) -> Any:
    """The upstream under trio."""
    driver.opened.append(default_async_transport(Limits(), egress, tls))
    assert isinstance(driver.opened[-1], driver.library.AsyncHTTPTransport)
    return driver.upstream(driver.opened[-1])


def test_addresses_are_checked(own_driver: Driver, upstream: ScriptedUpstream) -> None:
    """An address that is not allowed is refused, by itself and behind a name, and nothing is dialled."""
    for host in ("127.0.0.1", "localhost", "::1"):
        with pytest.raises(errors.AddressRefused):
            own_driver.send(forward_to(upstream, host=host), own_upstream(own_driver, EgressPolicy()))
    assert upstream.connections == 0


def test_the_address_checked_is_the_address_dialled(
    own_driver: Driver, upstream: ScriptedUpstream, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name is looked up once for a connection, and of its addresses those allowed are tried in turn."""
    asked, port = [], upstream.address[1]

    def look_up(host: Any, *_: Any, **__: Any) -> Any:
        asked.append(host)
        addresses = ["10.0.0.1", "127.0.0.2", "127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    through = own_upstream(own_driver)
    assert own_driver.send(forward_to(upstream, host="api.example"), through).read_all() == b"ok"
    assert (len(asked), upstream.connections) == (1, 1)


def test_tls_goes_by_the_name(
    own_driver: Driver,
    tls_upstream: ScriptedUpstream,
    trusting_context: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The certificate is checked for the name, not for the address that was dialled."""
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda _, *rest, **kw: real("127.0.0.1", *rest, **kw))
    through = own_upstream(own_driver, tls=trusting_context)
    assert own_driver.send(forward_to(tls_upstream, scheme="https", host="localhost"), through).read_all() == b"ok"
    with pytest.raises(errors.CertificateRefused):
        own_driver.send(forward_to(tls_upstream, scheme="https", host="api.example"), through)


def test_the_own_transport_is_closed(own_driver: Driver, upstream: ScriptedUpstream) -> None:
    """Closing it ends idle connections; it fails as others do, and its look-up is in time, too."""
    through, left = own_upstream(own_driver), threading.Event()

    @upstream.script
    def script(exchange: Exchange) -> None:
        exchange.send(response(body=b"ok"))
        if exchange.wait_closed(5):
            left.set()

    assert own_driver.send(forward_to(upstream), through).read_all() == b"ok"
    own_driver.call(own_driver.opened[-1].aclose)
    assert left.wait(5)


def test_the_own_transport_fails_as_others_do(own_driver: Driver, closed_port: int, stalled_port: int) -> None:
    """Refused connections and slow ones are told apart."""
    with pytest.raises(errors.ConnectFailed):
        own_driver.send(forward_to(closed_port), own_upstream(own_driver))
    with pytest.raises(errors.ConnectTimeout):
        own_driver.send(forward_to(stalled_port, timeouts=Timeouts(5, 0.2, 5, 5)), own_upstream(own_driver))
