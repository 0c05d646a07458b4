"""Names and odd spellings of hosts, through both doors and over real sockets: who is looked up, and who is dialled."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from proxy_middleware import (
    Connection,
    Credential,
    EgressPolicy,
    Proxy,
    RefreshFailed,
    StaticCredentials,
    StaticResolver,
    anyone,
)
from proxy_middleware.credentials import OAuth2
from tests.callers import call
from tests.credentials.oauth2 import CONNECTION
from tests.credentials.proxied import wsgi_host
from tests.in_process import host
from tests.servers import serve_asgi, serve_wsgi
from tests.token_endpoint import TokenEndpoint
from tests.upstreams import ScriptedUpstream, answering, response
from tests.wire import Address

ONLY = EgressPolicy(allow=["127.0.0.1/32"])
Served = Callable[..., Any]


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    """An upstream that closes each connection, so that each request has to dial."""
    with ScriptedUpstream() as running:
        running.script(answering(response(fields=((b"Connection", b"close"),))))
        yield running


@pytest.fixture(params=["asgi", "wsgi"])
def served(request: pytest.FixtureRequest) -> Served:
    """Serves a proxy for one connection on a real server, in either door."""

    @contextmanager
    def serve(base_url: str, egress: EgressPolicy = ONLY, **options: Any) -> Iterator[Address]:
        proxy = Proxy(
            resolver=StaticResolver([Connection("crm", base_url, **options)]),
            credentials=StaticCredentials({"crm": Credential.bearer("token")}),
            authenticate=anyone,
            egress=egress,
        )
        door = serve_asgi(proxy.asgi(host)) if request.param == "asgi" else serve_wsgi(proxy.wsgi(wsgi_host))
        with door as address:
            yield address
        proxy.close()

    return serve


def status(address: Address, target: bytes = b"/x") -> int:
    """What a request is answered with."""
    data = b"GET /connections/crm/proxy%b HTTP/1.1\r\nHost: host.example\r\nConnection: close\r\n\r\n" % target
    return call(address, data).status


class Names:
    """A resolver that answers each question with the next of its answers, and the last one again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> None:
        self.asked: list[str] = []
        real = socket.getaddrinfo

        def look_up(name: Any, port: Any, *arguments: Any, **options: Any) -> Any:
            text = name.decode() if isinstance(name, bytes) else name
            numeric = options.get("flags", 0) & socket.AI_NUMERICHOST
            if text is None or numeric or not text.endswith((".example", ".internal")):
                return real(name, port, *arguments, **options)
            found = answers[min(len(self.asked), len(answers) - 1)]
            self.asked.append(text)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, int(port))) for each in found]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)


