"""What is not the proxy's reaches the host application as if there were no proxy; and lifespan, which is both's."""

import asyncio
import copy
from collections.abc import Callable, Coroutine, Iterable, Iterator, MutableMapping
from queue import Queue
from typing import Any

import pytest

from proxy_middleware import (
    ASGIProxyMiddleware,
    Connection,
    Credential,
    EgressPolicy,
    StaticCredentials,
    StaticResolver,
    WSGIProxyMiddleware,
    anyone,
)
from tests.callers import call, request
from tests.integration.asking import SERVERS
from tests.integration.conftest import ProxyServer
from tests.servers import serve_asgi
from tests.upstreams import Exchange, ScriptedUpstream, response

Message = MutableMapping[str, Any]
ASGIApp = Callable[[Any, Any, Any], Coroutine[Any, Any, None]]

NOT_OURS = [
    "/",
    "/connections",
    "/connections/",
    "/connections/crm",
    "/connections/crm/",
    "/connections/crm/proxyfoo",
    "/connections/crm/proxy.x",
    "/connections/crm/Proxy/x",
    "/connections/crm/x/proxy/y",
    "/connections//proxy/x",
    "/Connections/crm/proxy/x",
    "/connection/crm/proxy/x",
    "/a/connections/crm/proxy/x",
    "//connections/crm/proxy/x",
    "/%63onnections/crm/proxy/x",
    "/connections/crm/prox%79/x",
    "/connections%2Fcrm/proxy/x",
    "/connections/crm%2Fproxy/x",
]


def _settings(upstream: str = "http://upstream.test") -> dict[str, Any]:
    return {
        "resolver": StaticResolver([Connection("crm", upstream)]),
        "credentials": StaticCredentials({"crm": Credential.bearer("secret")}),
        "authenticate": anyone,
        "egress": EgressPolicy(allow=("127.0.0.0/8",)),
    }


def _scope(path: str, kind: str = "http", **more: Any) -> Message:
    return {
        "type": kind,
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path.replace("%63", "c").replace("%79", "y").replace("%2F", "/"),
        "raw_path": path.encode(),
        "query_string": b"x=%zz",
        "root_path": "",
        "headers": [(b"host", b"host.test"), (b"content-length", b"2")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        **more,
    }


async def _forbidden_receive() -> Message:
    raise AssertionError("the body is the host's to read")


async def _forbidden_send(message: Message) -> None:
    raise AssertionError("the answer is the host's")


def _handed_to_asgi_host(scope: Message) -> None:
    seen: list[tuple[Any, Any, Any]] = []

    async def host(*objects: Any) -> None:
        seen.append(objects)

    before = copy.deepcopy(scope)
    asyncio.run(ASGIProxyMiddleware(host, **_settings())(scope, _forbidden_receive, _forbidden_send))
    ((seen_scope, receive, send),) = seen
    assert (seen_scope is scope, receive is _forbidden_receive, send is _forbidden_send) == (True, True, True)
    assert scope == before


@pytest.mark.parametrize("path", NOT_OURS)
def test_asgi_host_gets_the_very_same_objects(path: str) -> None:
    """Scope, receive and send are the server's own, the scope is unchanged, the body unread."""
    _handed_to_asgi_host(_scope(path))


@pytest.mark.parametrize("kind", ["websocket", "some-extension"])
def test_only_http_scopes_are_looked_at(kind: str) -> None:
    """A websocket, or whatever else may come, is the host's even below the proxy's prefix."""
    _handed_to_asgi_host(_scope("/connections/crm/proxy/x", kind))


def test_asgi_scope_without_a_raw_path() -> None:
    """A server that gives no raw path, which is optional, changes nothing for the host."""
    scope = _scope("/connections/crm")
    del scope["raw_path"]
    _handed_to_asgi_host(scope)


class _UnreadInput:
    def __getattr__(self, name: str) -> Any:
        raise AssertionError("the body is the host's to read")


def _environ(path: str, **more: Any) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": path.replace("%63", "c").replace("%79", "y").replace("%2F", "/"),
        "RAW_URI": path + "?x=%zz",
        "QUERY_STRING": "x=%zz",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_LENGTH": "2",
        "HTTP_HOST": "host.test",
        "wsgi.input": _UnreadInput(),
        **more,
    }


# What a server shows decoded only cannot be told from what was not encoded.
@pytest.mark.parametrize(
    ("path", "raw"), [*((path, True) for path in NOT_OURS), *((path, False) for path in NOT_OURS if "%" not in path)]
)
def test_wsgi_host_gets_the_very_same_objects(path: str, raw: bool) -> None:
    """Environ and start_response are the server's own, the environ is unchanged, and so is what the host returns."""
    seen: list[tuple[Any, Any]] = []
    answer: Iterable[bytes] = [b"host"]

    def host(*objects: Any) -> Iterable[bytes]:
        seen.append(objects)
        return answer

    def start_response(*_: Any) -> Any:
        raise AssertionError("the answer is the host's")

    environ = _environ(path)
    if not raw:
        del environ["RAW_URI"]
    before = dict(environ)
    assert WSGIProxyMiddleware(host, **_settings())(environ, start_response) is answer
    ((seen_environ, seen_start),) = seen
    assert (seen_environ is environ, seen_start is start_response, environ == before) == (True, True, True)


