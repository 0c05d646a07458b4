"""What is raised, and what is an ordinary response, by heads that a real proxy may send."""

import json
import pickle
from typing import Any

import httpx
import pytest

from proxy_middleware import client as client_module
from proxy_middleware import errors
from proxy_middleware._problem import problem
from proxy_middleware.client import ConnectionNotFound, ProxyClient, ProxyFailed
from tests.client.colours import Colour

ALL = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, errors.ProxyError)]
# What is not called like its counterpart, nor a kind of one that is.
OTHERS = {424: client_module.CredentialUnavailable, 500: client_module.InternalError}


def answered(
    colour: Colour, status: int, fields: Any, content: bytes, *, method: str = "GET", stream: bool = False
) -> Any:
    """What comes of a call that is answered so."""

    def answer(request: Any) -> Any:
        return colour.library.Response(status, headers=fields, content=content)

    client = colour.proxy_client("http://app.example", transport=colour.library.MockTransport(answer))
    proxy = client.connection("crm").proxy
    if not stream:
        return colour.run(proxy.request, method, "/x")
    with colour.entered(proxy.stream(method, "/x")) as response:
        return response


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_of_the_proxy_has_a_class(kind: type[errors.ProxyError]) -> None:
    """Each answer of the proxy is raised as the class that is called like it, or like what it is a kind of."""
    fields, content = problem(kind("why"))
    answer = httpx.Response(kind.status, headers=fields, content=content)
    client = ProxyClient("http://app.example", transport=httpx.MockTransport(lambda _: answer))
    with client, pytest.raises(ProxyFailed) as raised:
        client.connection("crm").proxy.get("/x")
    failed = raised.value
    alike = [getattr(client_module, base.__name__, None) for base in kind.__mro__]
    assert type(failed) is next(filter(None, alike), OTHERS.get(kind.status))
    detail = json.loads(content)["detail"]
    assert (failed.status, failed.error, failed.response.status_code) == (kind.status, kind.proxy_status, kind.status)
    assert (failed.type, failed.key, failed.message, failed.data) == (kind.type, kind.key, detail, {})
    assert str(failed) == f"{detail} ({kind.status}, {kind.key})"


@pytest.mark.parametrize("stream", [False, True])
def test_own_answers_are_raised(each: Colour, stream: bool) -> None:
    """An answer of the proxy's own is raised, its body read, also where the response was to be streamed."""
    fields, content = problem(errors.ConnectionNotFound())
    with pytest.raises(ConnectionNotFound, match="No such connection") as raised:
        answered(each, 404, fields, content, stream=stream)
    assert isinstance(raised.value.response, each.library.Response)
    assert raised.value.response.json()["key"] == "not_found"


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        (404, []),
        (401, [("proxy-status", "cdn; error=connection_refused")]),
        (
            502,
            [("content-type", "application/problem+json"), ("proxy-status", "proxy_middleware; received-status=502")],
        ),
        (302, [("location", "https://elsewhere.example/")]),
        (500, [("proxy-status", 'x; details="proxy_middleware; error=dns_error"')]),
    ],
)
def test_the_upstreams_own_errors_are_responses(colour: Colour, status: int, fields: list[tuple[str, str]]) -> None:
    """What the upstream, or anybody in between, answers is a response, and redirects are not followed."""
    response = answered(colour, status, fields, problem(errors.ConnectionNotFound())[1])
    assert (response.status_code, response.json()["key"]) == (status, "not_found")


@pytest.mark.parametrize("content", [b"", b"<html>", b"[1]", b'{"message": 7, "data": []}', b"[" * 100000])
def test_answers_without_a_problem(content: bytes, colour: Colour) -> None:
    """Where the body is none, or somebody else's, the head alone tells."""
    with pytest.raises(client_module.UpstreamError, match="The proxy answered 502 \\(502, dns_error\\)") as raised:
        answered(colour, 502, [("proxy-status", "proxy_middleware; error=dns_error")], content, method="HEAD")
    assert (raised.value.key, raised.value.data) == ("", {})


def test_unknown_statuses(colour: Colour) -> None:
    """A status that a later proxy may answer is a ProxyFailed."""
    with pytest.raises(ProxyFailed) as raised:
        answered(colour, 418, [("proxy-status", "proxy_middleware; error=x")], b'{"key": "new", "data": {"a": 1}}')
    assert (type(raised.value), raised.value.key, raised.value.data) == (ProxyFailed, "new", {"a": 1})


def test_client_errors_are_none_of_the_servers() -> None:
    """A plugin that calls another proxy does not answer with what that one said."""
    assert not issubclass(ProxyFailed, errors.ProxyError)


def test_responses_and_failures_are_pickled(each: Colour) -> None:
    """Process pools, task queues and caches pickle what a call gave or raised."""
    got = pickle.loads(pickle.dumps(answered(each, 200, {}, b"body")))
    assert (got.content, got.request.url) == (b"body", "http://app.example/connections/crm/proxy/x")
    fields, content = problem(errors.ConnectionNotFound())
    with pytest.raises(ConnectionNotFound) as raised:
        answered(each, 404, fields, content)
    failed = pickle.loads(pickle.dumps(raised.value))
    assert (type(failed), str(failed), failed.key) == (ConnectionNotFound, str(raised.value), "not_found")
    assert (failed.error, failed.response.status_code) == ("http_request_error", 404)
