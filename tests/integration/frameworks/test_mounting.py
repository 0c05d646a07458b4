"""What the proxy does is the same in every framework, and the rest is the framework's."""

import threading

import pytest

from tests.callers import open_call
from tests.host_plugins import UPSTREAM_SECRET
from tests.integration.asking import check_problem
from tests.integration.frameworks.hosts import Host
from tests.upstreams import Exchange, ScriptedUpstream, response

TARGETS = (
    "",
    "/",
    "/x",
    "/x/",
    "/a%2Fb//c;p=1/?x=1;y=%zz&z=%2F",
    "//x",
    "/%c3%A9%2f%00",
    "/https%3A//other.test/x",
    "/index.php",
    "/static/..x?next=/me",
)
# Only /connections/{selector}/proxy is the proxy's.
NOT_OURS = ("/nowhere", "/connections", "/connections/github", "/connections/github/", "/connections/github/proxyfoo")


@pytest.mark.parametrize("target", TARGETS)
def test_targets_arrive_byte_for_byte(host: Host, upstream: ScriptedUpstream, target: str) -> None:
    """No router decodes, merges, completes or redirects a target, and the credential is put on."""
    answer = host.ask(target)
    assert (answer.status, answer.body) == (200, b"ok")
    (seen,) = upstream.requests
    assert seen.target == b"/base" + target.encode()
    assert seen.header(b"authorization") == f"Bearer {UPSTREAM_SECRET}".encode()
    assert seen.header(b"cookie") is None


@pytest.mark.parametrize("method", ["OPTIONS", "HEAD", "POST", "PUT", "PATCH", "DELETE", "PROPFIND"])
def test_methods_are_not_answered_by_the_router(host: Host, upstream: ScriptedUpstream, method: str) -> None:
    """What frameworks answer by themselves goes to the upstream here."""
    body = None if method in ("OPTIONS", "HEAD") else b"csrf=no&_method=GET"
    if method == "HEAD":
        upstream.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
    answer = host.ask("/x", method, (("Content-Type", "application/x-www-form-urlencoded"),), body)
    (seen,) = upstream.requests
    assert (answer.status, seen.method, seen.body) == (200, method.encode(), body or b"")


@pytest.mark.parametrize("status", [301, 401, 404, 405, 500, 503])
def test_answers_are_not_the_frameworks(host: Host, upstream: ScriptedUpstream, status: int) -> None:
    """Redirects and error pages are the upstream's, whatever handlers the host has."""
    location = (b"Location", b"/elsewhere//x?a=%2F")
    upstream.answer(response(status, (location, (b"Content-Type", b"text/x")), b"upstream's", reason=b"Odd"))
    answer = host.ask("/x")
    assert (answer.status, answer.body) == (status, b"upstream's")
    assert (answer.header(b"location"), answer.header(b"content-type")) == (location[1], b"text/x")


def test_own_route_answers(host: Host, upstream: ScriptedUpstream) -> None:
    """The host's own route is there, and knows the caller where it asks."""
    path, body = host.example.own
    answer = host.get(path, host.caller)
    assert (answer.status, answer.body, upstream.requests) == (200, body, [])


@pytest.mark.parametrize("path", NOT_OURS)
def test_other_paths_are_the_hosts(host: Host, upstream: ScriptedUpstream, path: str) -> None:
    """What only looks like the proxy's is the host's own 404."""
    answer = host.get(host.example.mount + path, host.caller)
    assert (answer.status, answer.header(b"proxy-status"), upstream.requests) == (404, None, [])


def test_unknown_selector(host: Host, upstream: ScriptedUpstream) -> None:
    """A selector that names nothing is a 404 of the proxy's."""
    answer = host.get(host.path("/x", selector="nothing"), host.caller)
    check_problem(answer, 404, "bad_request", "not_found", "http_request_error")
    assert upstream.requests == []


@pytest.mark.parametrize(
    "field",
    [("Accept", "*/*"), ("Authorization", "Bearer nobody"), ("Cookie", "session=x; sessionid=x")],
    ids=["nothing", "token", "cookie"],
)
def test_no_caller(host: Host, upstream: ScriptedUpstream, field: tuple[str, str]) -> None:
    """Whom the host does not know is not let in."""
    answer = host.get(host.path("/x"), field)
    check_problem(answer, 401, "bad_request", "not_authenticated", "http_request_denied")
    assert upstream.requests == []


def test_upload_streams(host: Host, upstream: ScriptedUpstream) -> None:
    """The upstream has the first half of a body before the caller has sent the second."""
    half, first_half_read = b"x" * 128 * 1024, threading.Event()

    @upstream.script
    def script(exchange: Exchange) -> None:
        exchange.read(len(half))
        first_half_read.set()
        exchange.read(None)
        exchange.send(response(body=b"taken"))

    data = host.asked("/upload", "POST", (("Content-Length", str(2 * len(half))),))
    with open_call(host.address, data + half) as opened:
        # waitress collects a request's body before it calls the application.
        assert host.example.server == "waitress" or first_half_read.wait(10)
        opened.send(half)
        assert opened.read_rest().body == b"taken"
    (seen,) = upstream.requests
    assert (seen.complete, seen.body == 2 * half, seen.header(b"content-length")) == (True, True, b"262144")


def test_download_streams(host: Host, upstream: ScriptedUpstream) -> None:
    """Each event is there when the upstream has sent it, and not only at the end."""
    event_seen = threading.Event()

    @upstream.script
    def script(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        exchange.send(b"9\r\ndata: 1\n\n\r\n")
        exchange.wait(event_seen)
        exchange.send(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")

    with open_call(host.address, host.asked("/events")) as opened:
        assert opened.read_until(b"\n\n") == b"data: 1\n\n"
        event_seen.set()
        rest = opened.read_rest()
    assert (rest.body, rest.complete) == (b"data: 2\n\n", True)


@pytest.mark.parametrize("head", [b"Transfer-Encoding: chunked\r\n\r\n5\r\n", b"Content-Length: 9\r\n\r\n"])
def test_broken_download_breaks(host: Host, upstream: ScriptedUpstream, head: bytes) -> None:
    """An upstream that breaks off in the middle of a body never looks like one that has finished."""

    @upstream.script
    def script(exchange: Exchange) -> None:
        exchange.read(None)
        exchange.send(b"HTTP/1.1 200 OK\r\n" + head + b"hello")
        exchange.close()

    answer = host.ask("/x")
    assert (answer.status, answer.complete) == (200, False)


def test_hosts_with_a_mount_match_below_it_only(host: Host, upstream: ScriptedUpstream) -> None:
    """The proxy's path is below the prefix of its mount, and nowhere else."""
    for prefix in ("/tools", "/other", host.example.mount * 2 or "/x"):
        answer = host.get(f"{prefix}/connections/github/proxy/x", host.caller)
        assert (answer.status, answer.header(b"proxy-status")) == (404, None), prefix
    assert upstream.requests == []
