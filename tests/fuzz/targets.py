"""A request's path: is it ours, and where does it lead?

An input is the raw path with its query; behind a US character may stand what the server made of it (else it is
decoded as servers do), behind a second one the mount prefix.
"""

import ipaddress
import re
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from proxy_middleware import ProxyError
from proxy_middleware._target import (
    Base,
    Matcher,
    Origin,
    is_ordinary,
    parse_base,
    parse_origin_pattern,
    resolve_target,
)

NEXT = b"\x1f"
_MATCHER = Matcher("/connections")
_BASES = [parse_base("https://api.example.com"), parse_base("http://api.example.com:8080/v1")]
_ALLOWED = [
    (),
    ("https://files.example.com", "https://*.cdn.example.com:8443", "http://[2001:db8::1]"),
    ("*",),
]
_PATTERNS = [tuple(map(parse_origin_pattern, texts)) for texts in _ALLOWED]
_SELECTOR = re.compile(r"[A-Za-z0-9_.~:@+ -]{1,256}")
_URL = re.compile(rb"/(https?):/{1,2}(.*)", re.IGNORECASE | re.DOTALL)
_PATH = re.compile(rb"/[^\x00- #\x7f-\xff]*")


def check(data: bytes) -> str:
    """Matches a path as an ASGI server would hand it over, and resolves its target on two base URLs."""
    url, _, more = data.partition(NEXT)
    decoded, _, root = more.partition(NEXT)
    raw, mark, query = url.partition(b"?")
    path = decoded.decode("utf-8", "surrogateescape") if decoded else unquote(raw.decode("latin-1"))
    scope = {"type": "http", "path": path, "raw_path": raw, "root_path": root.decode("utf-8", "surrogateescape")}
    try:
        match = _MATCHER.match_asgi(scope)
    except ProxyError as error:
        return type(error).__name__
    if match is None:
        return "the host's"
    assert _SELECTOR.fullmatch(match.selector)
    assert not match.target or match.target[:1] == b"/"
    sources = unquote_to_bytes(raw.partition(b"#")[0]), path.encode("utf-8", "surrogateescape")
    assert any(source.endswith(unquote_to_bytes(match.target)) for source in sources)
    full = match.target + mark + query
    return " ".join(_resolve(full, base, which) for base in _BASES for which in range(len(_ALLOWED)))


def _resolve(full: bytes, base: Base, which: int) -> str:
    target, mark, query = full.partition(b"?")
    try:
        origin, path, inside = resolve_target(target, query if mark else None, base, _PATTERNS[which])
    except ProxyError as error:
        assert base.path or not is_ordinary(full), "the short way takes what the long way refuses"
        return str(error.status)
    assert _PATH.fullmatch(path), "a character that must not go on"
    assert not _climbs(path.partition(b"?")[0], bool(base.path)), "a dot segment"
    if not base.path and is_ordinary(full):
        assert (origin, path) == (base.origin, full), "the short way leads elsewhere"
    url = _URL.fullmatch(target)
    expected = _full_url(url, mark + query) if url else (base.path + target or b"/") + mark + query
    assert path == expected.partition(b"#")[0], f"{path!r} is not {expected!r}"
    if url:
        _judge_origin(origin, url, base, which)
    else:
        assert origin == base.origin
        assert inside
    assert not inside or (path.partition(b"?")[0] + b"/").startswith(base.path + b"/")
    return "full" if url else "path"


def _full_url(url: re.Match[bytes], rest: bytes) -> bytes:
    """Path and query behind the authority."""
    after = url[2].partition(b"#")
    _, slash, path = after[0].partition(b"/")
    return (slash or b"/") + path + (b"" if after[1] else rest)


def _judge_origin(origin: Origin, url: re.Match[bytes], base: Base, which: int) -> None:
    """The origin is the one that everybody else reads there, and is allowed."""
    parts = urlsplit(b"%b://%b" % (url[1].lower(), url[2].partition(b"#")[0]))
    host = (parts.hostname or b"").decode("ascii")
    assert parts.username is None
    if ":" in host:
        host = str(ipaddress.IPv6Address(host))
    port = parts.port or {"http": 80, "https": 443}[origin.scheme]
    assert origin == (parts.scheme.decode(), host, port)
    assert not host.endswith(".")
    if origin == base.origin:
        return
    assert which, "no other origin is allowed"
    if which == 2:
        assert origin.scheme == "https" or base.origin.scheme == "http", "a downgrade"
        return
    listed = origin in (("https", "files.example.com", 443), ("http", "2001:db8::1", 80))
    assert listed or (origin.host.endswith(".cdn.example.com") and (origin.scheme, origin.port) == ("https", 8443))