def test_no_second_look_up(served: Served, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that answers differently the second time is looked up once per dial, and each answer is checked."""
    names = Names(monkeypatch, ["127.0.0.1"], ["127.0.0.2"])
    port = upstream.address[1]
    with socket.create_server(("127.0.0.2", port)) as internal, served(f"http://crm.example:{port}") as address:
        internal.setblocking(False)
        assert status(address) == 200
        assert names.asked == ["crm.example"]
        assert status(address) == 403
        assert names.asked == ["crm.example"] * 2
        with pytest.raises(BlockingIOError):
            internal.accept()
    assert upstream.connections == 1


def test_mixed_answers(served: Served, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an answer that mixes good and bad addresses only the good ones are dialled, wherever the bad ones stand."""
    Names(monkeypatch, ["127.0.0.2", "127.0.0.1", "169.254.169.254"])
    port = upstream.address[1]
    with socket.create_server(("127.0.0.2", port)) as internal, served(f"http://crm.example:{port}") as address:
        internal.setblocking(False)
        assert status(address) == 200
        with pytest.raises(BlockingIOError):
            internal.accept()


@pytest.mark.parametrize("answer", [["127.0.0.2"], ["10.0.0.1", "169.254.169.254"], ["0.0.0.0"]])
def test_refused_answers(
    served: Served, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch, answer: list[str]
) -> None:
    """A name that has refused addresses only is a 403, and nobody is dialled."""
    Names(monkeypatch, answer)
    with served(f"http://crm.example:{upstream.address[1]}") as address:
        assert status(address) == 403
    assert upstream.connections == 0


def test_metadata_name(served: Served, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """A metadata service's name is refused where its address is allowed as part of a network, and not exactly."""
    Names(monkeypatch, ["127.0.0.1"])
    url = f"http://metadata.google.internal:{upstream.address[1]}"
    with served(url, EgressPolicy(allow=["127.0.0.0/8"])) as address:
        assert status(address) == 403
    assert upstream.connections == 0
    with served(url) as address:
        assert status(address) == 200


MALFORMED = [
    b"2130706433",
    b"0x7f000001",
    b"0X7F000001",
    b"0x7f.0.0.1",
    b"0177.0.0.1",
    b"017700000001",
    b"127.1",
    b"127.0.1",
    b"127.0.0.1.",
    b"localhost.",
    b"127.0.0.0x1",
    b"%31%32%37.0.0.1",
    b"127%2e0%2e0%2e1",
    b"127.0.0.1%00",
    b"%EF%BC%91%EF%BC%92%EF%BC%97.0.0.1",
    b"127%E3%80%820.0.1",
    b"[::1%25lo]",
    b"[127.0.0.1]",
    b"user@127.0.0.1",
]


def test_malformed_full_urls(served: Served, upstream: ScriptedUpstream) -> None:
    """A full URL whose host is spelled oddly is a 400, though its plain form is allowed."""
    port = upstream.address[1]
    with served(upstream.url, allowed_origins=["*", f"http://localhost:{port}"]) as address:
        assert [name for name in MALFORMED if status(address, b"/http://%b:%d/x" % (name, port)) != 400] == []
        assert upstream.connections == 0
        assert status(address, b"/HTTP://127.0.0.1:%d/x" % port) == 200


INTERNAL = [b"[::ffff:127.0.0.1]", b"[::FFFF:7F00:1]", b"[64:ff9b::7f00:1]", b"[::127.0.0.1]", b"[::1]", b"127.0.0.2"]


def test_internal_full_urls(served: Served, upstream: ScriptedUpstream) -> None:
    """A full URL whose host is another form of an internal address is a 403, though every origin is allowed."""
    with served(upstream.url, EgressPolicy(deny=["127.0.0.0/8"]), allowed_origins=["*"]) as address:
        port = upstream.address[1]
        assert [name for name in INTERNAL if status(address, b"/http://%b:%d/x" % (name, port)) != 403] == []
    assert upstream.connections == 0


@pytest.mark.parametrize("name", [name for name in MALFORMED if b"%" not in name])
def test_base_urls(name: bytes) -> None:
    """A base URL whose host is spelled oddly makes no connection."""
    with pytest.raises(ValueError, match="a base URL"):
        Connection("crm", f"http://{name.decode()}/")


@pytest.mark.parametrize(
    "name",
    [
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "localhost",
        "127\u30020\u30020\u30021",
        "\uff11\uff12\uff17.0.0.1",
    ],
)
def test_spellings_of_token_endpoints(name: str) -> None:
    """However the host of a token endpoint is spelled, it is the address that is judged."""
    with TokenEndpoint() as endpoint:
        try:
            oauth2 = OAuth2(endpoint.token_url.replace("127.0.0.1", name), "c", "s", grant="client_credentials")
        except ValueError:
            return
        with pytest.raises(RefreshFailed):
            oauth2.obtain(CONNECTION)
        assert endpoint.state() == {}


def test_token_endpoint_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token endpoint's name is looked up once per call, and what it answers is checked each time."""
    names = Names(monkeypatch, ["127.0.0.1"], ["127.0.0.2"])
    with TokenEndpoint() as endpoint:
        url = endpoint.token_url.replace("127.0.0.1", "auth.example")
        robots = [OAuth2(url, "client", "secret", grant="client_credentials", egress=ONLY) for _ in range(2)]
        robots[0].obtain(CONNECTION)
        assert names.asked == ["auth.example"]
        with pytest.raises(RefreshFailed):
            robots[1].obtain(CONNECTION)
        assert (names.asked, endpoint.state()["token calls"]) == (["auth.example"] * 2, 1)
