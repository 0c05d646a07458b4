"""Secrets are planted as credentials of every kind and as the caller's token, and looked for wherever anybody looks."""

import asyncio
import base64
import io
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from traceback import TracebackException
from typing import Any

import pytest

from proxy_middleware import (
    ASGIProxyMiddleware,
    Connection,
    Credential,
    CredentialProvider,
    EgressPolicy,
    Proxy,
    ProxyRequest,
    ResponseHead,
    StaticCredentials,
    StaticResolver,
    Timeouts,
    UpstreamRequest,
    WSGIProxyMiddleware,
    bearer_tokens,
)
from tests.callers import NoResponse, open_call
from tests.host_plugins import CALLER_TOKEN, UPSTREAM_SECRET, FailingProvider, FailingRefresh
from tests.integration.asking import SERVERS, ask, asked
from tests.integration.conftest import ProxyServer
from tests.upstreams import Exchange, Script, ScriptedUpstream, response

KINDS = {
    "bearer": Credential.bearer(UPSTREAM_SECRET),
    "basic": Credential.basic("user", UPSTREAM_SECRET),
    "header": Credential.header("X-Api-Key", UPSTREAM_SECRET),
    "query": Credential.query("key", UPSTREAM_SECRET),
    "cookie": Credential.cookie("session", UPSTREAM_SECRET),
    "signed": Credential.signed(lambda request: [("X-Signature", UPSTREAM_SECRET)]),
}
KINDS["combined"] = Credential.combine(*KINDS.values(), expires_at=1e12)
# What Basic makes of it.
ENCODED = base64.b64encode(f"user:{UPSTREAM_SECRET}".encode()).decode()
CANARIES = (UPSTREAM_SECRET, ENCODED)


def check(text: str, *further: str) -> None:
    """Asserts that no secret is in the text."""
    found = [canary for canary in (*CANARIES, *further) if canary in text]
    assert not found, f"{found} in {text[max(0, text.find(found[0]) - 600) :][:1200]}"


def _breaking(*, body: bool) -> Script:
    """A script that breaks off before the head, or in the body."""

    def script(exchange: Exchange) -> None:
        exchange.read(None)
        if body:
            exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome")
        exchange.close()

    return script


def _silent(exchange: Exchange) -> None:
    exchange.wait_closed(5)
    exchange.ended = True


ROUTES: dict[bytes, Script | bytes] = {
    b"/ok": response(body=b"ok"),
    b"/401": response(401, body=b"no"),
    b"/garbage": b"garbage\r\n\r\n",
    b"/101": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    b"/999": response(999),
    b"/broken-head": _breaking(body=False),
    b"/broken-body": _breaking(body=True),
    b"/silent": _silent,
}
PATHS = [
    "ok",
    "401",
    "garbage",
    "101",
    "999",
    "broken-head",
    "broken-body",
    "a/../b",
    "%2e%2e/",
    "http://user@evil.test/",
    "https://evil.test/",
]


def _play(upstream: ScriptedUpstream) -> None:
    for path, script in ROUTES.items():
        upstream.route(path, _garbled(script) if isinstance(script, bytes) else script)


def _garbled(answer: bytes) -> Script:
    def script(exchange: Exchange) -> None:
        exchange.read(None)
        exchange.send(answer)
        exchange.close()

    return script


@pytest.mark.parametrize("server", SERVERS)
def test_answers_and_server_logs(server: str, proxy_server: ProxyServer, shared_upstream: ScriptedUpstream) -> None:
    """No answer and nothing that a server prints shows a credential or the caller's token, whatever goes wrong."""
    _play(shared_upstream)
    running = proxy_server(server)
    for connection in ("root", "basic", "header", "query", "cookie", "expiring", "refresh-fails"):
        for path in PATHS:
            with suppress(NoResponse):
                _check_answer(ask(running.address, f"{connection}/proxy/{path}", "PUT", body=b"{}"))
    for path in (
        "provider-fails/proxy/x",
        "resolver-fails/proxy/x",
        "authenticator-fails/proxy/x",
        "closed/proxy/x",
        "nodns/proxy/x",
        "private/proxy/x",
        "hasty/proxy/silent",
        "nobody/proxy/x",
    ):
        _check_answer(ask(running.address, path))
    count = len(shared_upstream.requests)
    with open_call(running.address, asked("query/proxy/silent")) as leaving:
        shared_upstream.wait_for_requests(count + 1)
        leaving.abandon()
    check(running.log(), CALLER_TOKEN)


