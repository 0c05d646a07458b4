"""Which links of a response are turned into the proxy's form."""

import re
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_middleware import Connection, ProxyRequest
from proxy_middleware._fields import Field
from proxy_middleware._links import rewrite_links
from tests.links import API, HOST, PLACE, SITE, asked, rewritten
from tests.target.requests import environ, scope

# URI references


@pytest.mark.parametrize(
    ("url", "short"),
    [
        (b"https://api.example.com/v3/owners?page=2", b"/owners?page=2"),
        (b"https://api.example.com/v3", b""),
        (b"https://api.example.com/v3/", b"/"),
        (b"https://api.example.com/v3?", b"?"),
        (b"HTTPS://API.example.COM:443/v3/x", b"/x"),
        (
            b"https://api.example.com/v3//a%2Fb//c%zz;d='e'?f=%2f&g=h+i/../j#k%20",
            b"//a%2Fb//c%zz;d='e'?f=%2f&g=h+i/../j#k%20",
        ),
        (b"https://api.example.com/v3/a/./b/../c", b"/a/c"),
        (b"//api.example.com/v3/x", b"/x"),
        (b"https://api.example.com/v4/x?y", b"/https://api.example.com/v4/x?y"),
        (b"https://api.example.com/v3/../v4", b"/https://api.example.com/v4"),
        (b"https://api.example.com/v33/x", b"/https://api.example.com/v33/x"),
        (b"https://api.example.com", b"/https://api.example.com/"),
        (b"https://api.example.com/v3/https://evil.test/", b"/https://api.example.com/v3/https://evil.test/"),
        (b"https://files.example.com/v3/x#y", b"/https://files.example.com/v3/x#y"),
        (b"//a.eu.test:443?x", b"/https://a.eu.test/?x"),
    ],
)
def test_own_url_becomes_one_of_the_proxy(url: bytes, short: bytes) -> None:
    """An absolute URL of the connection's origins is an absolute URL of the proxy, and its path is untouched."""
    assert rewritten(url) == SITE + PLACE + short


@pytest.mark.parametrize(
    "reference",
    [
        b"",
        b"https://elsewhere.example/v3/x",
        b"https://api.example.com:8443/v3/x",
        b"http://api.example.com/v3/x",
        b"https://user@api.example.com/v3/x",
        b"https://api.example.com\\@elsewhere.example/v3/x",
        b"https://api.example.com./v3/x",
        b"//elsewhere.example/x",
        b"https:/api.example.com/v3/x",
        b"https:api",
        b"https:///v3/x",
        b"mailto:someone@api.example.com",
        b"ftp://api.example.com/v3/x",
        b"https://api.example.com/v3/a b",
        b"https://api.example.com/v3/%2e%2e/x",
        b"https://api.example.com/v3/..;/x",
        b"https://api.example.com/v3/caf\xc3\xa9",
        b"https://api.example.com/v3/\tx",
        b"https://api.example.com/v3/" + b"x" * 20_000,
        b"/v3/a b",
    ],
)
def test_all_else_stays(reference: bytes) -> None:
    """What points elsewhere, or what the proxy would refuse, stays as it came."""
    assert rewritten(reference) == reference


@pytest.mark.parametrize(
    ("reference", "path"),
    [
        (b"/v3/x?y#z", b"/x?y#z"),
        (b"/v3", b""),
        (b"/v4", b"/https://api.example.com/v4"),
        (b"/", b"/https://api.example.com/"),
        (b"/v3/../x", b"/https://api.example.com/x"),
    ],
)
def test_path_stays_a_path(reference: bytes, path: bytes) -> None:
    """A path of the upstream is a path of the proxy."""
    assert rewritten(reference) == PLACE + path


def test_path_is_one_of_the_origin_that_was_asked() -> None:
    """A path in the answer of a further origin leads there."""
    assert rewritten(b"/v3/x", asked(b"/https://files.example.com/a")) == PLACE + b"/https://files.example.com/v3/x"


@pytest.mark.parametrize(
    ("target", "reference"),
    [
        (b"/owners?page=1", b"?page=2"),
        (b"/owners", b"#part"),
        (b"/owners", b"next?x#y"),
        (b"/a/b/c", b"../x"),
        (b"/a/b/c", b"./.././d/../../x"),
        (b"", b"?page=2"),
        (b"/https://files.example.com", b"?page=2"),
        (b"/https://files.example.com/a/b", b"../c"),
        (b"/https:/files.example.com/a", b"b"),
    ],
)
def test_relative_reference_that_means_the_same_stays(target: bytes, reference: bytes) -> None:
    """What is relative to the upstream's URL is as relative to the proxy's."""
    assert rewritten(reference, asked(target)) == reference


