"""The frozen values: their defaults, and what they refuse."""

from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from proxy_middleware import (
    BrowserPolicy,
    Connection,
    EgressPolicy,
    Limits,
    ProxyRequest,
    Replay,
    ResponseHead,
    Timeouts,
    UpstreamRequest,
)

SECRET = "s3cret-canary"
HEAD = [(b"x-dup", b"1"), (b"X-Dup", b"2"), (b"x-latin", b"\xe9"), (b"x-empty", b"")]


def connection(**arguments: Any) -> Connection:
    """A connection with these arguments."""
    return Connection("c", "https://api.example.com/v1", **arguments)


# Settings


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (Timeouts(), {"pool": 10, "connect": 5, "head": 60, "idle": 60}),
        (
            Limits(),
            {
                "request_body": None,
                "connections_per_origin": 100,
                "connections": 1000,
                "keepalive": 60,
                "response_head": 65536,
            },
        ),
        (Replay(), {"memory": 262144, "disk": 16777216}),
        (EgressPolicy(), {"allow": (), "deny": ()}),
        (BrowserPolicy(), {"forward_cookies": False, "allowed_origins": (), "guard": True}),
    ],
)
def test_defaults(settings: Any, expected: dict[str, object]) -> None:
    """The defaults are the documented ones."""
    assert {name: getattr(settings, name) for name in expected} == expected
    assert settings == type(settings)(**expected)


@pytest.mark.parametrize("value", [0, -1, -0.5])
@pytest.mark.parametrize("name", ["pool", "connect", "head", "idle"])
def test_timeouts_are_above_zero(name: str, value: float) -> None:
    """A time-out is above zero, or None for no limit."""
    with pytest.raises(ValueError, match=f"Timeouts.{name}"):
        Timeouts(**{name: value})
    assert getattr(Timeouts(**{name: None}), name) is None
    assert getattr(Timeouts(**{name: 0.5}), name) == 0.5


@pytest.mark.parametrize(
    "name", ["request_body", "connections_per_origin", "connections", "keepalive", "response_head"]
)
def test_limits_are_above_zero(name: str) -> None:
    """A limit of nothing is a mistake."""
    for value in (0, -1):
        limits: dict[str, Any] = {name: value}
        with pytest.raises(ValueError, match=f"Limits.{name}"):
            Limits(**limits)


@pytest.mark.parametrize("name", ["connections_per_origin", "connections", "keepalive", "response_head"])
def test_only_the_request_body_may_be_without_limit(name: str) -> None:
    """None is no limit for the request body alone; elsewhere it is a mistake, seen when it is made."""
    with pytest.raises(ValueError, match=f"Limits.{name}"):
        Limits(**{name: None})  # type: ignore[arg-type]


def test_replay_limits() -> None:
    """Nothing may be kept, but not less than nothing."""
    assert Replay(memory=0, disk=0)
    for arguments in ({"memory": -1}, {"disk": -1}):
        with pytest.raises(ValueError, match="Replay"):
            Replay(**arguments)


@pytest.mark.parametrize(
    "entries", ["10.0.0.0/8", b"10.0.0.0/8", ["example.com"], ["10.0.0.1/8"], [""], ["10.0.0.0/33"]]
)
@pytest.mark.parametrize("name", ["allow", "deny"])
def test_egress_policy_takes_networks(name: str, entries: Any) -> None:
    """What is no list of networks is a ValueError, a network with host bits too."""
    with pytest.raises(ValueError, match=f"EgressPolicy.{name}"):
        EgressPolicy(**{name: entries})


def test_egress_policy_takes_addresses() -> None:
    """Single addresses and both families can be named."""
    assert EgressPolicy(allow=["127.0.0.1", "fd00::/8"], deny=("10.0.0.0/8",)) == EgressPolicy(
        allow=["127.0.0.1", "fd00::/8"], deny=("10.0.0.0/8",)
    )


@pytest.mark.parametrize(
    "origins",
    [
        "https://a.example",
        ["https://a.example/"],
        ["https://a.example/x"],
        ["https://a.example?x"],
        ["a.example"],
        ["*"],
        ["null"],
        ["https://*.a.example"],
        ["https://u:p@a.example"],
        [""],
    ],
)
def test_browser_policy_takes_origins(origins: Any) -> None:
    """What is no list of plain origins is a ValueError."""
    with pytest.raises(ValueError, match=r"origin|URL"):
        BrowserPolicy(allowed_origins=origins)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Timeouts(), "pool"),
        (Limits(), "connections"),
        (Replay(), "memory"),
        (EgressPolicy(), "allow"),
        (BrowserPolicy(), "guard"),
        (Connection("c", "https://a.example"), "base_url"),
        (ResponseHead(200, ()), "status"),
        (UpstreamRequest("GET", "https://a.example/", ()), "url"),
    ],
)
def test_values_are_frozen(value: object, name: str) -> None:
    """Values that are shared between requests cannot be changed."""
    with pytest.raises(FrozenInstanceError):
        setattr(value, name, None)


# Connections


