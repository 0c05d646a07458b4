"""Requests that the proxy answers by itself without asking the upstream: the table's error, on every server."""

from dataclasses import dataclass

import pytest

from tests.callers import call, request
from tests.conftest import StartProxy
from tests.integration.asking import FOUR, SERVERS, TOKEN, ask, asked, check_problem
from tests.integration.conftest import BODY_LIMIT, ProxyServer
from tests.upstreams import ScriptedUpstream
from tests.wire import chunked

BAD = "bad_request"
LOST = ("connection", "upstream_unreachable")
NOT_FOUND = (404, BAD, "not_found", "http_request_error")
BAD_TARGET = (400, BAD, "invalid_target", "http_request_error")
BAD_REQUEST = (400, BAD, "invalid_request", "http_request_error")
DENIED = (403, BAD, "access_denied", "http_request_denied")
REFUSED = (403, BAD, "access_denied", "destination_ip_prohibited")
INTERNAL = (500, "internal", "internal", "proxy_internal_error")
TOO_LARGE = (413, BAD, "payload_too_large", "http_request_error")
UNAUTHENTICATED = (401, BAD, "not_authenticated", "http_request_denied")

Problem = tuple[int, str, str, str]


@dataclass(frozen=True)
class Case:
    """A bad request, and the problem that it is answered with; `{host}` is the upstream's address."""

    name: str
    path: str
    problem: Problem


CASES = (
    Case("unknown selector", "nobody/proxy/x", NOT_FOUND),
    Case("selector in other case", "CRM/proxy/x", NOT_FOUND),
    Case("ambiguous selector", "dup/proxy/x", (409, BAD, "ambiguous_selector", "http_request_error")),
    Case("selector with an encoded slash", "a%2Fcrm/proxy/x", NOT_FOUND),
    Case("selector with a control character", "crm%00/proxy/x", NOT_FOUND),
    Case("selector of odd letters", "cr%C3%A9/proxy/x", NOT_FOUND),
    Case("selector encoded twice", "%2563rm/proxy/x", NOT_FOUND),
    Case("selector too long", "x" * 257 + "/proxy/x", NOT_FOUND),
    Case("dot segments", "crm/proxy/a/../../x", BAD_TARGET),
    Case("single dot", "crm/proxy/a/./x", BAD_TARGET),
    Case("dot segment at the end", "crm/proxy/a/..", BAD_TARGET),
    Case("encoded dot segments", "crm/proxy/%2e%2E/x", BAD_TARGET),
    Case("half-encoded dot segment", "crm/proxy/.%2e/x", BAD_TARGET),
    Case("dot segment with a parameter", "crm/proxy/..;p/x", BAD_TARGET),
    Case("dot segments behind an encoded slash", "crm/proxy/a%2f..%2f..%2fx", BAD_TARGET),
    Case("dot segments behind an encoded backslash", "crm/proxy/a%5C..%5Cx", BAD_TARGET),
    Case("dot segments in a full URL", "open/proxy/http://{host}/a/../x", BAD_TARGET),
    Case("user name in a full URL", "open/proxy/http://user@{host}/x", BAD_TARGET),
    Case("user name that looks like a host", "open/proxy/http://{host}@evil.test/x", BAD_TARGET),
    Case("port of letters", "open/proxy/http://evil.test:8o/x", BAD_TARGET),
    Case("port too large", "open/proxy/http://evil.test:65536/x", BAD_TARGET),
    Case("open bracket", "open/proxy/http://[::1/x", BAD_TARGET),
    Case("zone", "open/proxy/http://[fe80::1%25lo]/x", BAD_TARGET),
    Case("trailing dot", "open/proxy/http://localhost./x", BAD_TARGET),
    Case("encoded host", "open/proxy/http://%6cocalhost/x", BAD_TARGET),
    Case("no host", "open/proxy/http:///x", BAD_TARGET),
    Case("short IPv4", "open/proxy/http://127.1/x", BAD_TARGET),
    Case("decimal IPv4", "open/proxy/http://2130706433/x", BAD_TARGET),
    Case("hexadecimal IPv4", "open/proxy/http://0x7f.1/x", BAD_TARGET),
    Case("octal IPv4", "open/proxy/http://0177.0.0.1/x", BAD_TARGET),
    Case("foreign origin", "crm/proxy/https://evil.test/x", DENIED),
    Case("foreign port", "crm/proxy/http://127.0.0.1:1/x", DENIED),
    Case("foreign scheme", "crm/proxy/https://{host}/x", DENIED),
    Case("host that continues ours", "crm/proxy/http://127.0.0.1.evil.test/x", DENIED),
    Case("private address", "private/proxy/x", REFUSED),
    Case("private address in a full URL", "open/proxy/http://192.168.0.1/x", REFUSED),
    Case("metadata address", "open/proxy/http://169.254.169.254/latest", REFUSED),
    Case("metadata address, mapped", "open/proxy/http://[::ffff:169.254.169.254]/latest", REFUSED),
    Case("loopback in IPv6", "open/proxy/http://[::1]/x", REFUSED),
    Case("unspecified address", "open/proxy/http://0.0.0.0/x", REFUSED),
    Case("no credential", "nocred/proxy/x", (424, "connection", "access_token_expired", "proxy_configuration_error")),
    Case("failing authenticator", "authenticator-fails/proxy/x", INTERNAL),
    Case("failing resolver", "resolver-fails/proxy/x", INTERNAL),
    Case("failing provider", "provider-fails/proxy/x", INTERNAL),
    Case("refused connection", "closed/proxy/x", (502, *LOST, "connection_refused")),
    Case("unknown name", "nodns/proxy/x", (502, *LOST, "dns_error")),
)


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_request(server: str, case: Case, proxy_server: ProxyServer, shared_upstream: ScriptedUpstream) -> None:
    """A bad request is answered with the table's error, and the upstream sees nothing of it."""
    host = f"127.0.0.1:{shared_upstream.address[1]}"
    answer = ask(proxy_server(server).address, case.path.replace("{host}", host))
    check_problem(answer, *case.problem)
    assert shared_upstream.requests == []


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(
    "fields",
    [
        (),
        [("Authorization", "Bearer wrong")],
        [("Authorization", "Bearer")],
        [("Authorization", "Basic Y2FsbGVyLXRva2Vu")],
        [("Authorization", "caller-token")],
        [("Cookie", "token=caller-token")],
        [TOKEN, TOKEN],
    ],
    ids=["none", "wrong", "empty", "basic", "bare", "cookie", "twice"],
)
def test_caller_without_a_valid_token(
    server: str, fields: list[tuple[str, str]], proxy_server: ProxyServer, shared_upstream: ScriptedUpstream
) -> None:
    """Whoever has no token, a wrong one, or two is told to authenticate, whatever the selector."""
    for selector in ("crm", "nobody"):
        answer = call(proxy_server(server).address, request("GET", f"/connections/{selector}/proxy/x", fields))
        check_problem(answer, *UNAUTHENTICATED)
        assert answer.header(b"www-authenticate") == b'Bearer realm="proxy"'
    assert shared_upstream.requests == []


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("method", ["TRACE", "TRACK"])
def test_method_that_is_never_forwarded(server: str, method: str, proxy_server: ProxyServer) -> None:
    """TRACE and TRACK are refused."""
    answer = ask(proxy_server(server).address, "crm/proxy/x", method)
    if (server, method) == ("uvicorn-httptools", "TRACK"):
        assert answer.status == 400  # llhttp does not know it
    else:
        check_problem(answer, 405, BAD, "invalid_request", "http_request_error")


