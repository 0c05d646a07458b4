"""The original product's SDKs for JavaScript, as they are, speak to the middleware instead."""

import gzip
import json
from typing import Any

import pytest

from tests.host_plugins import UPSTREAM_SECRET
from tests.integration.node.sdks import WORKSPACE_KEY, WORKSPACE_SECRET, Failed, Sdk, token
from tests.upstreams import Exchange, ScriptedUpstream, response

JSON = (b"Content-Type", b"application/json")
OBJECT = {"name": "Zoë", "tags": ["a", None, 1.5], "in": {"er": True}}
EXPIRED = response(401, (JSON,), b'{"message": "expired"}', reason=b"Unauthorized")


@pytest.mark.parametrize(
    ("method", "data"),
    [("get", ()), ("delete", ()), ("post", (OBJECT,)), ("put", ([1, "two"],)), ("patch", ({"a": None},)), ("post", ())],
)
def test_methods(sdk: Sdk, shared_upstream: ScriptedUpstream, method: str, data: tuple[Any, ...]) -> None:
    """Method and JSON arrive with the stored credential, and nothing of the SDK's own; its answer is the API's."""
    shared_upstream.answer(response(200, (JSON,), json.dumps(OBJECT).encode()))
    assert sdk.proxy("alice:crm", method, "/v3/owners", *data) == OBJECT
    (seen,) = shared_upstream.requests
    assert (seen.method, seen.target) == (method.upper().encode(), b"/base/v3/owners")
    assert [json.loads(seen.body)] == [*data] if data else seen.body == b""
    assert seen.values(b"authorization") == [f"Bearer {UPSTREAM_SECRET}".encode()]
    assert seen.values(b"membrane-api-version") == []
    assert (seen.header(b"user-agent") or b"").startswith(b"axios/")
    if data:
        assert seen.values(b"content-type") == [b"application/json"]


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/a/b?limit=2&x=1", b"/base/a/b?limit=2&x=1"),
        ("owners/", b"/base/owners/"),
        ("", b"/base"),
        ("?x=1", b"/base?x=1"),
        ("/a%2Fb//c;d", b"/base/a%2Fb//c;d"),
        ("/s?id=1&id=2&tag[]=a&tag[]=b&q=%5B%22%25", b"/base/s?id=1&id=2&tag[]=a&tag[]=b&q=%5B%22%25"),
        ("/s?q=two words", b"/base/s?q=two%20words"),
        ("/Zoë", b"/base/Zo%C3%AB"),
    ],
)
def test_paths(sdk: Sdk, shared_upstream: ScriptedUpstream, path: str, target: bytes) -> None:
    """What the SDK makes of a path and its query goes below the base URL, byte for byte."""
    assert sdk.proxy("crm", "get", path) == "ok"
    assert [seen.target for seen in shared_upstream.requests] == [target]


def test_full_url(sdk: Sdk, shared_upstream: ScriptedUpstream) -> None:
    """A full URL in place of a path is called as it is, where its origin is the connection's."""
    assert sdk.proxy("crm", "get", f"{shared_upstream.url}/v4/x?y=1") == "ok"
    assert [seen.target for seen in shared_upstream.requests] == [b"/v4/x?y=1"]


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        (response(200, ((b"Content-Type", b"text/plain"),), "Zoë".encode()), "Zoë"),
        (response(201, (JSON,), b"[]", reason=b"Created"), []),
        (response(200, (JSON, (b"Content-Encoding", b"gzip")), gzip.compress(b'{"a": 1}')), {"a": 1}),
        (b"HTTP/1.1 204 No Content\r\n\r\n", ""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "abc"),
    ],
    ids=["text", "empty list", "gzip", "nothing", "chunks"],
)
def test_answers(sdk: Sdk, shared_upstream: ScriptedUpstream, answer: bytes, value: object) -> None:
    """The SDK reads whatever the API answers as it would from the API itself."""
    shared_upstream.answer(answer)
    assert sdk.proxy("crm", "get", "/x") == value


def test_text_and_long_bodies(sdk: Sdk, shared_upstream: ScriptedUpstream) -> None:
    """A text is sent as a text, and a megabyte as it is."""
    for data in ("plain text, ünd more", "x" * 1024 * 1024):
        assert sdk.proxy("crm", "post", "/x", data) == "ok"
        assert shared_upstream.requests[-1].body == data.encode()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, {"status": "error", "message": "resource not found", "category": "OBJECT_NOT_FOUND"}),
        (422, {"type": "https://api.example.com/problems/field", "title": "Unprocessable"}),
        (429, {"type": "rate_limit_error", "error": {"message": "slow down"}}),
        (503, "busy"),
    ],
)
def test_errors_of_the_api(sdk: Sdk, shared_upstream: ScriptedUpstream, status: int, body: Any) -> None:
    """An error of the API's is none of the SDK's own classes, but a response with its status and body."""
    kind = JSON if isinstance(body, dict) else (b"Content-Type", b"text/plain")
    data = json.dumps(body) if isinstance(body, dict) else body
    shared_upstream.answer(response(status, (kind,), data.encode(), reason=b"No"))
    failed = sdk.proxy("crm", "get", "/x")
    assert (failed.kinds, failed.status, failed.body) == (["AxiosError"], status, body)


