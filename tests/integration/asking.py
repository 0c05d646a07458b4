"""What the tests of this folder ask, and how they look at the proxy's own answers."""

import json
from collections.abc import Sequence

from tests.callers import RawResponse, call, request
from tests.host_plugins import CALLER_TOKEN, UPSTREAM_SECRET
from tests.servers import ASGI_SERVERS, WSGI_SERVERS
from tests.wire import Address

SERVERS = (*ASGI_SERVERS, *WSGI_SERVERS)
# One of each kind of interface and parser, for what takes time.
FOUR = ("uvicorn-httptools", "granian", "gunicorn-gthread", "waitress")
# And the one on which httpx speaks to the upstream.
FIVE = (*FOUR, "hypercorn-trio")
TOKEN = ("Authorization", f"Bearer {CALLER_TOKEN}")


def asked(path: str, method: str = "GET", fields: Sequence[tuple[str, str]] = (), body: bytes | None = None) -> bytes:
    """The bytes of a request below `/connections/`, with the caller's token."""
    return request(method, f"/connections/{path}", [TOKEN, *fields], body)


def ask(
    address: Address,
    path: str,
    method: str = "GET",
    fields: Sequence[tuple[str, str]] = (),
    body: bytes | None = None,
) -> RawResponse:
    """The answer to a request below `/connections/`, with the caller's token."""
    return call(address, asked(path, method, fields, body))


def check_problem(answer: RawResponse, status: int, kind: str, key: str, proxy_status: str) -> None:
    """Asserts that this is one of the proxy's own answers, that it is this one, and that it shows no secret."""
    assert (answer.status, answer.complete) == (status, True), answer
    problem = json.loads(answer.body)
    assert list(problem) == ["type", "title", "status", "detail", "key", "message", "data"]
    assert (problem["type"], problem["key"], problem["status"]) == (kind, key, status), problem
    assert (problem["data"], problem["message"]) == ({}, problem["detail"])
    assert all(isinstance(problem[name], str) and problem[name] for name in ("title", "detail"))
    assert answer.header(b"proxy-status") == b"proxy_middleware; error=" + proxy_status.encode()
    assert answer.header(b"content-type") == b"application/problem+json"
    check_clean(answer)


def check_clean(answer: RawResponse) -> None:
    """Asserts that neither the credential nor the caller's token is anywhere in the answer."""
    shown = answer.reason + b"\n".join(name + b": " + value for name, value in answer.fields) + answer.body
    assert UPSTREAM_SECRET.encode() not in shown
    assert CALLER_TOKEN.encode() not in shown