@pytest.mark.parametrize(
    ("target", "reference", "path"),
    [
        (b"/owners", b"../x?y#z", b"/https://api.example.com/x?y#z"),
        (b"/a/b", b"../../../v3/x", b"/x"),
        (b"", b"next", b"/https://api.example.com/next"),
        (b"", b"v3/next", b"/next"),
        (b"/https://files.example.com", b"next", b"/https://files.example.com/next"),
        (b"/https://files.example.com/a/b", b"../../../c", b"/https://files.example.com/c"),
    ],
)
def test_relative_reference_that_would_leave_is_resolved(target: bytes, reference: bytes, path: bytes) -> None:
    """Where dots would climb out of the proxy's path, or there is no path to be relative to, the upstream's counts."""
    assert rewritten(reference, asked(target)) == PLACE + path


def test_relative_reference_that_leaves_for_another_origin_is_resolved() -> None:
    """Climbing out of a full URL leads to the base URL, which has such a path, too."""
    connection = Connection("c", "https://api.example.com", allowed_origins=("https://files.example.com",))
    request = asked(b"/https://files.example.com/a")
    assert rewritten(b"../../../x", request, connection) == PLACE + b"/https://files.example.com/x"


def test_relative_reference_that_leaves_for_a_path_of_the_same_length_is_resolved() -> None:
    """What is beside the proxy is not in it."""
    connection = Connection("c", "https://api.example.com/abcde")
    assert rewritten(b"../abcde/x", asked(b"/a"), connection) == PLACE + b"/x"


def test_relative_reference_may_look_like_the_end_of_the_place() -> None:
    """Only whole segments are compared."""
    connection = Connection("c", "https://api.example.com/proxy")
    assert rewritten(b"proxyfoo", asked(b""), connection) == PLACE + b"/https://api.example.com/proxyfoo"


# Where the proxy is


@pytest.mark.parametrize(
    "host",
    [
        (),
        ((b"host", b"a.test"), (b"host", b"b.test")),
        *(
            ((b"host", value),)
            for value in (b"", b"a.test,b.test", b"u@a.test", b"a.test/x", b"a b", b"a.test:x", b'"a"', b"a>b")
        ),
    ],
)
def test_without_a_valid_host_it_is_a_path(host: tuple[Field, ...]) -> None:
    """Where the caller's Host is missing, malformed or not the only one, a URL becomes a path."""
    assert rewritten(b"https://api.example.com/v3/x", asked(fields=host)) == PLACE + b"/x"


@pytest.mark.parametrize("host", [b"app.test", b"127.0.0.1:80", b"[::1]:8000", b"App.Test:443"])
def test_host_and_scheme_are_the_callers(host: bytes) -> None:
    """The URL begins with the scheme that the server names, and the Host as the caller spelled it."""
    request = asked(fields=((b"Host", host),), scheme="https")
    assert rewritten(b"https://api.example.com/v3/x", request) == b"https://" + host + PLACE + b"/x"
    assert rewritten(b"https://api.example.com/v3/x", asked(scheme="gopher")) == PLACE + b"/x"


@pytest.mark.parametrize(
    ("root", "raw", "path", "place"),
    [
        ("", b"/connections/%63/proxy/x", None, b"/connections/%63/proxy"),
        ("", b"http://a.test/connections/c/proxy/x", None, b"/connections/c/proxy"),
        ("/m", b"/m/connections/c/proxy/x", None, b"/m/connections/c/proxy"),
        ("/m/", b"/%6d/connections/c/proxy/x", None, b"/%6d/connections/c/proxy"),
        ("/conn", b"/connections/c/proxy/x", None, b"/conn/connections/c/proxy"),
        ("/m n", b"/connections/c/proxy/x", None, b"/m%20n/connections/c/proxy"),
        ("/m", None, "/m/connections/a b/proxy/x", b"/m/connections/a%20b/proxy"),
        ("", b"/old", "/connections/c/proxy/x", b"/connections/c/proxy"),
        ("", b"/old/x", "/connections/c/proxy/x", b"/connections/c/proxy"),
    ],
)
def test_place_is_what_the_caller_has(root: str, raw: bytes | None, path: str | None, place: bytes) -> None:
    """The mount prefix comes first, even if a front server cuts it off, and the selector is spelled as it came."""
    under_asgi = ProxyRequest("GET", "c", b"/x", [HOST], scope=scope(raw, path, root))
    assert rewritten(b"/v3/y", under_asgi) == place + b"/y"
    decoded = unquote(raw.decode().removeprefix("http://a.test")) if path is None and raw else path or ""
    info, script = (decoded.removeprefix(root), root) if decoded.startswith(root + "/") else (decoded, root)
    keys = {"RAW_URI": raw.decode()} if raw else {}
    under_wsgi = ProxyRequest("GET", "c", b"/x", [HOST], environ=environ(info, script.rstrip("/"), **keys))
    assert rewritten(b"/v3/y", under_wsgi) == place + b"/y"


def test_pinned_mount_prefix_beats_the_servers() -> None:
    """Where the application names the mount prefix, nobody else does."""
    request = asked(root_path="/chosen-by-the-caller")
    assert rewritten(b"/v3/x", request, root_path="") == PLACE + b"/x"
    assert rewritten(b"/v3/x", request, root_path="/api") == b"/api" + PLACE + b"/x"
    assert rewritten(b"/v3/x", asked(place=b"/api" + PLACE), root_path="/api") == b"/api" + PLACE + b"/x"


