"""The asyncio engine against scripted upstreams: opening connections, TLS, and the egress policy."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trustme

from proxy_middleware._target import Origin
from proxy_middleware.errors import (
    AddressRefused,
    CertificateRefused,
    ConnectFailed,
    DNSFailure,
    ResponseTruncated,
    TLSFailure,
)
from proxy_middleware.models import EgressPolicy, Timeouts
from proxy_middleware.upstream.asyncio import AsyncioUpstream
from tests.upstream.blocking import BIG, request
from tests.upstream.nonblocking import LOOPS, FakeBody, MakeEngine, making_engines, pool_of, read_all, taken
from tests.upstreams import WAIT, Exchange, ScriptedUpstream, response

pytestmark = pytest.mark.anyio


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Every event loop that servers use."""
    return request.param


@pytest.fixture
async def make_engine() -> AsyncIterator[MakeEngine]:
    """Makes engines that are closed in the end."""
    async with making_engines() as make:
        yield make


@pytest.fixture
async def engine(make_engine: MakeEngine) -> AsyncioUpstream:
    """An engine with the usual limits."""
    return make_engine()


def _has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


def named(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    """Makes crm.example resolve to these IPv4 addresses and ports."""
    real = socket.getaddrinfo

    def look_up(host: Any, *arguments: Any, **options: Any) -> Any:
        if host == "crm.example" and not options.get("flags"):
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]
        return real(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


class TestDialling:
    async def test_refused(self, engine: AsyncioUpstream, closed_port: int) -> None:
        """A port that is closed is an error, and gives its place back."""
        with pytest.raises(ConnectFailed):
            await engine.send(request(closed_port))
        assert not taken(pool_of(engine))

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    async def test_egress(self, make_engine: MakeEngine, upstream: ScriptedUpstream, host: str) -> None:
        """An address that the policy refuses is not dialled, however it is named."""
        engine = make_engine(egress=EgressPolicy())
        with pytest.raises(AddressRefused):
            await engine.send(request(upstream, origin=Origin("http", host, upstream.address[1])))
        assert upstream.connections == 0
        assert not taken(pool_of(engine))

    async def test_refused_address_is_left_out(
        self, make_engine: MakeEngine, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of several addresses only those are dialled that the policy allows."""
        with ScriptedUpstream() as other:
            named(monkeypatch, ("127.0.0.1", other.address[1]), ("127.0.0.2", other.address[1]), upstream.address)
            engine = make_engine(egress=EgressPolicy(allow=("127.0.0.0/8",), deny=("127.0.0.2/32",)))
            answer = await engine.send(request(0, origin=Origin("http", "crm.example", 80)))
            assert answer.status == 200
            assert (other.connections, upstream.connections) == (1, 0)
            await engine.aclose()

    async def test_name(self, engine: AsyncioUpstream, upstream: ScriptedUpstream) -> None:
        """A name is looked up."""
        origin = Origin("http", "localhost", upstream.address[1])
        assert (await engine.send(request(upstream, origin=origin))).status == 200

    async def test_several_addresses(
        self, engine: AsyncioUpstream, upstream: ScriptedUpstream, closed_port: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An address that refuses leaves the next to be tried."""
        named(monkeypatch, ("127.0.0.1", closed_port), upstream.address)
        assert (await engine.send(request(0, origin=Origin("http", "crm.example", 80)))).status == 200

    async def test_share_of_time(
        self, engine: AsyncioUpstream, upstream: ScriptedUpstream, stalled_port: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An address that does not answer leaves time for the next."""
        named(monkeypatch, ("127.0.0.1", stalled_port), upstream.address)
        ask = request(0, origin=Origin("http", "crm.example", 80), timeouts=Timeouts(connect=2))
        assert (await engine.send(ask)).status == 200

    async def test_all_refused(
        self, engine: AsyncioUpstream, closed_port: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where every address refuses, so does the upstream."""
        named(monkeypatch, ("127.0.0.1", closed_port), ("127.0.0.2", closed_port))
        with pytest.raises(ConnectFailed):
            await engine.send(request(0, origin=Origin("http", "crm.example", 80)))

    @pytest.mark.parametrize("host", ["a" * 64 + ".example", "crm.invalid"], ids=["impossible", "unknown"])
    async def test_no_address(self, engine: AsyncioUpstream, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
        """A name that does not resolve, or cannot be looked up at all, is a DNS failure."""

        def fail(*_: Any, **__: Any) -> Any:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")

        monkeypatch.setattr(socket, "getaddrinfo", fail)
        with pytest.raises(DNSFailure):
            await engine.send(request(0, origin=Origin("http", host, 80)))
        assert not taken(pool_of(engine))

    @pytest.mark.skipif(not _has_ipv6(), reason="the machine has no ::1")
    async def test_ipv6(self, make_engine: MakeEngine) -> None:
        """An IPv6 literal is dialled, and its Host field has brackets."""
        engine = make_engine(egress=EgressPolicy(allow=("::1/128",)))
        heads = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(response(body=b"ok", fields=((b"Connection", b"close"),)))
            await writer.drain()
            writer.close()
            await writer.wait_closed()

        async with await asyncio.start_server(serve, "::1", 0) as server:
            origin = Origin("http", "::1", server.sockets[0].getsockname()[1])
            fields = [(b"host", origin.authority)]
            assert await read_all(await engine.send(request(0, origin=origin, fields=fields))) == b"ok"
        assert heads == [b"GET / HTTP/1.1\r\nhost: [::1]:%d\r\n\r\n" % origin.port]


class TestTLS:
    async def test_reuse(
        self, make_engine: MakeEngine, tls_upstream: ScriptedUpstream, trusting_context: ssl.SSLContext
    ) -> None:
        """TLS connections carry bodies of any size both ways, and are reused."""
        engine = make_engine(trusting_context)
        tls_upstream.script(lambda exchange: exchange.send(response(body=exchange.body)))
        for pieces in ([b"small"], BIG, [b"small"]):
            answer = await engine.send(request(tls_upstream, b"PUT", body=FakeBody(*pieces)))
            assert await read_all(answer) == b"".join(pieces)
        assert tls_upstream.connections == 1

    async def test_server_name(self, make_engine: MakeEngine, ca: trustme.CA, trusting_context: ssl.SSLContext) -> None:
        """The upstream is told which name is wanted."""
        names: list[str | None] = []
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        ca.issue_cert("localhost").configure_cert(context)
        context.sni_callback = lambda _, name, __: names.append(name)
        with ScriptedUpstream(context) as secure:
            engine = make_engine(trusting_context)
            origin = Origin("https", "localhost", secure.address[1])
            assert (await engine.send(request(secure, origin=origin))).status == 200
            await engine.aclose()
        assert names == ["localhost"]

    async def test_unknown_authority(self, engine: AsyncioUpstream, tls_upstream: ScriptedUpstream) -> None:
        """A certificate of an unknown authority is refused."""
        with pytest.raises(CertificateRefused):
            await engine.send(request(tls_upstream))
        assert not tls_upstream.requests
        assert not taken(pool_of(engine))

    async def test_wrong_name(self, make_engine: MakeEngine, ca: trustme.CA, trusting_context: ssl.SSLContext) -> None:
        """A certificate for another name is refused."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        ca.issue_cert("other.example").configure_cert(context)
        with ScriptedUpstream(context) as other:
            with pytest.raises(CertificateRefused):
                await make_engine(trusting_context).send(request(other))
            assert not other.requests

    async def test_no_tls(self, engine: AsyncioUpstream) -> None:
        """An upstream that does not speak TLS is an error."""

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(65536)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            writer.close()
            with contextlib.suppress(ConnectionError):  # the engine hangs up at once
                await writer.wait_closed()

        async with await asyncio.start_server(talk, "127.0.0.1", 0) as plain:
            origin = Origin("https", "127.0.0.1", plain.sockets[0].getsockname()[1])
            with pytest.raises(TLSFailure):
                await engine.send(request(0, origin=origin))
        assert not taken(pool_of(engine))

    @pytest.mark.parametrize("start", [b"HTTP/1.1 200 OK\r\n\r\nbody", response(body=b"body")[:-1]])
    @pytest.mark.parametrize("proper", [True, False], ids=["close_notify", "cut"])
    async def test_end_of_tls(
        self,
        make_engine: MakeEngine,
        tls_upstream: ScriptedUpstream,
        trusting_context: ssl.SSLContext,
        start: bytes,
        proper: bool,
    ) -> None:
        """A body that the connection's end delimits is whole only if TLS was ended, too; one with a length never is."""

        @tls_upstream.script
        def _(exchange: Exchange) -> None:
            exchange.send(start)
            if not proper:
                socket.socket.shutdown(exchange.sock, socket.SHUT_WR)
            exchange.close()

        answer = await make_engine(trusting_context).send(request(tls_upstream))
        if proper and b"Content-Length" not in start:
            assert await asyncio.wait_for(read_all(answer), WAIT) == b"body"
        else:
            with pytest.raises(ResponseTruncated):
                await asyncio.wait_for(read_all(answer), WAIT)
