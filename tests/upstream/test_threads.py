"""The blocking engine against scripted upstreams: its pool, opening connections, TLS, forks."""

import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import trustme

from proxy_middleware._target import Origin
from proxy_middleware.errors import (
    AddressRefused,
    CertificateRefused,
    ConnectFailed,
    ConnectTimeout,
    DNSFailure,
    PoolExhausted,
    ResponseTruncated,
    TLSFailure,
)
from proxy_middleware.models import EgressPolicy, Timeouts
from proxy_middleware.upstream.threads import ThreadsUpstream
from tests.upstream.blocking import (
    BIG,
    UNFINISHED,
    FakeBody,
    MakeEngine,
    doing,
    making_engines,
    never,
    read_all,
    request,
    sending,
    until,
    waiting,
)
from tests.upstreams import WAIT, Exchange, ScriptedUpstream, response


@pytest.fixture
def make_engine() -> Iterator[MakeEngine]:
    """Makes engines that are closed in the end."""
    with making_engines() as make:
        yield make


@pytest.fixture
def engine(make_engine: MakeEngine) -> ThreadsUpstream:
    """An engine with the usual limits."""
    return make_engine()


class TestPool:
    def test_keep_alive(self, engine: ThreadsUpstream, upstream: ScriptedUpstream) -> None:
        """One request after the other goes over one connection."""
        for _ in range(3):
            assert read_all(engine.send(request(upstream))) == b"ok"
        assert upstream.connections == 1

    def test_last_in_first_out(self, engine: ThreadsUpstream, upstream: ScriptedUpstream) -> None:
        """The connection that was used last is reused first."""
        finish = [threading.Event(), threading.Event()]

        def half(exchange: Exchange) -> None:
            exchange.send(UNFINISHED)
            exchange.wait(finish[exchange.connection_number - 1])
            exchange.send(b"cd")

        upstream.route(b"/half", half)
        answers = [engine.send(request(upstream, target=b"/half")) for _ in finish]
        for event, answer in reversed(list(zip(finish, answers, strict=True))):
            event.set()
            assert read_all(answer) == b"abcd"
        engine.send(request(upstream))
        assert upstream.requests[-1].connection_number == 1

    @pytest.mark.parametrize("limits", [{"connections_per_origin": 1}, {"connections": 1}])
    def test_full_pool(self, make_engine: MakeEngine, upstream: ScriptedUpstream, limits: dict[str, int]) -> None:
        """Who gets no connection within the time-out gets an error, and the next one is served."""
        engine = make_engine(**limits)
        upstream.script(lambda exchange: exchange.send(UNFINISHED))
        held = engine.send(request(upstream))
        with pytest.raises(PoolExhausted):
            engine.send(request(upstream, timeouts=Timeouts(pool=0.05)))
        held.close()
        engine.send(request(upstream)).close()

    def test_total_limit_evicts_idle(self, make_engine: MakeEngine, upstream: ScriptedUpstream) -> None:
        """An idle connection gives way to one for another origin."""
        engine = make_engine(connections=1)
        with ScriptedUpstream() as other:
            for one in (upstream, other, upstream):
                assert engine.send(request(one)).status == 200
        assert upstream.connections == 2

    def test_fair_waiting(self, make_engine: MakeEngine, upstream: ScriptedUpstream) -> None:
        """Those who wait for a connection get it in the order in which they came."""
        engine = make_engine(connections_per_origin=1)
        finish = threading.Event()
        upstream.route(b"/held", doing(waiting(finish), sending(response())))
        with ThreadPoolExecutor(6) as threads:
            first = threads.submit(engine.send, request(upstream, target=b"/held"))
            upstream.wait_for_requests(1)
            others = []
            for number in range(5):
                others.append(threads.submit(engine.send, request(upstream, target=b"/%d" % number)))
                until(lambda: len(engine._pool._places._wanted) == len(others))
            finish.set()
            assert {future.result(WAIT).status for future in (first, *others)} == {200}
        assert [each.target for each in upstream.requests] == [b"/held", *(b"/%d" % number for number in range(5))]
        assert upstream.connections == 1

    def test_many_threads(self, make_engine: MakeEngine, upstream: ScriptedUpstream) -> None:
        """Every thread gets its own answer, over no more connections than allowed."""
        engine = make_engine(connections_per_origin=4)
        upstream.script(lambda exchange: exchange.send(response(body=exchange.request.target)))

        def ask(number: int) -> bool:
            return read_all(engine.send(request(upstream, target=b"/%d" % number))) == b"/%d" % number

        with ThreadPoolExecutor(16) as threads:
            assert all(threads.map(ask, range(400)))
        assert upstream.connections <= 4

    def test_keepalive_expires(self, make_engine: MakeEngine, upstream: ScriptedUpstream) -> None:
        """A connection that was idle for too long is not reused."""
        engine = make_engine(keepalive=0.05)
        engine.send(request(upstream))
        time.sleep(0.06)
        engine.send(request(upstream))
        assert upstream.connections == 2

    def test_expired_do_not_linger(self, make_engine: MakeEngine, upstream: ScriptedUpstream) -> None:
        """A connection that was idle for too long is closed when another is released."""
        engine = make_engine(keepalive=0.05)
        closed = threading.Event()

        @upstream.script
        def _(exchange: Exchange) -> None:
            exchange.send(response())
            if exchange.wait_closed(WAIT):
                closed.set()

        engine.send(request(upstream))
        time.sleep(0.06)
        with ScriptedUpstream() as other:
            engine.send(request(other))
            assert closed.wait(WAIT)
            engine.close()

    @pytest.mark.parametrize("ending", [lambda e: e.send(response(body=b"poison")), Exchange.close, Exchange.reset])
    def test_idle_connection_stirs(
        self, engine: ThreadsUpstream, upstream: ScriptedUpstream, ending: Callable[[Exchange], None]
    ) -> None:
        """An idle connection that received bytes, or its end, is never used again, not even for a POST."""
        go, done = threading.Event(), threading.Event()

        def script(exchange: Exchange) -> None:
            exchange.send(response())
            exchange.wait(go)
            ending(exchange)
            done.set()

        upstream.route(b"/first", script)
        engine.send(request(upstream, target=b"/first"))
        go.set()
        assert done.wait(WAIT)
        answer = engine.send(request(upstream, b"POST"))
        assert (read_all(answer), answer.retried) == (b"ok", False)
        assert upstream.connections == 2

    def test_close(self, engine: ThreadsUpstream, upstream: ScriptedUpstream) -> None:
        """Closing the engine breaks a response off visibly, even one that the connection's end delimits."""
        upstream.script(doing(sending(b"HTTP/1.1 200 OK\r\n\r\nab"), never))
        answer = engine.send(request(upstream))
        assert answer.read() == b"ab"
        with ThreadPoolExecutor(1) as threads:
            reading = threads.submit(answer.read)
            engine.close()
            with pytest.raises(ResponseTruncated):
                reading.result(WAIT)