@pytest.mark.parametrize("root", ["//evil.test", "/a\r\nSet-Cookie: b", "/a>b"])
def test_odd_mount_prefix_reaches_no_field(root: str) -> None:
    """A mount prefix that somebody else chose becomes neither an authority nor another field."""
    value = rewritten(b"https://api.example.com/v3/x", asked(root_path=root))
    assert re.fullmatch(rb"(?:https?://(?:app|api)\.\S+|/[^/\s>]\S*)", value)
    assert rewritten(b"/v3/x", asked(place=b"/a>b" + PLACE)) == b"/a%3Eb" + PLACE + b"/x"


@pytest.mark.parametrize("selector", [b".", b"..", b"%2e%2E"])
def test_dots_are_no_place(selector: bytes) -> None:
    """What clients would take out of a path is not put into one."""
    assert rewritten(b"/v3/x", asked(place=b"/connections/" + selector + b"/proxy")) == b"/v3/x"


def test_request_that_came_through_no_server_has_no_place() -> None:
    """A request without a path of its own gets what the upstream said."""
    request = ProxyRequest("GET", "c", b"/x", [HOST])
    assert rewritten(b"https://api.example.com/v3/x", request) == b"https://api.example.com/v3/x"


def test_wsgi_scheme() -> None:
    """Under WSGI the scheme is the server's, too."""
    request = ProxyRequest(
        "GET", "c", b"/x", [HOST], environ=environ("/connections/c/proxy/x", **{"wsgi.url_scheme": "https"})
    )
    assert rewritten(b"https://api.example.com/v3/x", request) == b"https://app.test:8000" + PLACE + b"/x"


# Fields


@pytest.mark.parametrize("name", [b"Location", b"content-location", b"Content-Location"])
def test_fields_are_known_in_every_spelling(name: bytes) -> None:
    """WSGI servers are handed the names as they came."""
    assert rewritten(b"/v3/x", name=name) == PLACE + b"/x"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"</v3/a>; rel=next", b"<P/a>; rel=next"),
        (b'<https://api.example.com/v3/a?b=1,2;c>;rel="next"', b'<SP/a?b=1,2;c>;rel="next"'),
        (b" ,</v3/a>;rel=x ,\t,</v3/b>,<?page=3>; rel=last,", b" ,<P/a>;rel=x ,\t,<P/b>,<?page=3>; rel=last,"),
        (b"<https://elsewhere.example/>; rel=a, </v3/b>; rel=b", b"<https://elsewhere.example/>; rel=a, <P/b>; rel=b"),
        (b'</v3/a>; title="x, </v3/b>; \\", </v3/c>", </v3/d>', b'<P/a>; title="x, </v3/b>; \\", </v3/c>", <P/d>'),
        (
            b'</v3/a>; anchor="/v3/b"; anchor="https://api.example.com/v3"',
            b'<P/a>; anchor="/v3/b"; anchor="https://api.example.com/v3"',
        ),
        (b"</v3/a>; title=</v3/b>", b"<P/a>; title=</v3/b>"),
        (b"", b""),
    ],
)
def test_only_targets_of_links_are_rewritten(value: bytes, expected: bytes) -> None:
    """RFC 8288: each link's target is rewritten, and what is quoted in its parameters is none."""
    expected = expected.replace(b"<S", b"<" + SITE).replace(b"P/", PLACE + b"/")
    assert rewritten(value, name=b"link") == expected


@pytest.mark.parametrize(
    "value",
    [
        b"/v3/a",
        b"/v3/a; rel=next",
        b"<</v3/a>>; rel=next",
        b"</v3/a; rel=next",
        b'</v3/a>; title="b',
        b"</v3/a>; rel=next, x",
        b'</v3/a> </v3/b>", </v3/c>',
    ],
)
def test_malformed_links_stay(value: bytes) -> None:
    """A value that is no list of links stays as it came."""
    assert rewritten(value, name=b"link") == value


def test_several_fields() -> None:
    """Every field of the name is rewritten, in its place; without any, the fields are the same object."""
    request = asked()
    fields = [(b"Link", b"</v3/a>"), (b"x", b"/v3/y"), (b"link", b"</v3/b>")]
    found = rewrite_links(fields, request, API, API.base.origin, b"/v3/owners", None)
    assert found == [(b"Link", b"<%b/a>" % PLACE), fields[1], (b"link", b"<%b/b>" % PLACE)]
    others = fields[1:2]
    assert rewrite_links(others, request, API, API.base.origin, b"/v3/owners", None) is others


@given(st.binary(max_size=60), st.sampled_from([b"location", b"link"]), st.binary(max_size=20))
def test_nothing_is_raised_and_nothing_injected(value: bytes, name: bytes, host: bytes) -> None:
    """Whatever the upstream and the caller say, the proxy adds nothing but printable ASCII."""
    found = rewritten(value, asked(fields=((b"host", host),)), name=name)
    assert set(found) <= set(value) | set(range(0x21, 0x7F))