@pytest.mark.parametrize("server", SERVERS)
def test_announced_body_over_the_limit(
    server: str, proxy_server: ProxyServer, shared_upstream: ScriptedUpstream
) -> None:
    """A Content-Length over the limit is refused; waitress wants the body first, all others answer at once."""
    sent = asked("crm/proxy/x", "POST", [("Content-Length", str(BODY_LIMIT + 1))])
    body = b"x" * (BODY_LIMIT + 1) if server == "waitress" else b"x"
    check_problem(call(proxy_server(server).address, sent + body), *TOO_LARGE)
    assert shared_upstream.requests == []


@pytest.mark.parametrize("server", SERVERS)
def test_chunked_body_over_the_limit(server: str, proxy_server: ProxyServer, shared_upstream: ScriptedUpstream) -> None:
    """A chunked body is counted while it streams; the upstream never sees its end."""
    sent = asked("crm/proxy/x", "POST", [("Transfer-Encoding", "chunked")])
    body = chunked(*(b"x" * 65536,) * (BODY_LIMIT // 65536), b"y")
    check_problem(call(proxy_server(server).address, sent + body), *TOO_LARGE)
    if server != "waitress":  # Which has all of it before the proxy is asked.
        shared_upstream.wait_for_requests(1)
    assert not any(seen.wait_ended() for seen in shared_upstream.requests)


@pytest.mark.parametrize(
    ("server", "refuses"),
    [
        ("uvicorn-h11", False),
        ("hypercorn", False),
        ("hypercorn-trio", False),
        ("werkzeug", False),
        ("uvicorn-httptools", True),
        ("gunicorn-gthread", True),
        ("gunicorn-sync", True),
    ],
)
def test_two_framings(server: str, refuses: bool, proxy_server: ProxyServer, shared_upstream: ScriptedUpstream) -> None:
    """Content-Length beside Transfer-Encoding: the proxy refuses it wherever the server does not."""
    sent = asked("crm/proxy/x", "POST", [("Transfer-Encoding", "chunked"), ("Content-Length", "3")])
    answer = call(proxy_server(server).address, sent + chunked(b"hello"))
    assert answer.status == 400
    if not refuses:
        check_problem(answer, *BAD_REQUEST)
    assert shared_upstream.requests == []


@pytest.mark.parametrize("server", SERVERS)
def test_bytes_outside_ascii(server: str, proxy_server: ProxyServer, shared_upstream: ScriptedUpstream) -> None:
    """Raw bytes above 0x7e in a path are refused: by the proxy where the server hands them over."""
    sent = asked("crm/proxy/caf?").replace(b"caf?", b"caf\xc3\xa9")
    answer = call(proxy_server(server).address, sent)
    assert answer.status == 400
    if server in ("granian", "werkzeug"):
        check_problem(answer, *BAD_TARGET)
    assert shared_upstream.requests == []


@pytest.mark.parametrize("server", SERVERS)
def test_control_character_in_a_field(
    server: str, proxy_server: ProxyServer, shared_upstream: ScriptedUpstream
) -> None:
    """A field value with a control character is refused: by the proxy where the server hands it over."""
    answer = ask(proxy_server(server).address, "crm/proxy/x", fields=[("X-A", "a\x01b")])
    assert answer.status == 400
    if server in ("uvicorn-h11", "hypercorn", "hypercorn-trio", "werkzeug"):
        check_problem(answer, *BAD_REQUEST)
    assert shared_upstream.requests == []


@pytest.mark.parametrize("server", ["uvicorn-httptools", "granian", "gunicorn-gthread", "werkzeug"])
def test_other_transfer_coding(server: str, proxy_server: ProxyServer, shared_upstream: ScriptedUpstream) -> None:
    """A transfer coding other than `chunked` is refused where the server hands it over."""
    sent = asked("crm/proxy/x", "POST", [("Transfer-Encoding", "gzip, chunked")])
    check_problem(call(proxy_server(server).address, sent + chunked(b"hello")), *BAD_REQUEST)
    assert shared_upstream.requests == []


@pytest.mark.parametrize("server", ["uvicorn-h11", "hypercorn", "granian", "waitress"])
def test_target_too_long(server: str, proxy_server: ProxyServer, shared_upstream: ScriptedUpstream) -> None:
    """A target over 16 KiB is refused; the other servers have lower limits of their own."""
    check_problem(ask(proxy_server(server).address, "crm/proxy/" + "x" * 16384), *BAD_TARGET)
    assert shared_upstream.requests == []


def test_chunked_body_whose_end_the_server_hides(start_proxy: StartProxy, shared_upstream: ScriptedUpstream) -> None:
    """Granian's WSGI interface does not tell a cut chunked body from a whole one, so that none is taken."""
    server = start_proxy("granian-wsgi")
    sent = asked("crm/proxy/x", "POST", [("Transfer-Encoding", "chunked")])
    answer = call(server.address, sent + chunked(b"hello"))
    check_problem(answer, 411, BAD, "invalid_request", "http_request_error")
    assert shared_upstream.requests == []


@pytest.mark.parametrize("server", FOUR)
@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("root/proxy/x", REFUSED),
        ("open/proxy/http://localhost:{port}/x", REFUSED),
        ("open/proxy/http://127.0.0.1:{port}/x", REFUSED),
        ("open/proxy/http://[::1]:{port}/x", REFUSED),
        ("open/proxy/http://[::ffff:127.0.0.1]:{port}/x", REFUSED),
        ("open/proxy/http://[::127.0.0.1]:{port}/x", REFUSED),
        ("open/proxy/http://[64:ff9b::7f00:1]:{port}/x", REFUSED),
        ("open/proxy/http://127.1:{port}/x", BAD_TARGET),
        ("open/proxy/http://2130706433:{port}/x", BAD_TARGET),
        ("open/proxy/http://0x7f.1:{port}/x", BAD_TARGET),
    ],
)
def test_loopback_without_allowance(
    server: str, path: str, problem: Problem, start_proxy: StartProxy, shared_upstream: ScriptedUpstream
) -> None:
    """By default no address of this machine is dialled: not as a base URL, not by name, not in any spelling."""
    closed = start_proxy(server, egress={}, connections={"open": {"allowed_origins": ["*"]}})
    answer = ask(closed.address, path.replace("{port}", str(shared_upstream.address[1])))
    check_problem(answer, *problem)
    assert shared_upstream.connections == 0
