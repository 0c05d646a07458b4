"""Fields that make frameworks act on another method or path than the one that was checked."""

from typing import Any

import pytest

from proxy_middleware import Connection
from proxy_middleware._fields import Field
from tests.script import Script, play, request

PATHS = [b"X-Original-URL", b"x-rewrite-url", b"X_Original_URL", b"x_rewrite_URL", b"x-rewrite_url"]
METHODS = [b"X-HTTP-Method-Override", b"x-http-method", b"X-Method-Override", b"x_http_method_override"]
OTHERS: list[Field] = [(b"x-original", b"1"), (b"x-url", b"2")]

RESTRICTED_PATHS: list[dict[str, Any]] = [
    {"paths": ["/crm/**"]},
    {"base_url": "https://api.example.com/v1"},
    {"base_url": "https://api.example.com/v1", "paths": ["/crm/**"], "methods": ["GET"]},
]
RESTRICTED_METHODS: list[dict[str, Any]] = [{"methods": ["GET"]}, {"methods": ["GET"], "paths": ["/crm/**"]}]
FREE_PATHS: list[dict[str, Any]] = [{}, {"base_url": "https://api.example.com/"}, {"methods": ["GET"]}]
FREE_METHODS: list[dict[str, Any]] = [{}, {"base_url": "https://api.example.com/v1"}, {"paths": ["/crm/**"]}]


def passed(arguments: dict[str, Any], names: list[bytes]) -> list[Field]:
    """Which fields of these names, and of the others, get to the upstream of such a connection."""
    script = Script(connection=Connection("c", **{"base_url": "https://api.example.com"} | arguments))
    play(script, request("GET", b"/crm/x", *given(names)))
    return [field for field in script.sent[0].fields if field[0] not in (b"host", b"authorization")]


def given(names: list[bytes]) -> list[Field]:
    """What the caller sends: the others, and between them fields of these names."""
    return [OTHERS[0], *((name, b"/admin") for name in names), OTHERS[1]]


@pytest.mark.parametrize("arguments", RESTRICTED_PATHS)
def test_path_overrides_go(arguments: dict[str, Any]) -> None:
    """Where a base path or `paths` confine the caller, fields that override the path are dropped, however spelled."""
    assert passed(arguments, PATHS) == OTHERS


@pytest.mark.parametrize("arguments", FREE_PATHS)
def test_path_overrides_pass(arguments: dict[str, Any]) -> None:
    """Where the caller may call any path anyway, they pass."""
    assert passed(arguments, PATHS) == given(PATHS)


@pytest.mark.parametrize("arguments", RESTRICTED_METHODS)
def test_method_overrides_go(arguments: dict[str, Any]) -> None:
    """Where `methods` confine the caller, fields that override the method are dropped, however spelled."""
    assert passed(arguments, METHODS) == OTHERS


@pytest.mark.parametrize("arguments", FREE_METHODS)
def test_method_overrides_pass(arguments: dict[str, Any]) -> None:
    """Where the caller may use any method anyway, they pass."""
    assert passed(arguments, METHODS) == given(METHODS)


def test_connections_own_fields_stay() -> None:
    """What the connection itself adds is no override of the caller's."""
    arguments = {"paths": ["/crm/**"], "headers": {"X-Original-URL": "/crm"}}
    assert passed(arguments, PATHS) == [*OTHERS, (b"X-Original-URL", b"/crm")]
