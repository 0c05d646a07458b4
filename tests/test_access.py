"""The ready-made authenticators."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from proxy_middleware import ProxyRequest, anyone, bearer_tokens, host_user
from proxy_middleware._plugins import for_asgi

AUTHENTICATE = bearer_tokens({"token-a": "alice", "token-b": {"name": "bob"}, "tøken": "eve", "zero": 0})


def request(*authorization: bytes, scope: Any = None, environ: Any = None) -> ProxyRequest:
    """A caller's request with these Authorization fields."""
    fields = [(b"accept", b"*/*"), *((b"authorization", value) for value in authorization)]
    return ProxyRequest("GET", "c", b"/", fields, scope=scope, environ=environ)


@pytest.mark.parametrize(
    ("value", "caller"),
    [
        (b"Bearer token-a", "alice"),
        (b"bearer token-a", "alice"),
        (b"BEARER  token-b ", {"name": "bob"}),
        ("Bearer tøken".encode(), "eve"),
        (b"Bearer zero", 0),
    ],
)
def test_known_token(value: bytes, caller: object) -> None:
    """A known token gives its caller, whatever that is; the scheme is compared without regard to case."""
    assert AUTHENTICATE(request(value)) == caller


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"Bearer",
        b"Bearer ",
        b"Bearer token",
        b"Bearer token-ab",
        b"Bearer TOKEN-A",
        b"Bearer token-a token-b",
        b"Bearer token-a, Bearer token-b",
        b"Bearer\ttoken-a",
        b"Basic token-a",
        b"token-a",
        "Bearer tøken".encode("latin-1"),
    ],
)
def test_unknown_token(value: bytes) -> None:
    """Anything but exactly a known token is nobody."""
    assert AUTHENTICATE(request(value)) is None


def test_missing_or_doubled_token() -> None:
    """No Authorization field, or two of them, is nobody."""
    assert AUTHENTICATE(request()) is None
    assert AUTHENTICATE(request(b"Bearer token-a", b"Bearer token-a")) is None


@pytest.mark.parametrize("callers", [{"": "alice"}, {"token": None}])
def test_tokens_that_would_let_nobody_or_everybody_in(callers: dict[str, Any]) -> None:
    """An empty token or a caller of None is a mistake, said without the tokens."""
    with pytest.raises(ValueError, match="bearer_tokens"):
        bearer_tokens({"good": "alice", **callers})


def test_later_changes_do_not_count() -> None:
    """What is done to the mapping later changes nothing."""
    callers = {"token": "alice"}
    authenticate = bearer_tokens(callers)
    callers["other"] = "mallory"
    assert authenticate(request(b"Bearer other")) is None


def test_tokens_are_not_kept_in_clear() -> None:
    """The authenticator holds no token that a dump of its variables would show."""
    cells = [cell.cell_contents for cell in AUTHENTICATE.__closure__ or ()]  # type: ignore[attr-defined]
    assert "token-a" not in repr(cells)


class LazyUser:
    """A user object, as Starlette and Django know them."""

    def __init__(self, authenticated: bool) -> None:
        self.is_authenticated = authenticated


@pytest.mark.parametrize(
    ("scope", "known"),
    [
        ({}, False),
        ({"user": None}, False),
        ({"user": LazyUser(False)}, False),
        ({"user": LazyUser(True)}, True),
        ({"user": "alice"}, True),
        ({"user": SimpleNamespace(name="alice")}, True),
    ],
)
def test_host_user_under_asgi(scope: dict[str, Any], known: bool) -> None:
    """The user in the scope is the caller, if it is signed in."""
    assert host_user(request(scope=scope)) == (scope.get("user") if known else None)


@pytest.mark.parametrize(
    ("environ", "caller"),
    [
        ({}, None),
        ({"REMOTE_USER": ""}, None),
        ({"REMOTE_USER": "alice"}, "alice"),
        ({"HTTP_REMOTE_USER": "mallory"}, None),
    ],
)
def test_host_user_under_wsgi(environ: dict[str, Any], caller: object) -> None:
    """REMOTE_USER is the caller; a header field of that name is not."""
    assert host_user(request(environ=environ)) == caller


def test_anyone() -> None:
    """Everybody is somebody."""
    assert anyone(request()) is not None


@pytest.mark.parametrize("authenticate", [anyone, host_user, AUTHENTICATE])
def test_none_of_them_needs_a_thread(authenticate: Callable[..., object]) -> None:
    """The ready-made authenticators never block, so that the event loop calls them itself."""
    assert for_asgi(authenticate) is authenticate
