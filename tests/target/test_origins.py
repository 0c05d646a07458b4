"""Origins, base URLs and patterns of origins."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_middleware._target import Base, Origin, parse_base, parse_origin, parse_origin_pattern
from proxy_middleware.errors import InvalidTarget


@pytest.mark.parametrize(
    ("authority", "origin"),
    [
        (b"API.Example.COM", Origin("https", "api.example.com", 443)),
        (b"api.example.com:443", Origin("https", "api.example.com", 443)),
        (b"localhost:8080", Origin("https", "localhost", 8080)),
        (b"my_bucket.s3.example.com", Origin("https", "my_bucket.s3.example.com", 443)),
        (b"xn--bcher-kva.example", Origin("https", "xn--bcher-kva.example", 443)),
        (b"1e100.example", Origin("https", "1e100.example", 443)),
        (b"127.0.0.1:1", Origin("https", "127.0.0.1", 1)),
        (b"[::1]:65535", Origin("https", "::1", 65535)),
        (b"[2001:DB8:0:0::1]", Origin("https", "2001:db8::1", 443)),
        (b"a" * 63 + b".example", Origin("https", "a" * 63 + ".example", 443)),
    ],
)
def test_origin_is_normalised(authority: bytes, origin: Origin) -> None:
    """Equal origins parse to equal values."""
    assert parse_origin(authority, "https") == origin
    assert parse_origin(origin.authority, "https") == origin


@pytest.mark.parametrize(
    "authority",
    [
        *[
            b"",
            b".",
            b"a.",
            b".a",
            b"a..b",
            b"-a.example",
            b"a-.example",
            b"_a.example",
            b"a" * 64,
            b"a." * 127 + b"aa",
        ],
        *[b"user@a.example", b"a:b@c.example", b"a.example:", b"a.example:0", b"a.example:65536", b"a.example:+1"],
        *[
            b"a.example:1_0",
            b"a.example:80x",
            b"a.example:8 0",
            b"a.example:000080",
            b"a.example\\@b.example",
            b"a%2eb",
        ],
        *[b"a b", b"a\t", b"a\n", b"a\x00", "bücher.example".encode(), "127。0。0。1".encode(), b"a*b", b"*", b"*.a"],
        *[
            b"127.1",
            b"2130706433",
            b"0x7f.1",
            b"0x7f000001",
            b"0X7F.1",
            b"0177.0.0.1",
            b"1.2.3.256",
            b"1.2.3.4.5",
            b"a.0x",
        ],
        *[b"a.1", b"127.0.0.01", b"[::1", b"::1", b"[::1%25eth0]", b"[::1%eth0]", b"[v1.a]", b"[127.0.0.1]", b"[:::]"],
    ],
)
def test_malformed_authority_is_refused(authority: bytes) -> None:
    """Hosts that parsers read differently, and addresses in odd spellings, are malformed."""
    with pytest.raises(InvalidTarget):
        parse_origin(authority, "https")


def test_origin_as_text() -> None:
    """The Host field and the text leave the default port out and put IPv6 into brackets."""
    assert Origin("https", "a.example", 443).authority == b"a.example"
    assert Origin("http", "a.example", 443).authority == b"a.example:443"
    assert Origin("http", "::1", 80).authority == b"[::1]"
    assert str(Origin("https", "::1", 8443)) == "https://[::1]:8443"
    assert len({Origin("http", "a", 80), parse_origin(b"A:80", "http")}) == 1


@given(st.binary(max_size=40))
def test_parsed_origins_are_plain(authority: bytes) -> None:
    """Whatever parses holds no user, escape, blank or control character."""
    try:
        origin = parse_origin(authority, "http")
    except InvalidTarget:
        return
    assert re.fullmatch(r"[a-z0-9._-]+|[0-9a-f:.]+", origin.host)
    assert 1 <= origin.port <= 65535


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("https://api.example.com", Base(Origin("https", "api.example.com", 443), b"")),
        ("HTTPS://API.example.com/", Base(Origin("https", "api.example.com", 443), b"")),
        ("http://127.0.0.1:8000/v1/", Base(Origin("http", "127.0.0.1", 8000), b"/v1")),
        ("https://a.example/A%2Fb//c", Base(Origin("https", "a.example", 443), b"/A%2Fb//c")),
    ],
)
def test_base_url(url: str, base: Base) -> None:
    """A base URL is an origin and a path without its trailing slash."""
    assert parse_base(url) == base


@pytest.mark.parametrize(
    "url",
    [
        *["", "api.example.com", "//api.example.com", "ftp://a.example", "https:/a.example", "https://", "https:///x"],
        *[
            "https://u:s3cret@a.example",
            "https://s3cret@a.example",
            "https://a.example?s3cret",
            "https://a.example/#s3cret",
        ],
        *["https://a.example/?", "https://a.example:0", "https://a.example:x", "https://a.example./", "https://127.1"],
        *[
            "https://é.example",
            "https://a.example/é",
            "https://a.example/a b",
            "https://a.example/\n",
            "https://a.example\n",
        ],
        *[
            "https://a.example/..",
            "https://a.example/a/../b",
            "https://a.example/%2e/",
            "https://a.example/a%2f..",
            " https://a",
        ],
        *["https://a.example\\b", "https://a.example/a\\..\\b", "https://a.example/..;x/b"],
    ],
)
def test_bad_base_url_is_refused(url: str) -> None:
    """A bad base URL is a ValueError with a sentence, which never repeats a secret."""
    with pytest.raises(ValueError, match=r"^a base URL ") as caught:
        parse_base(url)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "allowed", "refused"),
    [
        (
            "https://files.example.com",
            ["https://files.example.com", "https://files.example.com:443"],
            ["http://files.example.com", "https://x.files.example.com", "https://files.example.com:444"],
        ),
        (
            "https://*.example.com:8443",
            ["https://a.example.com:8443", "https://a.b.example.com:8443"],
            [
                "https://example.com:8443",
                "https://badexample.com:8443",
                "https://a.example.com",
                "http://a.example.com:8443",
            ],
        ),
        ("*", ["https://a.example", "https://a.example:1", "https://127.0.0.1"], ["http://a.example"]),
        ("http://[::1]:80", ["http://[0::1]"], ["https://[::1]", "http://[::2]"]),
    ],
)
def test_origin_pattern(pattern: str, allowed: list[str], refused: list[str]) -> None:
    """A pattern covers its origin, or the names below its star, on the same scheme and port."""
    parsed = parse_origin_pattern(pattern)
    assert all(parsed.allows(parse_base(url).origin) for url in allowed)
    assert not any(parsed.allows(parse_base(url).origin) for url in refused)


@pytest.mark.parametrize(
    "pattern",
    [
        *["", "**", "a.example", "*.com", "https://*", "http://*", "https://*.", "*://a.example", "https://a.*.com"],
        *[
            "https://*a.example",
            "https://*.*.example",
            "https://a.example/",
            "https://a.example/x",
            "https://a.example?x",
        ],
        *["https://u@a.example", "https://*.1.2.3.4", "https://*.[::1]", "ftp://a.example", "https://a.example."],
    ],
)
def test_bad_origin_pattern_is_refused(pattern: str) -> None:
    """An allowed origin is an origin, perhaps with a star for its first labels, and nothing else."""
    with pytest.raises(ValueError, match=r"^an allowed origin "):
        parse_origin_pattern(pattern)
