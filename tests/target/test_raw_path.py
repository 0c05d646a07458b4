"""Which path counts: the raw one against the decoded one."""

import logging
from urllib.parse import unquote, unquote_to_bytes

import pytest
from hypothesis import given

from proxy_middleware import _target
from proxy_middleware._target import Match
from proxy_middleware.errors import InvalidTarget
from tests.target.requests import MATCHER, RAW_TARGETS, SERVER_PATH, environ, scope

TARGET = SERVER_PATH.removeprefix("/connections/c/proxy").encode()
DECODED = unquote_to_bytes(SERVER_PATH).decode("latin-1")


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(environ(DECODED, RAW_URI=SERVER_PATH + "?x=1;y=%zz"), id="gunicorn"),
        pytest.param(environ(DECODED, REQUEST_URI=SERVER_PATH), id="waitress"),
        pytest.param(environ(DECODED, RAW_URI=SERVER_PATH, REQUEST_URI="/other"), id="RAW_URI first"),
        pytest.param(environ(DECODED, RAW_URI=SERVER_PATH + "#frag"), id="fragment"),
        pytest.param(environ(DECODED, RAW_URI="http://other.example:80" + SERVER_PATH + "?x"), id="absolute-form"),
        pytest.param(environ(DECODED.replace("a/b", "a%2Fb"), REQUEST_URI=SERVER_PATH), id="cheroot"),
        pytest.param(environ(DECODED) | {"asgi.scope": {"raw_path": SERVER_PATH.encode()}}, id="a2wsgi"),
        pytest.param(environ("http://o" + DECODED, REQUEST_URI="http://o" + SERVER_PATH), id="uWSGI absolute-form"),
    ],
)
def test_wsgi_raw_path(request_: dict[str, object]) -> None:
    """The raw path is taken from where the server puts it, without authority, query and fragment."""
    assert MATCHER.match_wsgi(request_) == Match("c", TARGET)


@pytest.mark.parametrize(
    "raw",
    [
        SERVER_PATH.encode(),
        b"http://other.example" + SERVER_PATH.encode(),
        SERVER_PATH.encode() + b"#frag",
    ],
)
def test_asgi_raw_path(raw: bytes) -> None:
    """Uvicorn with h11, hypercorn and others leave the authority and the fragment in both paths, others in one."""
    assert MATCHER.match_asgi(scope(raw)) == Match("c", TARGET)
    assert MATCHER.match_asgi(scope(raw, unquote(SERVER_PATH))) == Match("c", TARGET)


def test_query_in_raw_path_is_cut() -> None:
    """A raw_path that still has its query loses it."""
    assert MATCHER.match_asgi(scope(b"/connections/c/proxy?x=1", "/connections/c/proxy")) == Match("c", b"")


def test_undecodable_bytes_agree() -> None:
    """Bad UTF-8 decoded to U+FFFD is the same path, in both doors."""
    raw = "/connections/c/proxy/%ff%C3%A9"
    replaced = "/connections/c/proxy/\ufffdé"
    assert MATCHER.match_asgi(scope(raw.encode(), replaced)) == Match("c", b"/%ff%C3%A9")
    werkzeug = environ(replaced.encode().decode("latin-1"), RAW_URI=raw)
    assert MATCHER.match_wsgi(werkzeug) == Match("c", b"/%ff%C3%A9")
    assert MATCHER.match_asgi(scope(raw.encode(), "/connections/c/proxy/\udcffé")) == Match("c", b"/%ff%C3%A9")


def test_raw_utf8_bytes_are_handed_on() -> None:
    """Granian lets raw non-ASCII bytes through; they reach resolve_target, which refuses them."""
    found = MATCHER.match_asgi(scope("/connections/c/proxy/é".encode(), "/connections/c/proxy/é"))
    assert found == Match("c", "/é".encode())


def test_merged_leading_slashes_stay_the_hosts() -> None:
    """Waitress merges leading slashes in PATH_INFO only; the raw path, which is not ours, counts."""
    assert MATCHER.match_wsgi(environ("/connections/c/proxy/x", REQUEST_URI="//connections/c/proxy/x")) is None
    assert MATCHER.match_wsgi(environ("/connections/c/proxy/x", REQUEST_URI="/%2Fconnections/c/proxy/x")) is None


def test_rewritten_path_counts() -> None:
    """Where another middleware rewrote the decoded path, that one is re-quoted and counts."""
    rewritten = scope(b"/api/connections/c/proxy/a%2Fb", "/connections/c/proxy/a b?#%é")
    assert MATCHER.match_asgi(rewritten) == Match("c", b"/a%20b%3F%23%25%C3%A9")
    assert MATCHER.match_asgi(scope(b"/connections/c/proxy/x", "/elsewhere")) is None
    assert MATCHER.match_wsgi(environ("/connections/d/proxy/y", RAW_URI="/z")) == Match("d", b"/y")


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"/connections/c/proxy/a/../b", "/connections/c/proxy/b"),
        (b"/connections/c/proxy/a/%2e%2E/b", "/connections/c/proxy/b"),
        (b"/connections/c/proxy/a/..%2fb", "/connections/c/proxy/b"),
        (b"/connections/c/proxy/../../login", "/login"),
        (b"/static/../connections/c/proxy/x", "/connections/c/proxy/x"),
        (b"/connections/c/proxy/x", "/connections/c/proxy/../x"),
        (b"/x", "/connections/c/proxy/..;/x"),
        (b"/x", "/connections/c/proxy/..\\x"),
    ],
)
def test_disagreement_with_dot_segments_is_refused(raw: bytes, path: str) -> None:
    """Somebody resolved dot segments (uWSGI does): where either reading is ours, that is a 400."""
    with pytest.raises(InvalidTarget):
        MATCHER.match_asgi(scope(raw, path))
    with pytest.raises(InvalidTarget):
        MATCHER.match_wsgi(environ(path, REQUEST_URI=raw.decode()))


def test_disagreement_about_a_hosts_path_is_the_hosts() -> None:
    """Where neither reading is ours, the host gets the request, dot segments and all."""
    assert MATCHER.match_asgi(scope(b"/connections/../x", "/x")) is None
    assert MATCHER.match_asgi(scope(b"/x/../connections/y", "/connections/y")) is None


def test_missing_raw_path_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """Without a raw path the re-quoted one is used, and the log says so once per process."""
    _target._say_requoted.cache_clear()
    with caplog.at_level(logging.WARNING, "proxy_middleware"):
        info = "/connections/c/proxy/a/b é%?#;=".encode().decode("latin-1")
        for _ in range(2):
            assert MATCHER.match_wsgi(environ(info)) == Match("c", b"/a/b%20%C3%A9%25%3F%23;=")
        assert MATCHER.match_asgi(scope(None, "/connections/c/proxy/a b")) == Match("c", b"/a%20b")
        assert MATCHER.match_wsgi(environ("/elsewhere")) is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_absolute_form_without_a_raw_path() -> None:
    """Gevent leaves the authority in PATH_INFO."""
    assert MATCHER.match_wsgi(environ("http://o.example/connections/c/proxy/x")) == Match("c", b"/x")


@given(RAW_TARGETS)
def test_doors_agree(target: bytes) -> None:
    """Both doors find the same target in what a server that decodes plainly hands over."""
    path = b"/connections/c/proxy" + target
    wsgi = environ(unquote_to_bytes(path).decode("latin-1"), RAW_URI=path.decode() + "?q")
    assert MATCHER.match_asgi(scope(path)) == MATCHER.match_wsgi(wsgi) == Match("c", target)
