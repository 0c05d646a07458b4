"""What mutations start from, and the words they put in."""

from tests.wire import chunked

_CL = b"Content-Length: 2\r\n"
_TE = b"Transfer-Encoding: chunked\r\n"
_OK = b"HTTP/1.1 200 OK\r\n"
_USUAL = b"Server: nginx\r\nDate: Tue, 24 Nov 2026 12:00:00 GMT\r\nContent-Type: application/json\r\n"
_ORDINARY = _OK + _USUAL + _CL + b"\r\nok"
_CHUNKED = _OK + _TE + b"\r\n"
_EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"

RESPONSES = [
    _ORDINARY,
    _ORDINARY,
    _OK + b'ETag: "a"\r\ncontent-length:10\r\nVary: Accept\r\nConnection: keep-alive\r\n\r\n0123456789',
    b"HTTP/1.1 404 Not Found\r\nX-Request-Id: 1\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n",
    _ORDINARY + b"\x1d" + _ORDINARY + b"\x1d" + _ORDINARY,
    _ORDINARY + b"\x1d" + _CHUNKED + chunked(b"o", b"k") + b"\x1d" + _ORDINARY,
    _CHUNKED + chunked(b"o", b"k") + b"\x1d" + _ORDINARY + b"\x1d" + _EARLY + _ORDINARY,
    b"HTTP/1.1 204 No Content\r\n\r\n\x1d" + _ORDINARY,
    b"HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 9\r\n\r\n\x1d" + _ORDINARY,
    _CHUNKED + b'2;a="b"\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n',
    _OK + b"\r\nuntil close",
    _EARLY + b"HTTP/1.1 100 Continue\r\n\r\n" + _ORDINARY,
    b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
    _OK + b"Cache-Control: public, s-maxage=9\r\nCDN-Cache-Control: max-age=1\r\n" + _CL + b"\r\nok",
    _OK + b"Connection: x-a, close\r\nX-A: 1\r\nX-Accel-Redirect: /\r\nProxy-Status: proxy_middleware\r\n\r\n",
    _OK + _TE + _CL + b"\r\n" + chunked(b"ok"),
    _OK + _CL + _CL + b"\r\nok",
    _OK + b"X: a\r\n b\r\n" + _CL + b"\r\nok",
    b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    b"HTTP/1.1 101 Switching\r\n\r\n" + _ORDINARY,
    b"HTTP/1.1 200\r\nContent-Length:  2 \t\r\n\r\nok",
]

WORDS = [
    *[
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b"\t",
        b" ",
        b":",
        b",",
        b";",
        b"\r\n\r\n",
        b"\n\n",
        b"\x0b",
        b"\x7f",
        b"\xe9",
        b"\xff",
    ],
    *[b"\r\n ", b"\r\n\t", b" :", b": ", b'"', b"_", b"%0d%0a", b"\x85", b"\xa0", b"\xb2"],
    *[b"Content-Length: 2", b"content-length:2", b"Content-Length: 0", b"Content-Length: +5", b"Content-Length: 0x5"],
    *[b"Content-Length:", b"Content-Length : 2", b"Content_Length: 5", b"Content-Length: 2, 2", b"Content-Length: 02"],
    *[b"Content-Length: 1000000000000000000", b"Content-Length: 999999999999999999", b"CONTENT-LENGTH:\t2\t"],
    *[b"Transfer-Encoding: chunked", b"transfer-encoding:CHUNKED", b"Transfer-Encoding: gzip, chunked"],
    *[b"Transfer-Encoding : chunked", b"Transfer_Encoding: chunked", b"Transfer-Encoding: identity", b"TE: trailers"],
    *[b"Transfer-Encoding:\x0bchunked", b"Transfer-Encoding: chunked,", b'Transfer-Encoding: "chunked"', b"Trailer: a"],
    *[b"Connection: close", b"Connection: keep-alive", b"Connection: x, content-length", b"Proxy-Connection: close"],
    *[b"Connection: upgrade", b"Upgrade: h2c", b"Keep-Alive: timeout=5", b"Connection: transfer-encoding"],
    *[b"Set-Cookie: a=b", b"Server: x", b"X-A: 1", b"X-Accel-Redirect: /", b": x", b"X", b"X\xe9: 1", b"Age:"],
    *[b"Cache-Control: public", b"Surrogate-Control: x", b"Proxy-Status: a, proxy_middleware; error=x", b"Via:1.1 x"],
    *[
        b"HTTP/1.1 ",
        b"HTTP/1.0 ",
        b"HTTP/1.10 ",
        b"HTTP/2.0 ",
        b"HTTP/0.9 ",
        b"http/1.1 ",
        b"200",
        b"099",
        b"100",
        b"101",
    ],
    *[
        b"103",
        b"204",
        b"304",
        b"600",
        b"999",
        b"1000",
        b"+5",
        b"-1",
        b"0x5",
        b"2",
        b"5",
        b"0",
        b"0\r\n\r\n",
        b"2\r\nok\r\n",
    ],
    *[
        b"ffffffffffffffff",
        b"00000002",
        b"9" * 19,
        b"a" * 300,
        b"\x1d",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ],
    *[
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
]