class TestDialling:
    def test_refused(self, engine: ThreadsUpstream, closed_port: int) -> None:
        """A port that is closed is an error."""
        with pytest.raises(ConnectFailed):
            engine.send(request(closed_port))

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    def test_egress(self, make_engine: MakeEngine, upstream: ScriptedUpstream, host: str) -> None:
        """An address that the policy refuses is not dialled."""
        origin = Origin("http", host, upstream.address[1])
        with pytest.raises(AddressRefused):
            make_engine(egress=EgressPolicy()).send(request(upstream, origin=origin))
        assert upstream.connections == 0

    def test_name(self, engine: ThreadsUpstream, upstream: ScriptedUpstream) -> None:
        """A name is looked up."""
        assert engine.send(request(upstream, origin=Origin("http", "localhost", upstream.address[1]))).status == 200

    def test_impossible_name(self, engine: ThreadsUpstream) -> None:
        """A name that cannot be looked up at all is a DNS failure."""
        with pytest.raises(DNSFailure):
            engine.send(request(0, origin=Origin("http", "a" * 64 + ".example", 80)))

    def test_unknown_name(self, engine: ThreadsUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
        """A name that does not resolve is a DNS failure."""

        def fail(*_: Any, **__: Any) -> Any:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")

        monkeypatch.setattr(socket, "getaddrinfo", fail)
        with pytest.raises(DNSFailure):
            engine.send(request(0, origin=Origin("http", "crm.example", 80)))

    def test_hanging_look_ups(self, engine: ThreadsUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
        """Look-ups that hang time out, and no more than 32 threads hang with them."""
        answer, real = threading.Event(), socket.getaddrinfo

        def hang(host: str, port: int, *, type: int, flags: int) -> Any:  # noqa: A002
            if not flags:
                answer.wait(WAIT)
            return real(host if flags else "127.0.0.1", port, type=type, flags=flags)

        monkeypatch.setattr(socket, "getaddrinfo", hang)

        def hanging() -> list[threading.Thread]:
            return [thread for thread in threading.enumerate() if thread.name == "proxy-lookup"]

        def ask(number: int) -> None:
            origin = Origin("http", f"crm-{number}.example", 80)
            with pytest.raises(ConnectTimeout):
                engine.send(request(0, origin=origin, timeouts=Timeouts(connect=0.1)))

        with ThreadPoolExecutor(40) as threads:
            list(threads.map(ask, range(40)))
        assert len(hanging()) == 32
        answer.set()
        until(lambda: not hanging())

    def test_share_of_time(
        self, engine: ThreadsUpstream, upstream: ScriptedUpstream, stalled_port: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An address that does not answer leaves time for the next."""
        infos = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
            for port in (stalled_port, upstream.address[1])
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: infos)
        assert engine.send(request(upstream, timeouts=Timeouts(connect=1))).status == 200

    def test_connect_timeout(self, engine: ThreadsUpstream, stalled_port: int) -> None:
        """A connection that nobody takes is an error, and gives its place back."""
        for _ in range(2):
            with pytest.raises(ConnectTimeout):
                engine.send(request(stalled_port, timeouts=Timeouts(connect=0.1)))
        assert not engine._pool._places._taken

    def test_handshake_timeout(self, engine: ThreadsUpstream) -> None:
        """A TLS handshake that nobody answers is an error."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            origin = Origin("https", "127.0.0.1", silent.getsockname()[1])
            with pytest.raises(ConnectTimeout):
                engine.send(request(0, origin=origin, timeouts=Timeouts(connect=0.1)))


class TestTLS:
    def test_reuse(
        self, make_engine: MakeEngine, tls_upstream: ScriptedUpstream, trusting_context: ssl.SSLContext
    ) -> None:
        """TLS connections carry bodies of any size both ways, and are reused."""
        engine = make_engine(trusting_context)
        tls_upstream.script(lambda exchange: exchange.send(response(body=exchange.body)))
        for pieces in ([b"small"], BIG, [b"small"]):
            answer = engine.send(request(tls_upstream, b"PUT", body=FakeBody(*pieces)))
            assert read_all(answer) == b"".join(pieces)
        assert tls_upstream.connections == 1

    def test_unknown_authority(self, engine: ThreadsUpstream, tls_upstream: ScriptedUpstream) -> None:
        """A certificate of an unknown authority is refused."""
        with pytest.raises(CertificateRefused):
            engine.send(request(tls_upstream))
        assert not tls_upstream.requests

    def test_wrong_name(self, make_engine: MakeEngine, ca: trustme.CA, trusting_context: ssl.SSLContext) -> None:
        """A certificate for another name is refused."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        ca.issue_cert("other.example").configure_cert(context)
        with ScriptedUpstream(context) as other, pytest.raises(CertificateRefused):
            make_engine(trusting_context).send(request(other))

    def test_no_tls(self, engine: ThreadsUpstream) -> None:
        """An upstream that does not speak TLS is an error."""

        def talk(listener: socket.socket) -> None:
            with listener.accept()[0] as sock:
                sock.recv(65536)
                sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        with socket.create_server(("127.0.0.1", 0)) as plain, ThreadPoolExecutor(1) as threads:
            talking = threads.submit(talk, plain)
            with pytest.raises(TLSFailure):
                engine.send(request(0, origin=Origin("https", "127.0.0.1", plain.getsockname()[1])))
            talking.result(WAIT)

    @pytest.mark.parametrize("proper", [True, False])
    def test_end_of_tls(
        self, make_engine: MakeEngine, tls_upstream: ScriptedUpstream, trusting_context: ssl.SSLContext, proper: bool
    ) -> None:
        """A body that the connection's end delimits is whole only if TLS was ended, too."""

        @tls_upstream.script
        def _(exchange: Exchange) -> None:
            exchange.send(b"HTTP/1.1 200 OK\r\n\r\nbody")
            if not proper:
                socket.socket.shutdown(exchange.sock, socket.SHUT_WR)
            exchange.close()

        answer = make_engine(trusting_context).send(request(tls_upstream))
        if proper:
            assert read_all(answer) == b"body"
        else:
            with pytest.raises(ResponseTruncated):
                read_all(answer)


# From Python 3.12 on, forking beside threads is warned of; servers do it all the same.
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
class TestFork:
    def test_child_has_its_own_connections(
        self, make_engine: MakeEngine, tls_upstream: ScriptedUpstream, trusting_context: ssl.SSLContext
    ) -> None:
        """A child shares no connection with its parent, nor a lock; the parent's connection, TLS and all, lives on."""
        engine = make_engine(trusting_context)
        tls_upstream.script(lambda exchange: exchange.send(response(body=exchange.request.target)))
        engine.send(request(tls_upstream, target=b"/parent"))
        locked, release = threading.Event(), threading.Event()

        def hold() -> None:
            with engine._pool._lock:
                locked.set()
                release.wait(WAIT)

        holder = threading.Thread(target=hold)
        holder.start()
        locked.wait(WAIT)
        child = os.fork()
        if not child:
            try:
                body = read_all(engine.send(request(tls_upstream, target=b"/child")))
                os._exit(0 if body == b"/child" else 1)
            finally:
                os._exit(2)
        release.set()
        holder.join(WAIT)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert read_all(engine.send(request(tls_upstream, target=b"/parent"))) == b"/parent"
        numbers = {each.target: each.connection_number for each in tls_upstream.requests}
        assert numbers == {b"/parent": 1, b"/child": 2}

    def test_response_does_not_outlive_a_fork(self, engine: ThreadsUpstream, upstream: ScriptedUpstream) -> None:
        """What the parent was reading breaks off in the child, and only there."""
        finish = threading.Event()
        upstream.script(doing(sending(UNFINISHED), waiting(finish), sending(b"cd")))
        answer = engine.send(request(upstream))
        assert answer.read() == b"ab"
        child = os.fork()
        if not child:
            try:
                answer.read()
            except ResponseTruncated:
                os._exit(0)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        finish.set()
        assert read_all(answer) == b"cd"
