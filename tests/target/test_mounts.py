"""Matching below a mount prefix."""

import pytest

from proxy_middleware._target import Match, Matcher
from tests.target.requests import MATCHER, environ, scope


@pytest.mark.parametrize(
    ("raw", "root"),
    [
        (b"/mnt/connections/c/proxy/a%2Fb", "/mnt"),
        (b"/mnt/connections/c/proxy/a%2Fb", "/mnt/"),
        (b"/m%6et/connections/c/proxy/a%2Fb", "/mnt"),
        (b"/a%20b/%C3%A9/connections/c/proxy/a%2Fb", "/a b/é"),
        (b"/a%2Fb/connections/c/proxy/a%2Fb", "/a/b"),
        (b"/a%2541/connections/c/proxy/a%2Fb", "/a%41"),
        (b"/connections/c/proxy/a%2Fb", "/r"),
        (b"/connections/c/proxy/a%2Fb", "/con"),
    ],
)
def test_mount_prefix_is_stripped_where_the_path_has_it(raw: bytes, root: str) -> None:
    """The raw segments that decode to root_path are cut off; where they are missing nothing is."""
    assert MATCHER.match_asgi(scope(raw, root=root)) == Match("c", b"/a%2Fb")
    assert MATCHER.match(raw, root) == Match("c", b"/a%2Fb")


@pytest.mark.parametrize(
    ("raw", "root"),
    [
        (b"/mnt/connections/c/proxy/x", ""),
        (b"/mnt/connections/c/proxy/x", "/fapi/mnt"),
        (b"/mnt%2Fconnections/c/proxy/x", "/mnt"),
        (b"/mntx/connections/c/proxy/x", "/mnt"),
        (b"/a%41/connections/c/proxy/x", "/a%41"),
    ],
)
def test_other_mounts_are_the_hosts(raw: bytes, root: str) -> None:
    """A path below another prefix than root_path is not ours."""
    assert MATCHER.match_asgi(scope(raw, root=root)) is None


def test_plain_path_below_a_mount() -> None:
    """The ordinary request below a mount matches as well, in both doors."""
    assert MATCHER.match_asgi(scope(b"/mnt/connections/c/proxy/x", root="/mnt")) == Match("c", b"/x")
    mounted = environ("/connections/c/proxy/x", "/mnt", RAW_URI="/mnt/connections/c/proxy/x?y")
    assert MATCHER.match_wsgi(mounted) == Match("c", b"/x")


def test_pinned_root_path_beats_the_requests() -> None:
    """Some servers let a client choose the root path; a pinned one is the only one that counts."""
    pinned = Matcher("/connections", root_path="/mnt")
    assert pinned.match_asgi(scope(b"/evil/connections/c/proxy/x", root="/evil")) is None
    assert pinned.match_asgi(scope(b"/mnt/connections/c/proxy/x", root="/fapi/mnt")) == Match("c", b"/x")
    assert Matcher("/connections", root_path="").match_asgi(scope(b"/r/connections/c/proxy/x", root="/r")) is None
    with pytest.raises(ValueError, match="root_path"):
        Matcher("/connections", root_path="mnt")


def test_frameworks_that_strip_the_decoded_path_only() -> None:
    """Where `path` lacks the mount prefix and `raw_path` has it, the raw path still counts."""
    request = scope(b"/mnt/connections/c/proxy/a%2Fb", "/connections/c/proxy/a/b", "/mnt")
    assert MATCHER.match_asgi(request) == Match("c", b"/a%2Fb")


@pytest.mark.parametrize("uri", ["/r/connections/c/proxy/a%2Fb", "/connections/c/proxy/a%2Fb"])
def test_waitress_url_prefix(uri: str) -> None:
    """Waitress names the prefix whether or not the request line has it."""
    assert MATCHER.match_wsgi(environ("/connections/c/proxy/a/b", "/r", REQUEST_URI=uri)) == Match("c", b"/a%2Fb")


def test_non_ascii_script_name() -> None:
    """SCRIPT_NAME is bytes in a latin-1 disguise; the raw path spells it with escapes."""
    mounted = environ(
        "/connections/c/proxy/x", "/é".encode().decode("latin-1"), RAW_URI="/%C3%A9/connections/c/proxy/x"
    )
    assert MATCHER.match_wsgi(mounted) == Match("c", b"/x")