def _check_answer(answer: Any) -> None:
    check(repr(answer), CALLER_TOKEN)


@contextmanager
def _collected_logs(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Asserts that nothing logged in here, by anybody and at any level, holds a secret."""
    with caplog.at_level(logging.DEBUG):
        yield
    for record in caplog.records:
        check(f"{record.getMessage()} {record.args!r} {vars(record)!r}", CALLER_TOKEN)
    check(caplog.text, CALLER_TOKEN)


def _settings(upstream: str, **more: Any) -> dict[str, Any]:
    credentials: dict[str, Credential | CredentialProvider] = {
        **KINDS,
        "provider-fails": FailingProvider(),
        "refresh-fails": FailingRefresh(),
    }
    return {
        "resolver": StaticResolver([Connection(identifier, upstream) for identifier in credentials]),
        "credentials": StaticCredentials(credentials),
        "authenticate": bearer_tokens({CALLER_TOKEN: "alice"}),
        "egress": EgressPolicy(allow=("127.0.0.0/8",)),
        "timeouts": Timeouts(head=0.3),
        **more,
    }


Outcome = tuple[str, BaseException | None]


class Doors:
    """Calls through either door without a server, and what came out: the answer as text, and what was raised."""

    def __init__(self, upstream: str, **more: Any) -> None:
        self._settings = _settings(upstream, **more)

    def asgi(self, path: str, *, send_fails: bool = False, cancel: threading.Event | None = None) -> Outcome:
        """One call, which may be cancelled when an event is set."""
        return asyncio.run(self._asgi(path, send_fails, cancel), debug=True)

    async def _asgi(self, path: str, send_fails: bool, cancel: threading.Event | None) -> Outcome:
        answer: list[Any] = []
        door = ASGIProxyMiddleware(_no_host, **self._settings)

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"{}", "more_body": False}

        async def send(message: Any) -> None:
            answer.append(message)
            if send_fails:
                raise OSError("the caller left")

        async def call_door() -> BaseException | None:
            try:
                await door(_scope(path), receive, send)
            except BaseException as raised:
                return raised
            return None

        task = asyncio.ensure_future(call_door())
        if cancel is not None:
            assert await asyncio.to_thread(cancel.wait, 5)
            task.cancel()
        raised = await task
        await door.proxy.aclose()
        return repr(answer), raised

    def wsgi(self, path: str, *, body: Any = None, start_fails: bool = False) -> Outcome:
        """One call, with an input that may raise something."""
        answer: list[Any] = []

        def start_response(*start: Any) -> Any:
            answer.append(start)
            if start_fails:
                raise OSError("the caller left")

        door = WSGIProxyMiddleware(_no_host, **self._settings)
        try:
            pieces = door(_environ(path, body or io.BytesIO(b"{}")), start_response)
            try:
                answer.extend(pieces)
            finally:
                getattr(pieces, "close", lambda: None)()
        except BaseException as raised:
            return repr(answer), raised
        finally:
            door.proxy.close()
        return repr(answer), None


def _no_host(*_: Any) -> Any:
    raise AssertionError("not the host's")


def _scope(path: str) -> dict[str, Any]:
    return {
        "type": "http",
        "http_version": "1.1",
        "method": "PUT",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"authorization", f"Bearer {CALLER_TOKEN}".encode()), (b"content-length", b"2")],
        "client": ("127.0.0.1", 1),
    }


def _environ(path: str, body: Any) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "PUT",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "RAW_URI": path,
        "QUERY_STRING": "",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_LENGTH": "2",
        "HTTP_AUTHORIZATION": f"Bearer {CALLER_TOKEN}",
        "wsgi.input": body,
    }


@pytest.mark.parametrize("door", ["asgi", "wsgi"])
@pytest.mark.parametrize("kind", [*KINDS, "provider-fails", "refresh-fails"])
def test_logs_at_debug_level(
    door: str, kind: str, upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even at DEBUG, from any logger, does a record hold a credential or the caller's token."""
    _play(upstream)
    doors = Doors(upstream.url)
    with _collected_logs(caplog):
        for path in PATHS:
            answer, raised = getattr(doors, door)(f"/connections/{kind}/proxy/{path}")
            check(answer, CALLER_TOKEN)
            _check_traceback(raised)


def _check_traceback(raised: BaseException | None) -> None:
    """Asserts that a traceback shows no secret, and none of ours even where local variables are shown.

    The caller's token is then in the server's own frames anyway: it is among the fields that came.
    """
    if raised is None:
        return
    check("".join(TracebackException.from_exception(raised).format()), CALLER_TOKEN)
    check("".join(TracebackException.from_exception(raised, capture_locals=True).format()))
    check(repr(raised) + str(raised) + repr(raised.__context__) + repr(raised.__cause__), CALLER_TOKEN)


@pytest.mark.parametrize("door", ["asgi", "wsgi"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ["ok", "broken-body"])
def test_tracebacks_out_of_the_doors(door: str, kind: str, path: str, upstream: ScriptedUpstream) -> None:
    """What a door raises shows no credential, not even where a reporter adds the local variables of each frame."""
    _play(upstream)
    doors = Doors(upstream.url)
    target = f"/connections/{kind}/proxy/{path}"
    if path == "ok":
        _, raised = doors.asgi(target, send_fails=True) if door == "asgi" else doors.wsgi(target, start_fails=True)
    else:
        _, raised = getattr(doors, door)(target)
    assert raised is not None
    _check_traceback(raised)


@pytest.mark.parametrize("kind", KINDS)
def test_traceback_of_a_cancelled_call(kind: str, upstream: ScriptedUpstream) -> None:
    """A call that the server, or a time-out of the host's, cancels while the upstream is silent shows no credential."""
    asked_for = threading.Event()

    @upstream.script
    def script(exchange: Exchange) -> None:
        asked_for.set()
        exchange.wait_closed(5)
        exchange.ended = True

    _, raised = Doors(upstream.url, timeouts=Timeouts()).asgi(f"/connections/{kind}/proxy/x", cancel=asked_for)
    assert isinstance(raised, asyncio.CancelledError)
    _check_traceback(raised)


class _Aborting(io.BytesIO):
    """An input during whose reading the server aborts its worker, as gunicorn does after its time-out."""

    def read(self, size: int | None = -1, /) -> bytes:
        raise SystemExit(1)


@pytest.mark.parametrize("kind", KINDS)
def test_traceback_of_an_aborted_worker(kind: str, upstream: ScriptedUpstream) -> None:
    """What is raised into the middle of a call, as gunicorn raises SystemExit, shows no credential on its way out."""
    _, raised = Doors(upstream.url).wsgi(f"/connections/{kind}/proxy/x", body=_Aborting())
    assert isinstance(raised, SystemExit)
    _check_traceback(raised)


PUBLIC: dict[str, Callable[[], object]] = {
    "StaticCredentials": lambda: StaticCredentials(KINDS),
    "StaticResolver": lambda: StaticResolver([Connection("a", "https://a.test")]),
    "Connection": lambda: Connection(
        "a", "https://a.test", headers={"X-Key": UPSTREAM_SECRET}, attributes={"key": UPSTREAM_SECRET}
    ),
    "ProxyRequest": lambda: ProxyRequest(
        "GET", "a", b"/x", [(b"authorization", UPSTREAM_SECRET.encode())], None, None, {"headers": UPSTREAM_SECRET}
    ),
    "UpstreamRequest": lambda: UpstreamRequest(
        "GET", f"https://a.test/?key={UPSTREAM_SECRET}", [(b"x", UPSTREAM_SECRET.encode())], UPSTREAM_SECRET.encode()
    ),
    "ResponseHead": lambda: ResponseHead(200, [(b"set-cookie", UPSTREAM_SECRET.encode())]),
    "Proxy": lambda: Proxy(**_settings("https://a.test")),
    "ASGIProxyMiddleware": lambda: ASGIProxyMiddleware(_no_host, **_settings("https://a.test")),
    "WSGIProxyMiddleware": lambda: WSGIProxyMiddleware(_no_host, **_settings("https://a.test")),
    "bearer_tokens": lambda: bearer_tokens({CALLER_TOKEN: "alice"}),
    **{kind: partial(KINDS.__getitem__, kind) for kind in KINDS},
}


@pytest.mark.parametrize("name", PUBLIC)
def test_representations(name: str) -> None:
    """No public value shows a secret that it holds, however it is turned into text."""
    value = PUBLIC[name]()
    for text in (repr(value), str(value), f"{value}", repr([value]), repr({"a": value})):
        check(text, CALLER_TOKEN)