OWN_ERRORS = {
    "unknown": ("nothing", "get", "/x", "BadRequestError", "bad_request", "not_found"),
    "ambiguous": ("dup", "get", "/x", "BadRequestError", "bad_request", "ambiguous_selector"),
    "method": ("reading", "post", "/x", "BadRequestError", "bad_request", "access_denied"),
    "origin": ("crm", "get", "https://elsewhere.example/x", "BadRequestError", "bad_request", "access_denied"),
    "target": ("crm", "get", "/a;/..;/b", "BadRequestError", "bad_request", "invalid_target"),
    "credential": ("no-credential", "get", "/x", "ConnectionError", "connection", "access_token_expired"),
    "refused": ("closed", "get", "/x", "ConnectionError", "connection", "upstream_unreachable"),
    "slow": ("hasty", "get", "/x", "ConnectionError", "connection", "upstream_timeout"),
}
BASES = {"@integration-app/sdk": "IntegrationAppError", "@membranehq/sdk": "MembraneError"}


def _never_answer(exchange: Exchange) -> None:
    exchange.wait_closed(10)


@pytest.mark.parametrize("case", OWN_ERRORS)
def test_errors_of_the_middleware(sdk: Sdk, shared_upstream: ScriptedUpstream, case: str) -> None:
    """An error of the middleware's is thrown as the SDK's own class, with its type, key and message."""
    selector, method, path, kind, error_type, key = OWN_ERRORS[case]
    if case == "slow":
        shared_upstream.script(_never_answer)
    failed = sdk.proxy(selector, method, path)
    assert failed.kinds == [kind, BASES[sdk.name]]
    assert (failed.data["type"], failed.data["key"]) == (error_type, key)
    assert failed.message == failed.data["message"] == failed.data["detail"] != ""
    assert case == "slow" or shared_upstream.requests == []
    assert not any(secret in repr(failed) for secret in (UPSTREAM_SECRET, sdk.token, WORKSPACE_SECRET))


@pytest.mark.parametrize(
    "claims",
    [
        {"secret": WORKSPACE_SECRET[::-1]},
        {"exp": 1},
        {"exp": None},
        {"iss": "another workspace"},
        {"iss": None},
        {"nbf": 4102444800},
    ],
    ids=["key", "expired", "for ever", "workspace", "nobody", "later"],
)
def test_tokens_that_do_not_count(sdk: Sdk, shared_upstream: ScriptedUpstream, claims: dict[str, Any]) -> None:
    """A token of another key, workspace or time is the SDK's error for callers who are not authenticated."""
    failed = sdk.proxy("crm", "get", "/x", token=token(**claims))
    assert (failed.kinds[0], failed.data["key"]) == ("BadRequestError", "not_authenticated")
    assert shared_upstream.requests == []


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_tokens_of_every_kind(sdk: Sdk, shared_upstream: ScriptedUpstream, algorithm: str) -> None:
    """Tokens as the product's older and its later documentation make them, given or fetched, tell tenants apart."""
    older = token(algorithm, id="bob", fields={"plan": "x"})
    later = token(algorithm, iss=None, id=None, workspaceKey=WORKSPACE_KEY, tenantKey="bob")
    for options in ({"token": older}, {"accessToken": later}, {"fetched": later}):
        assert sdk.proxy("crm", "get", "/x", **options) == "ok"
    assert {seen.target for seen in shared_upstream.requests} == {b"/bobs/x"}
    assert {seen.header(b"authorization") for seen in shared_upstream.requests} == {
        f"Bearer {UPSTREAM_SECRET}-of-bob".encode()
    }
    assert sdk.proxy("alice:crm", "get", "/x", token=older).data["key"] == "not_found"


def test_token_that_the_sdk_makes(sdk: Sdk, shared_upstream: ScriptedUpstream) -> None:
    """The later SDK signs tokens by itself, on a server that has the workspace's secret."""
    options = {"workspaceKey": WORKSPACE_KEY, "workspaceSecret": WORKSPACE_SECRET, "tenantKey": "bob"}
    answer = sdk.proxy("crm", "get", "/x", **options)
    if sdk.name == "@membranehq/sdk":
        assert (answer, shared_upstream.requests[0].target) == ("ok", b"/bobs/x")
    else:
        assert isinstance(answer, Failed)


@pytest.mark.parametrize(("method", "data"), [("get", ()), ("post", (OBJECT,))])
def test_refresh(sdk: Sdk, shared_upstream: ScriptedUpstream, method: str, data: tuple[Any, ...]) -> None:
    """The SDK hears nothing of a credential that expires and is refreshed."""
    shared_upstream.answer(EXPIRED, response(200, (JSON,), b'{"a": 1}'))
    assert sdk.proxy("expiring", method, "/x", *data) == {"a": 1}
    first, second = shared_upstream.requests
    assert (first.method, first.body) == (second.method, second.body)
    assert first.header(b"authorization") != second.header(b"authorization")


def test_refresh_that_fails(sdk: Sdk, shared_upstream: ScriptedUpstream) -> None:
    """Where it cannot be refreshed, the SDK gets the API's own 401."""
    shared_upstream.answer(EXPIRED)
    failed = sdk.proxy("refresh-fails", "get", "/x")
    assert (failed.kinds, failed.status, failed.body) == (["AxiosError"], 401, {"message": "expired"})


def test_everything_else_is_the_host(sdk: Sdk, shared_upstream: ScriptedUpstream) -> None:
    """What the SDK asks beside the proxy, such as for the connection's record, the host application answers."""
    for steps, args in ((["get"], []), (["request"], ["/x", {}]), (["archive"], [])):
        failed = sdk.ask("crm", steps, args)
        assert (failed.kinds, failed.status, failed.body) == (["AxiosError"], 404, "host")
    assert shared_upstream.requests == []
