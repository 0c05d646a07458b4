"""The table of the proxy's own answers: every row of it, on one server of each kind."""

import json
import ssl
from collections.abc import Iterator

import pytest
import trustme

from tests.callers import RawResponse, call, open_call, request
from tests.conftest import StartProxy
from tests.integration.asking import asked, check_problem
from tests.servers import ASGI_SERVERS
from tests.tables import rows
from tests.upstreams import Exchange, ScriptedUpstream
from tests.wire import Address, chunked

SERVERS = ("uvicorn-httptools", "hypercorn", "granian", "gunicorn-gthread", "waitress")
OK = b"HTTP/1.1 200 OK\r\n"
EVENT = b"data: 1\n\n"
BODY_LIMIT = 1000
# Without 411, which no server gets that shows where chunked bodies end.
TABLE = rows(
    """
    no-token             401  bad_request  not_authenticated        http_request_denied
    wrong-token          401  bad_request  not_authenticated        http_request_denied
    method-not-listed    403  bad_request  access_denied            http_request_denied
    path-not-listed      403  bad_request  access_denied            http_request_denied
    foreign-origin       403  bad_request  access_denied            http_request_denied
    other-site           403  bad_request  access_denied            http_request_denied
    navigation           403  bad_request  access_denied            http_request_denied
    private-address      403  bad_request  access_denied            destination_ip_prohibited
    unknown-selector     404  bad_request  not_found                http_request_error
    ambiguous-selector   409  bad_request  ambiguous_selector       http_request_error
    dot-segments         400  bad_request  invalid_target           http_request_error
    malformed            400  bad_request  invalid_request          http_request_error
    trace                405  bad_request  invalid_request          http_request_error
    body-too-long        413  bad_request  payload_too_large        http_request_error
    too-many             429  bad_request  rate_limit_exceeded      http_request_denied
    no-credential        424  connection   access_token_expired     proxy_configuration_error
    plugin-fails         500  internal     internal                 proxy_internal_error
    unknown-name         502  connection   upstream_unreachable     dns_error
    refused              502  connection   upstream_unreachable     connection_refused
    no-common-cipher     502  connection   upstream_unreachable     tls_protocol_error
    bad-certificate      502  connection   upstream_unreachable     tls_certificate_error
    reset                502  connection   upstream_unreachable     connection_terminated
    bad-framing          502  connection   upstream_protocol_error  http_protocol_error
    pool-exhausted       503  concurrency  lock_timeout             connection_limit_reached
    connect-too-long     504  connection   upstream_timeout         connection_timeout
    head-too-long        504  connection   upstream_timeout         http_response_timeout
    body-stands-still    504  connection   upstream_timeout         connection_read_timeout
    """
)
# What some rows say besides; no other row has these fields.
FIELDS = {
    401: {b"www-authenticate": b'Bearer realm="proxy"'},
    405: {b"allow": b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"},
    429: {b"retry-after": b"1"},
    503: {b"retry-after": b"1"},
}
# What a server hands over, and the proxy refuses; each server refuses something else itself.
CODING = asked("root/proxy/x", "POST", [("Transfer-Encoding", "gzip, chunked")]) + chunked(b"hello")
CONTROL = asked("root/proxy/x", fields=[("X-A", "a\x01b")])
OLD_CHUNKED = asked("root/proxy/x", "POST", [("Transfer-Encoding", "chunked")]).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
MALFORMED = {
    "uvicorn-httptools": CODING,
    "hypercorn": CONTROL,
    "granian": CODING,
    "gunicorn-gthread": CODING,
    "waitress": OLD_CHUNKED + chunked(b"hello"),
}
# Rows with a connection of their own, since each gets one request at a time, which may outlast its answer a little.
PATIENT = ("body-too-long", "no-common-cipher", "bad-certificate", "reset", "bad-framing", "held")
HASTY = ("pool-exhausted", "connect-too-long", "head-too-long", "body-stands-still")


@pytest.fixture
def address(server: str, start_proxy: StartProxy, shared_upstream: ScriptedUpstream) -> Address:
    """A server whose limits and time-outs are soon reached; its upstream does what the paths say."""
    for script in (_events, _reset, _garbling, _silent, _stalling):
        shared_upstream.route(b"/" + script.__name__[1:].encode(), script)
    anywhere, hasty = {"allowed_origins": ["*"]}, {"pool": 0.2, "connect": 0.3, "head": 0.3, "idle": 0.3}
    return start_proxy(
        server,
        limits={"request_body": BODY_LIMIT, "connections_per_origin": 1, "per_connection_concurrency": 1},
        connections={
            "listed": {"methods": ["GET"], "paths": ["/listed/*"]},
            **dict.fromkeys(PATIENT, anywhere),
            **{row: {"timeouts": hasty, **anywhere} for row in HASTY},
        },
    ).address


def _events(exchange: Exchange) -> None:
    exchange.send(OK + b"Content-Type: text/event-stream\r\n\r\n" + EVENT)
    assert exchange.wait_closed(10)
    exchange.ended = True


def _reset(exchange: Exchange) -> None:
    exchange.reset()


def _garbling(exchange: Exchange) -> None:
    exchange.send(OK + b"Content-Length: +2\r\n\r\nok")


def _silent(exchange: Exchange) -> None:
    assert exchange.wait_closed(5)


def _stalling(exchange: Exchange) -> None:
    exchange.send(OK + b"Transfer-Encoding: chunked\r\n\r\n")
    assert exchange.wait_closed(5)
    exchange.ended = True


@pytest.fixture
def unsafe(ca: trustme.CA) -> Iterator[dict[str, int]]:
    """The ports of upstreams with which nobody should speak TLS: one is a stranger, one knows no cipher for its key."""
    stranger, clumsy = _context(trustme.CA()), _context(ca)
    clumsy.maximum_version = ssl.TLSVersion.TLSv1_2
    clumsy.set_ciphers("AES128-GCM-SHA256")
    with ScriptedUpstream(stranger) as first, ScriptedUpstream(clumsy) as second:
        yield {"bad-certificate": first.address[1], "no-common-cipher": second.address[1]}


def _context(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    return context


def calls(server: str, ports: dict[str, int]) -> dict[str, bytes]:
    """The requests that get the table's answers, but for those that need company."""
    site, navigation = [("Sec-Fetch-Site", "cross-site")], [("Sec-Fetch-Site", "none"), ("Sec-Fetch-Mode", "navigate")]
    # Under ASGI the head would have been sent by then, unless the response is spooled, as it is for HTTP/1.0.
    version = b"HTTP/1.0" if server in ASGI_SERVERS else b"HTTP/1.1"
    return {
        "no-token": request("GET", "/connections/root/proxy/x"),
        "wrong-token": request("GET", "/connections/root/proxy/x", [("Authorization", "Bearer wrong")]),
        "method-not-listed": asked("listed/proxy/listed/x", "DELETE"),
        "path-not-listed": asked("listed/proxy/x"),
        "foreign-origin": asked("root/proxy/https://foreign.example/x"),
        "other-site": asked("root/proxy/x", fields=site),
        "navigation": asked("root/proxy/x", fields=navigation),
        "private-address": asked("private/proxy/x"),
        "unknown-selector": asked("nobody/proxy/x"),
        "ambiguous-selector": asked("dup/proxy/x"),
        "dot-segments": asked("root/proxy/a/../x"),
        "malformed": MALFORMED[server],
        "trace": asked("root/proxy/x", "TRACE"),
        "body-too-long": asked("body-too-long/proxy/x", "POST", body=b"x" * (BODY_LIMIT + 1)),
        "no-credential": asked("nocred/proxy/x"),
        "plugin-fails": asked("provider-fails/proxy/x"),
        "unknown-name": asked("nodns/proxy/x"),
        "refused": asked("closed/proxy/x"),
        "no-common-cipher": asked(f"no-common-cipher/proxy/https://127.0.0.1:{ports['no-common-cipher']}/x"),
        "bad-certificate": asked(f"bad-certificate/proxy/https://127.0.0.1:{ports['bad-certificate']}/x"),
        "reset": asked("reset/proxy/reset", "POST", body=b"{}"),
        "bad-framing": asked("bad-framing/proxy/garbling"),
        "connect-too-long": asked(f"connect-too-long/proxy/http://127.0.0.1:{ports['connect-too-long']}/x"),
        "head-too-long": asked("head-too-long/proxy/silent"),
        "body-stands-still": asked("body-stands-still/proxy/stalling").replace(b"HTTP/1.1", version, 1),
    }


def company(address: Address) -> dict[str, RawResponse]:
    """The answers to requests beside one that has the connection's, and the origin's, only place."""
    with open_call(address, asked("held/proxy/events")) as holding:
        assert holding.read(len(EVENT)) == EVENT
        return {
            "too-many": call(address, asked("held/proxy/x")),
            "pool-exhausted": call(address, asked("pool-exhausted/proxy/x")),
        }


@pytest.mark.parametrize("server", SERVERS)
def test_every_row(server: str, address: Address, unsafe: dict[str, int], stalled_port: int) -> None:
    """Status, body and fields of each of the proxy's own answers are those of the table."""
    ports = {**unsafe, "connect-too-long": stalled_port}
    answers = {name: call(address, data) for name, data in calls(server, ports).items()} | company(address)
    expected = {name: (int(status), kind, key, mark) for name, status, kind, key, mark in TABLE}
    assert {name: _summary(answer) for name, answer in answers.items()} == expected
    for name, answer in answers.items():
        check_problem(answer, *expected[name])
        assert answer.header(b"cache-control") == b"no-store"
        for field in (b"www-authenticate", b"allow", b"retry-after"):
            assert answer.header(field) == FIELDS.get(answer.status, {}).get(field), name


def _summary(answer: RawResponse) -> tuple[int, str, str, str]:
    problem = json.loads(answer.body) if answer.body.startswith(b"{") else {}
    mark = (answer.header(b"proxy-status") or b"").decode()
    return answer.status, problem.get("type", ""), problem.get("key", ""), mark.removeprefix("proxy_middleware; error=")
