"""Credentials out of what was written for httpx or httpx2."""

import hashlib
from collections.abc import Callable, Generator
from typing import Any

import httpx
import httpx2
import pytest

from proxy_middleware.credentials.httpx_auth import from_httpx_auth
from proxy_middleware.errors import InternalError
from tests.credentials.proxied import forwarded, proxied, received
from tests.upstreams import ScriptedUpstream

LIBRARIES = [httpx, httpx2]
each_library = pytest.mark.parametrize("library", LIBRARIES, ids=["httpx", "httpx2"])


def key_of(library: Any, **attributes: Any) -> Any:
    """An auth of this library that adds the library's name, and the SHA-256 of a body that it asked for."""

    class KeyAuth(library.Auth):  # type: ignore[misc]
        requires_request_body = attributes.get("requires_request_body", False)
        requires_response_body = attributes.get("requires_response_body", False)

        def auth_flow(self, request: Any) -> Generator[Any, Any, None]:
            assert isinstance(request, library.Request)
            request.headers["X-Key"] = library.__name__
            if self.requires_request_body:
                request.headers["X-Digest"] = hashlib.sha256(request.content).hexdigest()
            yield request

    return KeyAuth()


@each_library
def test_basic(library: Any) -> None:
    """The library's own basic authentication."""
    sent, _ = forwarded(from_httpx_auth(library.BasicAuth("user", "pass")), "GET", b"/")
    assert sent.values(b"authorization") == [b"Basic dXNlcjpwYXNz"]


def test_pair() -> None:
    """A pair is a user and a password."""
    sent, _ = forwarded(from_httpx_auth(("user", "pass")), "GET", b"/")
    assert sent.values(b"authorization") == [b"Basic dXNlcjpwYXNz"]


@each_library
def test_subclass(library: Any) -> None:
    """An auth gets a request of its own library, and replaces what the caller sent of the name."""
    sent, read = forwarded(from_httpx_auth(key_of(library)), "PUT", b"/", (b"x-key", b"theirs"), body=b"content")
    assert sent.values(b"x-key") == [library.__name__.encode()]
    assert not read


@each_library
@pytest.mark.parametrize("body", [b"content", b""])
def test_body(library: Any, body: bytes) -> None:
    """An auth that says so sees the whole body."""
    sent, _ = forwarded(from_httpx_auth(key_of(library, requires_request_body=True)), "PUT", b"/", body=body)
    assert sent.values(b"x-digest") == [hashlib.sha256(body).hexdigest().encode()]


def test_function() -> None:
    """A function from request to request sees method, URL and fields as they are."""
    seen: list[httpx.Request] = []

    def auth(request: httpx.Request) -> httpx.Request:
        seen.append(request)
        return httpx.Request("GET", request.url, headers={**request.headers, "X-Key": "k"}, stream=request.stream)

    target, fields = b"/a%2Fb?x=1&x=2&y", [(b"x-two", b"1"), (b"x-two", b"2")]
    sent, _ = forwarded(from_httpx_auth(auth), "GET", target, *fields)
    assert seen[0].method == "GET"
    assert str(seen[0].url) == "https://api.example.com/a%2Fb?x=1&x=2&y"
    assert [pair for pair in seen[0].headers.raw if pair in fields] == fields
    assert (sent.target, sent.values(b"x-key")) == (target, [b"k"])


def test_object_with_a_flow() -> None:
    """What merely has an auth_flow will do."""

    class Flow:
        def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
            request.headers["Authorization"] = "Key k"
            yield request

    sent, _ = forwarded(from_httpx_auth(Flow()), "GET", b"/")
    assert sent.values(b"authorization") == [b"Key k"]


def test_removed_fields() -> None:
    """A field that the auth removes is not sent; the others stay as they were."""

    def auth(request: httpx.Request) -> httpx.Request:
        del request.headers["X-Old"]
        request.headers["X-Key"] = "k"
        return request

    sent, _ = forwarded(from_httpx_auth(auth), "GET", b"/", (b"x-old", b"1"), (b"X-Other", b"a"), (b"x-other", b"b"))
    assert not sent.values(b"x-old")
    assert sent.fields == [(b"host", b"api.example.com"), (b"X-Other", b"a"), (b"x-other", b"b"), (b"x-key", b"k")]