def test_connection_defaults() -> None:
    """A connection needs an id and a base URL only."""
    plain = Connection("c", "https://api.example.com/v1")
    assert (plain.id, plain.base_url) == ("c", "https://api.example.com/v1")
    assert (plain.integration_key, plain.integration_id, plain.revision, plain.timeouts) == (None, None, None, None)
    assert (plain.methods, plain.paths) == (None, None)
    assert (list(plain.allowed_origins), dict(plain.headers), dict(plain.attributes)) == ([], {}, {})


def test_connection_options_are_keywords() -> None:
    """All but id and base URL are keywords, so that none is mistaken for another."""
    with pytest.raises(TypeError):
        Connection("c", "https://a.example", "key")  # type: ignore[call-arg]
    assert connection(integration_key="k", integration_id="i", attributes={"a": 1}, revision=3).attributes == {"a": 1}


@pytest.mark.parametrize(
    "arguments",
    [
        {"id": ""},
        {"base_url": ""},
        {"base_url": "api.example.com"},
        {"base_url": "ftp://api.example.com"},
        {"base_url": "https://api.example.com?x=1"},
        {"base_url": "https://api.example.com/a/../b"},
        {"base_url": "https://é.example"},
        {"base_url": "https://127.1"},
        {"allowed_origins": ["files.example.com"]},
        {"allowed_origins": ["https://files.example.com/x"]},
        {"allowed_origins": "https://files.example.com"},
        {"methods": "GET"},
        {"paths": "/x"},
        {"paths": ["x"]},
        {"headers": {"a b": "x"}},
        {"headers": {"": "x"}},
        {"headers": {"x-a": "x\r\ny: z"}},
        {"headers": {"Host": "x"}},
        {"headers": {"content_length": "1"}},
        {"headers": {"Transfer-Encoding": "chunked"}},
        {"headers": {"Connection": "x"}},
    ],
)
def test_malformed_connection(arguments: dict[str, Any]) -> None:
    """A connection that could not work, or would break the framing, is a ValueError when it is made."""
    with pytest.raises(ValueError, match=r"\w"):
        Connection(**{"id": "c", "base_url": "https://api.example.com", **arguments})


def test_secret_in_base_url_is_not_repeated() -> None:
    """A base URL with a password is refused without showing it."""
    with pytest.raises(ValueError, match="password") as caught:
        Connection("c", f"https://user:{SECRET}@api.example.com")
    assert SECRET not in str(caught.value)


def test_connection_hides_what_may_be_secret() -> None:
    """Headers and attributes, where applications put keys, are not shown."""
    shown = repr(connection(headers={"x-key": SECRET}, attributes={"refresh_token": SECRET}))
    assert SECRET not in shown
    assert "https://api.example.com/v1" in shown


def test_methods_may_come_from_a_generator() -> None:
    """What can be read only once is kept."""
    kept = connection(methods=(method for method in ("GET", "POST"))).methods
    assert kept is not None
    assert set(kept) == set(kept) == {"GET", "POST"}


def test_connections_can_be_compared() -> None:
    """Two records with the same content are equal."""
    assert connection(headers={"a": "b"}) == connection(headers={"a": "b"})
    assert connection() != connection(revision=2)


# What plugins are handed


@pytest.mark.parametrize("value", [ProxyRequest("GET", "c", b"/x", HEAD), ResponseHead(200, HEAD)])
def test_header_lookup(value: ProxyRequest | ResponseHead) -> None:
    """`header` gives the first field of a name, whatever the case, as ISO-8859-1 text."""
    assert value.header("X-DUP") == "1"
    assert value.header("x-latin") == "é"
    assert value.header("x-empty") == ""
    assert value.header("x-none") is None


def test_request_defaults() -> None:
    """Until somebody is authenticated there is no caller."""
    request = ProxyRequest("GET", "c", b"/x?y", ())
    assert (request.method, request.selector, request.target) == ("GET", "c", b"/x?y")
    assert (request.client, request.caller, request.scope, request.environ) == (None, None, None, None)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ProxyRequest("GET", "c", b"/", [(b"cookie", SECRET.encode())], scope={"headers": SECRET}),
        lambda: ProxyRequest("GET", "c", b"/", [], environ={"HTTP_COOKIE": SECRET}),
        lambda: UpstreamRequest("GET", f"https://a.example/?k={SECRET}", [(b"x", SECRET.encode())], SECRET.encode()),
        lambda: ResponseHead(200, [(b"set-cookie", SECRET.encode())]),
    ],
)
def test_requests_and_responses_hide_their_content(make: Callable[[], object]) -> None:
    """Fields, bodies and URLs, where credentials are, are not shown."""
    assert SECRET not in repr(make())


def test_upstream_request_has_no_body_by_default() -> None:
    """A signer that did not ask for the body finds None."""
    assert UpstreamRequest("GET", "https://a.example/", ()).body is None
    assert {field.name for field in fields(UpstreamRequest)} == {"method", "url", "fields", "body"}


@pytest.mark.parametrize("seconds", [float("inf"), 1e10, 10**400])
@pytest.mark.parametrize("name", ["pool", "connect", "head", "idle"])
def test_time_outs_that_no_socket_takes(name: str, seconds: float) -> None:
    """What is longer than any connection lives is no limit."""
    assert getattr(Timeouts(**{name: seconds}), name) is None
