"""The parity table: the same requests, and what the upstream and the caller must see, whatever server is in between.

What a server cannot do, or does by itself, is in `traits.py` where it is about every request, and in `unlike` with its
reason where it is about one.
"""

import gzip
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tests.upstreams import response
from tests.wire import Fields

OK = response(body=b"ok")
MIB = 1024 * 1024
EVERY_BYTE = bytes(range(256))
PROXY = b"/connections/crm/proxy"


@dataclass(frozen=True)
class Unlike:
    """What is different on one server, and why: other values for a scenario, or the status of the server's refusal."""

    reason: str
    refused: int | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One line of the table.

    Attributes:
        method, path, fields, body, chunks: What the caller sends; Host and its token come before the fields, a
            `Content-Length` after them. `chunks` is a chunked body.
        target: The request target that reaches the upstream.
        passed: The caller's fields that reach the upstream.
        answer: The upstream's bytes.
        status, reason, received, content: What the caller gets.
        unlike: Servers on which something else happens.
    """

    name: str
    method: bytes = b"GET"
    sent_method: bytes | None = None
    path: bytes = PROXY + b"/x"
    fields: Fields = ()
    body: bytes | None = None
    chunks: tuple[bytes, ...] | None = None
    target: bytes = b"/base/x"
    passed: Fields = ()
    answer: bytes = OK
    status: int = 200
    reason: bytes = b"OK"
    received: Fields = ((b"Content-Length", b"2"),)
    content: bytes = b"ok"
    unlike: Mapping[str, Unlike] = field(default_factory=dict)

    def on(self, server: str) -> "tuple[Scenario, int | None]":
        """The scenario on this server, and the status if the server refuses it by itself."""
        unlike = self.unlike.get(server, Unlike(""))
        return replace(self, **unlike.changes), unlike.refused


def _methods() -> list[Scenario]:
    llhttp = {"uvicorn-httptools": Unlike("llhttp knows a fixed list of methods", refused=400)}
    return [
        *(Scenario(name=f"method {method.decode()}", method=method) for method in (b"GET", b"DELETE", b"OPTIONS")),
        *(
            Scenario(name=f"method {method.decode()}", method=method, body=b"{}")
            for method in (b"POST", b"PUT", b"PATCH")
        ),
        Scenario(name="method HEAD", method=b"HEAD", answer=OK.removesuffix(b"ok"), content=b""),
        Scenario(name="GET with a body", body=b"query"),
        Scenario(name="DELETE with a body", method=b"DELETE", body=b"query"),
        Scenario(name="method REPORT", method=b"REPORT"),
        Scenario(name="custom method", method=b"FROB", unlike=llhttp),
        Scenario(
            name="lower-case method",
            method=b"frob",
            unlike={
                **llhttp,
                **dict.fromkeys(
                    ("hypercorn", "hypercorn-trio"),
                    Unlike("spells methods in upper case", changes={"sent_method": b"FROB"}),
                ),
                **dict.fromkeys(
                    ("gunicorn-gthread", "gunicorn-sync", "waitress"), Unlike("refuses lower-case methods", refused=400)
                ),
            },
        ),
    ]


def _paths() -> list[Scenario]:
    odd = b"/a%2Fb//c;p=1/%zz?x=1;y=%zz&z=%2F&q=a+b"
    raw = [
        ("odd path", PROXY + odd, b"/base" + odd),
        ("trailing slash", PROXY + b"/x/", b"/base/x/"),
        ("empty first segment", PROXY + b"//x", b"/base//x"),
        ("case of escapes", PROXY + b"/%c3%A9%2f%2F%41", b"/base/%c3%A9%2f%2F%41"),
        ("encoded controls", PROXY + b"/%00%0d%0a%7f", b"/base/%00%0d%0a%7f"),
        ("a name with dots", PROXY + b"/...;a/.b/c.", b"/base/...;a/.b/c."),
        ("only /proxy", PROXY, b"/base"),
        ("/proxy and a slash", PROXY + b"/", b"/base/"),
        ("/proxy and a query", PROXY + b"?x=1", b"/base?x=1"),
        ("base URL without a path", b"/connections/root/proxy", b"/"),
        ("full URL in the query", PROXY + b"/x?u=https://a.test//b?c", b"/base/x?u=https://a.test//b?c"),
        ("encoded scheme is a path", PROXY + b"/http%3A//127.0.0.1/x", b"/base/http%3A//127.0.0.1/x"),
        ("fragment", PROXY + b"/x#part", b"/base/x"),
        ("full URL", PROXY + b"/http://{host}//y?z=%2f", b"//y?z=%2f"),
        ("full URL, repaired", PROXY + b"/http:/{host}/y", b"/y"),
        ("full URL, upper case", PROXY + b"/HTTP://{host}/y", b"/y"),
        ("full URL without a path", PROXY + b"/http://{host}", b"/"),
        ("full URL with a query only", PROXY + b"/http://{host}?a", b"/?a"),
        ("integration key", b"/connections/crm-key/proxy/x", b"/base/x"),
        ("encoded selector", b"/connections/%63rm%2Dkey/proxy/x", b"/base/x"),
        ("absolute form", b"http://host.test" + PROXY + b"/a%2Fb", b"/base/a%2Fb"),
    ]
    empty = Unlike("`?` with nothing behind it is not in the scope", changes={"target": b"/base/x"})
    asgi = ("uvicorn-httptools", "uvicorn-h11", "hypercorn", "hypercorn-trio", "granian")
    return [
        *(Scenario(name=f"path: {name}", path=path, target=target) for name, path, target in raw),
        Scenario(name="path: empty query", path=PROXY + b"/x?", target=b"/base/x?", unlike=dict.fromkeys(asgi, empty)),
    ]


INFRASTRUCTURE = (
    b"x-request-id x-real-ip x-forwarded-for x-forwarded-host x-forwarded-port x-forwarded-proto x-forwarded-scheme "
    b"x-scheme x-original-forwarded-for x-different-name x-request-start x-using-nginx-controller x-amzn-trace-id "
    b"forwarded-for-header proxy-protocol real_ip_header real_ip_recursive cdn-loop cf-ipcountry cf-ray cf-visitor "
    b"cf-connecting-ip X-Forwarded_For X_Request_Id proxy forwarded membrane-api-version"
).split()


def _fields() -> list[Scenario]:
    ordered = (
        (b"X-B", b"1"),
        (b"x-a", b"2"),
        (b"X-B", b"3, 4"),
        (b"Content-Type", b"text/x; a=b"),
        (b"User-Agent", b"curl/8"),
        (b"X-Latin", b"caf\xe9"),
        (b"X-Empty", b""),
        (b"Accept-Encoding", b"gzip"),
    )
    hops = (
        (b"X-Kept", b"1"),
        (b"Connection", b"X-Hop, keep-alive, Authorization"),
        (b"X-Hop", b"1"),
        (b"Keep-Alive", b"timeout=5"),
        (b"Proxy-Connection", b"keep-alive"),
        (b"Proxy-Authorization", b"Basic YTpi"),
        (b"TE", b"trailers"),
        (b"Trailer", b"X-T"),
        (b"Upgrade", b"foo/1"),
    )
    private = ((b"Cookie", b"session=1; a=b"), (b"Accept", b"*/*"))
    return [
        Scenario(name="fields: duplicates and order", fields=ordered, passed=ordered),
        Scenario(name="fields: underscores", fields=((b"X_Under", b"1"),), passed=((b"X_Under", b"1"),)),
        Scenario(
            name="fields: infrastructure is dropped",
            fields=tuple((name, b"10.1.2.3") for name in INFRASTRUCTURE),
        ),
        Scenario(name="fields: hop-by-hop ones are dropped", fields=hops, passed=hops[:1]),
        # Who sends a cookie may be a browser.
        Scenario(
            name="fields: cookie is dropped",
            fields=private,
            passed=private[1:],
            received=((b"Content-Length", b"2"), (b"vary", b"sec-fetch-dest, sec-fetch-mode, sec-fetch-site")),
        ),
        Scenario(name="fields: expect is dropped", method=b"POST", fields=((b"Expect", b"100-continue"),), body=b"{}"),
    ]


def _bodies() -> list[Scenario]:
    waitress = Unlike("collects a chunked body and announces its length")
    return [
        Scenario(name="body: empty", method=b"POST", body=b""),
        Scenario(name="body: POST without any", method=b"POST"),
        Scenario(name="body: every byte", method=b"POST", body=EVERY_BYTE),
        Scenario(name="body: 1 MiB", method=b"PUT", body=EVERY_BYTE * 4096),
        Scenario(
            name="body: chunked",
            method=b"POST",
            chunks=(b"hello ", EVERY_BYTE, b"0\r\n"),
            unlike={"waitress": waitress},
        ),
        Scenario(
            name="body: chunked 1 MiB", method=b"POST", chunks=(EVERY_BYTE * 256,) * 16, unlike={"waitress": waitress}
        ),
        Scenario(name="body: chunked and empty", method=b"POST", chunks=(), unlike={"waitress": waitress}),
    ]


def _answered(
    name: str,
    fields: Fields = (),
    received: Fields | None = None,
    *,
    status: int = 200,
    reason: bytes = b"OK",
    body: bytes = b"ok",
    **more: Any,
) -> Scenario:
    """A response with these fields and a Content-Length, which all goes to the caller but for what `received` lacks."""
    received = fields if received is None else received
    return Scenario(
        name=f"response: {name}",
        answer=response(status, fields, body, reason=reason),
        status=status,
        reason=reason,
        received=(*received, (b"Content-Length", b"%d" % len(body))),
        content=body,
        **more,
    )


def _bodiless(name: str, status_line: bytes, fields: bytes, received: Fields, **more: Any) -> Scenario:
    """A response without a body, of which the head says how long it would be."""
    status, reason = status_line.split(b" ", 1)
    answer = b"HTTP/1.1 " + status_line + b"\r\n" + fields + b"\r\n"
    return Scenario(
        name=f"response: {name}",
        answer=answer,
        status=int(status),
        reason=reason,
        received=received,
        content=b"",
        **more,
    )


def _statuses() -> list[Scenario]:
    tag = (b"ETag", b'"a"')
    return [
        _answered("201", ((b"Location", b"/things/1"),), status=201, reason=b"Created"),
        _answered("301", ((b"Location", b"https://a.test/b//c?d"),), status=301, reason=b"Moved Permanently"),
        _answered("401 without a refresher", ((b"WWW-Authenticate", b"Bearer"),), status=401, reason=b"Unauthorized"),
        _answered("404", status=404, reason=b"Not Found"),
        _answered("500", status=500, reason=b"Internal Server Error"),
        _answered("own reason", status=299, reason=b"Odd  Thing!"),
        _answered("no reason", status=200, reason=b""),
        _answered("empty body", body=b""),
        _bodiless("204", b"204 No Content", b"X-A: 1\r\n", ((b"X-A", b"1"),)),
        _bodiless("204 with a length", b"204 No Content", b"X-A: 1\r\nContent-Length: 0\r\n", ((b"X-A", b"1"),)),
        _bodiless("304 with a length", b"304 Not Modified", b'ETag: "a"\r\nContent-Length: 9\r\n', (tag,)),
        _bodiless(
            "HEAD keeps its length",
            b"200 OK",
            b"Content-Length: 1234\r\n",
            ((b"Content-Length", b"1234"),),
            method=b"HEAD",
        ),
    ]


def _responses() -> list[Scenario]:
    ordered = ((b"X-B", b"1"), (b"Set-Cookie", b"a=1; Path=/"), (b"x-a", b"2"), (b"Set-Cookie", b"b=2"), (b"X-C", b""))
    marks = ((b"Server", b"upstream/1"), (b"Date", b"Mon, 01 Jan 2024 00:00:00 GMT"))
    packed = gzip.compress(b"packed" * 99, mtime=0)
    zipped = ((b"Content-Encoding", b"gzip"), (b"Content-Type", b"text/plain; charset=x"))
    front = (
        b"X-Accel-Redirect X-Accel-Buffering X-Sendfile X-SendFile-Temporary X-LIGHTTPD-send-file X-Reproxy-URL "
        b"X-Litespeed-Location"
    ).split()
    hops = (
        (b"X-Kept", b"1"),
        (b"Connection", b"X-Hop"),
        (b"X-Hop", b"1"),
        (b"Keep-Alive", b"timeout=5"),
        (b"Proxy-Authenticate", b"Basic"),
        (b"Upgrade", b"h2c"),
        (b"Trailer", b"X-T"),
    )
    shared = (b"Cache-Control", b"public, max-age=60")
    cdn = ((b"CDN-Cache-Control", b"max-age=9"), (b"Surrogate-Control", b"max-age=9"), shared)
    no_store = (b"cdn-cache-control", b"no-store")
    forged = (b"Proxy-Status", b"proxy_middleware; error=dns_error")
    other = (b"Proxy-Status", b"cdn.test; error=dns_error")
    return [
        _answered("duplicates and order", ordered),
        _answered("the upstream's own marks", marks),
        _answered("latin-1", ((b"X-Name", b"caf\xe9"),)),
        _answered("every byte", body=EVERY_BYTE),
        _answered("1 MiB", body=EVERY_BYTE * 4096),
        _answered("gzip is left alone", zipped, body=packed),
        _answered("front-server fields are dropped", tuple((name, b"/etc/x") for name in front), ()),
        _answered("hop-by-hop fields are dropped", hops, hops[:1]),
        _answered("private caching is left alone", ((b"Cache-Control", b"private, max-age=60"),)),
        replace(_answered("cache guard", cdn), received=(shared, (b"Content-Length", b"2"), no_store)),
        _answered("forged Proxy-Status is dropped", (forged,), ()),
        _answered("another's Proxy-Status passes", (other,)),
    ]


def _framings() -> list[Scenario]:
    chunks = b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nX-Trailer: t\r\n\r\n"
    plain = ((b"X-A", b"1"),)
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    return [
        Scenario(
            name="response: chunked",
            answer=b"HTTP/1.1 200 OK\r\nX-A: 1\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks,
            received=plain,
            content=b"hello world",
        ),
        Scenario(
            name="response: chunked and empty",
            answer=b"HTTP/1.1 200 OK\r\nX-A: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            received=plain,
            content=b"",
        ),
        Scenario(
            name="response: until the connection's end",
            answer=b"HTTP/1.1 200 OK\r\nX-A: 1\r\n\r\nhello",
            received=plain,
            content=b"hello",
        ),
        Scenario(
            name="response: HTTP/1.0 until the connection's end",
            answer=b"HTTP/1.0 200 OK\r\nX-A: 1\r\n\r\nhello",
            received=plain,
            content=b"hello",
        ),
        Scenario(name="response: interim ones are absorbed", answer=early + OK),
    ]


SCENARIOS = (*_methods(), *_paths(), *_fields(), *_bodies(), *_statuses(), *_responses(), *_framings())