def test_what_the_host_raises_goes_through() -> None:
    """An error of the host is the host's."""
    error = RuntimeError("host")

    async def asgi_host(*_: Any) -> None:
        raise error

    def wsgi_host(*_: Any) -> Iterable[bytes]:
        raise error

    with pytest.raises(RuntimeError) as raised:
        asyncio.run(ASGIProxyMiddleware(asgi_host, **_settings())(_scope("/"), _forbidden_receive, _forbidden_send))
    assert raised.value is error
    with pytest.raises(RuntimeError) as raised:
        WSGIProxyMiddleware(wsgi_host, **_settings())(_environ("/"), lambda *_: None)
    assert raised.value is error


@pytest.mark.parametrize("server", SERVERS)
def test_host_on_real_servers(server: str, proxy_server: ProxyServer, shared_upstream: ScriptedUpstream) -> None:
    """Behind every server the host answers its own paths, body included, and those that only look like ours."""
    address = proxy_server(server).address
    assert call(address, request("POST", "/host?x=1", body=b"\x00body")).body == b"POST /host\n\x00body"
    for path in NOT_OURS:
        if path.startswith("//") and server in ("waitress", "werkzeug"):
            continue  # they merge leading slashes
        answer = call(address, request("GET", path))
        assert (answer.status, answer.body) == (404, b"host"), path
    assert shared_upstream.requests == []


class Lifespan:
    """A server's side of the lifespan protocol."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self._messages: Iterator[Message] = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive(self) -> Message:
        """Startup first, then shutdown."""
        return next(self._messages)

    async def send(self, message: Message) -> None:
        """Remember it."""
        self.sent.append(message)

    def run(self, door: ASGIApp, scope: Message | None = None) -> list[str]:
        """The types of the messages that came from the app."""
        asyncio.run(door(scope or {"type": "lifespan", "asgi": {"version": "3.0"}}, self.receive, self.send))
        return [message["type"] for message in self.sent]


COMPLETE = ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def _willing(scope: Message, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        for phase in ("startup", "shutdown"):
            message = await receive()
            assert message == {"type": f"lifespan.{phase}"}
            await send({"type": f"lifespan.{phase}.complete", "extra": phase})


async def _refusing(scope: Message, receive: Any, send: Any) -> None:
    raise ValueError(f"only http, not {scope['type']}")


async def _refusing_late(scope: Message, receive: Any, send: Any) -> None:
    await receive()
    raise ValueError("only http")


async def _ignoring(scope: Message, receive: Any, send: Any) -> None:
    pass


def test_lifespan_is_passed_on() -> None:
    """The host gets the server's own scope, its state included, and its messages go out as they are."""
    seen: list[Message] = []
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}

    async def host(scope: Message, receive: Any, send: Any) -> None:
        seen.append(scope)
        await _willing(scope, receive, send)

    lifespan = Lifespan()
    assert lifespan.run(ASGIProxyMiddleware(host, **_settings()), scope) == COMPLETE
    assert [message["extra"] for message in lifespan.sent] == ["startup", "shutdown"]
    assert seen[0] is scope


@pytest.mark.parametrize("host", [_refusing, _refusing_late, _ignoring])
def test_lifespan_is_answered_where_the_host_refuses(host: ASGIApp) -> None:
    """A host that knows no lifespan, as Django's, does not keep the proxy from being told of the shutdown."""
    assert Lifespan().run(ASGIProxyMiddleware(host, **_settings())) == COMPLETE


def test_failed_startup_of_the_host_is_passed_on() -> None:
    """A host that says it cannot start is not answered for."""

    async def host(scope: Message, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})
        raise RuntimeError("no database")

    lifespan = Lifespan()
    with pytest.raises(RuntimeError, match="no database"):
        lifespan.run(ASGIProxyMiddleware(host, **_settings()))
    assert lifespan.sent == [{"type": "lifespan.startup.failed", "message": "no database"}]


async def _called(door: ASGIApp) -> bytes:
    """The body of the answer to one request through the proxy."""
    body = b""

    async def receive() -> Message:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: Message) -> None:
        nonlocal body
        body += message.get("body", b"")

    await door(_scope("/connections/crm/proxy/x"), receive, send)
    return body


@pytest.mark.parametrize("host", [_willing, _refusing])
def test_pools_are_closed_at_shutdown(host: ASGIApp, upstream: ScriptedUpstream) -> None:
    """The upstream's idle connections are closed before the shutdown is said to be complete."""
    closed: Queue[bool] = Queue()

    @upstream.script
    def script(exchange: Exchange) -> None:
        exchange.read(None)
        exchange.send(response(body=b"ok"))
        closed.put(exchange.wait_closed(5))
        exchange.ended = True

    class Watching(Lifespan):
        async def receive(self) -> Message:
            if self.sent:
                assert await _called(door) == b"ok"
                assert closed.empty()
            return await super().receive()

        async def send(self, message: Message) -> None:
            if self.sent:
                assert await asyncio.to_thread(closed.get, timeout=5)
            await super().send(message)

    door = ASGIProxyMiddleware(host, **_settings(upstream.url))
    assert Watching().run(door) == COMPLETE


def test_works_without_lifespan(upstream: ScriptedUpstream) -> None:
    """Where no lifespan comes, as in a sub-mounted app, requests are served all the same."""

    async def use() -> bytes:
        body = await _called(door)
        await door.proxy.aclose()
        return body

    door = ASGIProxyMiddleware(_ignoring, **_settings(upstream.url))
    assert asyncio.run(use()) == b"ok"


def test_works_again_after_a_shutdown(upstream: ScriptedUpstream) -> None:
    """A second event loop, as test clients start one for each test, finds no trace of the first."""
    door = ASGIProxyMiddleware(_willing, **_settings(upstream.url))
    for _ in range(2):
        with serve_asgi(door) as address:
            assert call(address, request("GET", "/connections/crm/proxy/x")).body == b"ok"
    assert len(upstream.requests) == 2
