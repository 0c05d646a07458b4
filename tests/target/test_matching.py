"""Which raw paths are ours, and what selector and target they hold."""

import re
from urllib.parse import quote, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_middleware._target import Match, Matcher
from proxy_middleware.errors import ConnectionNotFound, InvalidTarget
from tests.target.requests import MATCHER, RAW_TARGETS, environ, scope


@pytest.mark.parametrize(
    ("path", "target"),
    [
        (b"/connections/c/proxy", b""),
        (b"/connections/c/proxy/", b"/"),
        (b"/connections/c/proxy/crm/v3/owners/", b"/crm/v3/owners/"),
        (b"/connections/c/proxy//a//b", b"//a//b"),
        (b"/connections/c/proxy/a%2Fb%2f/%41;x/.", b"/a%2Fb%2f/%41;x/."),
        (b"/connections/c/proxy/https://api.example.com/v3//x", b"/https://api.example.com/v3//x"),
        (b"/connections/c/proxy/proxy/x", b"/proxy/x"),
        (b"/connections/c/proxy/%0a%00", b"/%0a%00"),
    ],
)
def test_target_is_what_follows_proxy(path: bytes, target: bytes) -> None:
    """What follows /proxy is handed on byte for byte."""
    assert MATCHER.match_asgi(scope(path)) == Match("c", target)
    assert MATCHER.match(path, "") == Match("c", target)


@pytest.mark.parametrize(
    "path",
    [
        b"/",
        b"/connections",
        b"/connections/",
        b"/connections/x",
        b"/connections/x/",
        b"/connections/x/proxyfoo",
        b"/connections/x/proxy%2Ffoo",
        b"/connections//proxy/x",
        b"/connections/x/y/proxy/z",
        b"/Connections/x/proxy/y",
        b"//connections/x/proxy/y",
        b"/other/connections/x/proxy/y",
        b"/c%6fnnections/x/proxy/y",
        b"/connections%2Fx/proxy/y",
        b"/connections/x%2Fproxy/y",
        b"/connections/x/pr%6fxy/y",
        b"*",
    ],
)
def test_other_paths_are_the_hosts(path: bytes) -> None:
    """What does not match literally on the raw bytes belongs to the host, whatever it decodes to."""
    assert MATCHER.match_asgi(scope(path)) is None
    assert MATCHER.match_wsgi(environ(unquote_to_bytes(path).decode("latin-1"), RAW_URI=path.decode())) is None


@pytest.mark.parametrize(
    ("raw", "selector"),
    [
        (b"hubspot", "hubspot"),
        (b"a.b_c~d:e@f+g-h", "a.b_c~d:e@f+g-h"),
        (b"user%40example.com", "user@example.com"),
        (b"a%20b", "a b"),
        (b"a+b", "a+b"),
        (b"x" * 256, "x" * 256),
    ],
)
def test_selector_is_decoded_once(raw: bytes, selector: str) -> None:
    """The selector is percent-decoded once; a plus sign is a plus sign."""
    assert MATCHER.match_asgi(scope(b"/connections/" + raw + b"/proxy/x")) == Match(selector, b"/x")


@pytest.mark.parametrize(
    "raw", [b"%2540", b"a%2Fb", b"%zz", b"%", b"%ff", b"%C3%A9", b"a%00", b"a%0a", b"a,b", b"a;b", b"a!", b"x" * 257]
)
def test_bad_selector_is_not_found(raw: bytes) -> None:
    """A selector outside the grammar is a 404 before any resolver is asked."""
    path = b"/connections/" + raw + b"/proxy/x"
    with pytest.raises(ConnectionNotFound):
        MATCHER.match_asgi(scope(path))
    with pytest.raises(ConnectionNotFound):
        MATCHER.match_wsgi(environ(unquote_to_bytes(path).decode("latin-1"), RAW_URI=path.decode()))


@given(st.text(st.sampled_from("aZ09_.~:@+ -"), min_size=1, max_size=256), RAW_TARGETS)
def test_selector_and_target_survive_the_round_trip(selector: str, target: bytes) -> None:
    """Whatever selector is quoted into the path comes out, and the target is untouched."""
    path = f"/connections/{quote(selector, safe='')}/proxy".encode() + target
    assert MATCHER.match_asgi(scope(path)) == Match(selector, target)


@given(st.text(st.characters(exclude_categories=["Cs"])), st.binary(), st.sampled_from(["", "/r", "/m%6e"]))
def test_matching_never_breaks_a_hosts_request(text: str, raw: bytes, root: str) -> None:
    """A path that does not hold the prefix goes to the host, however odd it is."""
    if "/connections" not in text and b"/connections" not in raw:
        assert MATCHER.match_asgi(scope(raw, text, root)) is None
        assert MATCHER.match_wsgi(environ(text, root, RAW_URI=raw.decode("latin-1"))) is None


@given(st.text(st.sampled_from("/connectis.xpry%2eEfF?#:;\\\u20ac"), max_size=30), st.binary(max_size=30))
def test_matching_raises_only_what_it_says(text: str, raw: bytes) -> None:
    """Odd paths below the prefix are matched, refused or left alone, and nothing else is raised."""
    for method, request in [
        (MATCHER.match_asgi, scope(b"/connections/" + raw, "/connections/" + text)),
        (MATCHER.match_wsgi, environ("/connections/" + text, RAW_URI="/connections/" + raw.decode("latin-1"))),
        (MATCHER.match_wsgi, environ("/connections/" + text)),
    ]:
        try:
            found = method(request)
        except (ConnectionNotFound, InvalidTarget):
            continue
        assert found is None or re.fullmatch(r"[\w.~:@+ -]{1,256}", found.selector, re.ASCII)


@pytest.mark.parametrize(
    "prefix", ["", "/", "connections", "/connections/", "//a", "/a//b", "/a b", "/é", "/a%20", "/.."]
)
def test_bad_prefix_is_refused(prefix: str) -> None:
    """A prefix is a path of plain ASCII segments."""
    with pytest.raises(ValueError, match="prefix"):
        Matcher(prefix)


def test_prefix_may_have_several_segments() -> None:
    """The prefix is taken literally, its dots too."""
    matcher = Matcher("/api/v1.0/links")
    assert matcher.match_asgi(scope(b"/api/v1.0/links/c/proxy/x")) == Match("c", b"/x")
    assert matcher.match_asgi(scope(b"/api/v1x0/links/c/proxy/x")) is None