def _climbs(path: bytes, inside: bool) -> bool:
    """Whether a server could find a dot segment, decoding before or after it splits, with parameters or without."""
    if inside:
        segments = re.split(rb"[/\\]", unquote_to_bytes(path))
    else:
        segments = [unquote_to_bytes(segment) for segment in path.split(b"/")]
    return any(segment.partition(b";")[0] in (b".", b"..") for segment in segments)


_OURS = b"/connections/c/proxy"
SEEDS = [
    *[
        _OURS,
        _OURS + b"/",
        _OURS + b"?x=1",
        _OURS + b"/v1/users/42?page=2&q=%20",
        b"/other",
        b"/connections/c/proxyfoo",
    ],
    *[_OURS + b"/a%2Fb//c/;d/e%20f", b"/connections/a%20b%40c/proxy/x", b"/connections/%2e%2e/proxy/x"],
    *[_OURS + b"/https://api.example.com/v1/x?y", _OURS + b"/HTTPS://files.example.com:443/a%2Fb#frag"],
    *[
        _OURS + b"/https:/a.cdn.example.com:8443/x",
        _OURS + b"/http://[2001:db8::1]/x",
        _OURS + b"/http://1.2.3.4:8080/",
    ],
    *[_OURS + b"/https:/api.example.com", _OURS + b"/https%3A%2F%2Fevil.example/", b"/app" + _OURS + b"/x\x1f\x1f/app"],
    *[_OURS + b"/a%2Fb\x1f/connections/c/proxy/a/b\x1f", b"/connections/c/proxy/x\x1f/connections/d/proxy/y"],
    *[_OURS + b"/.../..a/a../.a", _OURS + b"/%C3%A9/%ff", _OURS + b"/a;/..b;/x", _OURS + b"/a\\b", _OURS + b"//x"],
]
WORDS = [
    *[
        b"/",
        b"//",
        b"\\",
        b"%2f",
        b"%5C",
        b"..",
        b".",
        b"%2e",
        b"%2E%2e",
        b"/../",
        b"/./",
        b"/..;",
        b"/..%3b",
        b"..%2f",
    ],
    *[
        b"%252e%252e",
        b";",
        b"?",
        b"#",
        b"@",
        b":",
        b"%",
        b"%00",
        b"%0d%0a",
        b"\r\n",
        b"\n",
        b"\0",
        b" ",
        b"\t",
        b"\x7f",
    ],
    *[b"\xe9", b"\xc3\xa9", b"%C3%A9", b"%ff", b"%zz", b"\x1f", b"/connections", b"/proxy", b"/connections/c/proxy/"],
    *[b"https://", b"http://", b"https:/", b"HTTPS:///", b"api.example.com", b"evil.example", b"user@", b":443", b":0"],
    *[
        b"files.example.com",
        b".cdn.example.com:8443",
        b"[2001:db8::1]",
        b"[::ffff:1.2.3.4]",
        b"127.1",
        b"0x7f.1",
        b":99999",
    ],
    *[b"https://api.example.com", b"https://a.cdn.example.com:8443/", b"https://files.example.com", b"/v1", b"/v1/x"],
    *[
        b"/..%5c",
        b"/..%2f",
        b"..\\",
        b"/https://evilcdn.example.com:8443",
        b"/http://a.cdn.example.com:8443",
        b"/%2e.%5C",
    ],
    *[b"/http://files.example.com:443", b"/https://cdn.example.com:8443", b"/https://api.example.com.evil.example"],
    *[b"2130706433", b"1.2.3.4", b"[::1%25lo]", b"%2e", b"\xef\xbc\x8e", b"xn--a", b"a" * 70, b"?x=1", b"#f", b"/app"],
]