def changing(change: Callable[[httpx.Request], Any]) -> Callable[[httpx.Request], httpx.Request]:
    """An auth that adds a key, and does something else."""

    def auth(request: httpx.Request) -> httpx.Request:
        request.headers["X-Key"] = "k"
        changed = change(request)
        return changed if isinstance(changed, httpx.Request) else request

    return auth


def add_parameter(request: httpx.Request) -> None:
    """Adds to the query."""
    request.url = request.url.copy_merge_params({"key": "k"})


def change_method(request: httpx.Request) -> None:
    """Makes it another request."""
    request.method = "DELETE"


def change_body(request: httpx.Request) -> httpx.Request:
    """Sends something else."""
    return httpx.Request(request.method, request.url, headers={"X-Key": "k"}, content=b"other")


def ask_first(request: httpx.Request) -> httpx.Request:
    """Asks for a token."""
    return httpx.Request("POST", "https://login.example.com/token")


@pytest.mark.parametrize("change", [add_parameter, change_method, change_body, ask_first])
def test_other_changes(change: Any) -> None:
    """An auth that changes more than fields, or asks a server first, fails the request, which is not sent without."""
    with pytest.raises(InternalError, match="more of a request than its header fields"):
        forwarded(from_httpx_auth(changing(change)), "PUT", b"/x?a=1", body=b"content")


@each_library
def test_no_change(library: Any) -> None:
    """An auth that adds nothing fails the request, which is not sent without a credential."""
    with pytest.raises(InternalError, match="adds nothing"):
        forwarded(from_httpx_auth(library.Auth()), "GET", b"/")


def test_only_removed_fields() -> None:
    """An auth that only takes something away adds nothing."""

    def auth(request: httpx.Request) -> httpx.Request:
        del request.headers["X-Old"]
        return request

    with pytest.raises(InternalError, match="adds nothing"):
        forwarded(from_httpx_auth(auth), "GET", b"/", (b"x-old", b"1"))


def test_empty_flow() -> None:
    """A flow without a step adds nothing."""

    class Flow:
        def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
            yield from ()

    with pytest.raises(InternalError, match="adds nothing"):
        forwarded(from_httpx_auth(Flow()), "GET", b"/")


def test_body_that_was_not_asked_for() -> None:
    """An auth that reads the body without saying so fails, rather than sign an empty one."""
    with pytest.raises(RuntimeError, match="requires_request_body"):
        forwarded(from_httpx_auth(changing(lambda request: request.read())), "PUT", b"/", body=b"content")


@each_library
def test_what_needs_a_response(library: Any) -> None:
    """Digest authentication, and what reads responses, is a TypeError at once, without the secret."""
    for auth in (library.DigestAuth("user", "xyzzy"), key_of(library, requires_response_body=True)):
        with pytest.raises(TypeError, match="needs a response") as raised:
            from_httpx_auth(auth)
        assert "xyzzy" not in str(raised.value)


@pytest.mark.parametrize("auth", [None, "Bearer xyzzy", 1])
def test_no_auth(auth: Any) -> None:
    """Anything else is a TypeError."""
    with pytest.raises(TypeError, match="neither"):
        from_httpx_auth(auth)


def test_expiry() -> None:
    """The credential expires when it is said to."""
    assert from_httpx_auth(("user", "pass"), expires_at=5).expires_at == 5
    assert from_httpx_auth(key_of(httpx), expires_at=5).expires_at == 5


@each_library
def test_through_a_server(upstream: ScriptedUpstream, library: Any) -> None:
    """Method, target and body arrive as they were, with what the auth added."""
    target = "/a%2Fb//c?x='|&y"
    with proxied(upstream, from_httpx_auth(key_of(library, requires_request_body=True))) as call:
        assert call("PATCH", target, [("Content-Type", "text/plain")], b"content").status == 200
    sent = received(upstream)
    assert (sent.method, sent.target, sent.body) == (b"PATCH", target.encode(), b"content")
    assert sent.values(b"x-digest") == [hashlib.sha256(b"content").hexdigest().encode()]
    assert sent.values(b"content-length") == [b"7"]
