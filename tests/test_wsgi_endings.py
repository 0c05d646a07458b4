"""The WSGI door in this process: how requests end when what is around it is careless."""

from collections.abc import Iterator
from io import BytesIO
from typing import Any

from proxy_middleware import Event, Limits
from tests.in_process import proxy_to
from tests.upstreams import ScriptedUpstream, response


def never(environ: Any, start_response: Any) -> Any:
    """The host application, which is never reached."""
    raise AssertionError("it is the proxy's")


def environ(method: str = "GET", **more: Any) -> dict[str, Any]:
    """What a server makes of a request."""
    path = "/connections/crm/proxy/x"
    usual = {"PATH_INFO": path, "RAW_URI": path, "QUERY_STRING": "", "SCRIPT_NAME": "", "wsgi.input": BytesIO()}
    return {"REQUEST_METHOD": method, "SERVER_PROTOCOL": "HTTP/1.1", **usual, **more}


def test_middleware_that_closes_nothing(upstream: ScriptedUpstream) -> None:
    """A response that was read to its end is over, also where middleware passes no `close` on."""
    upstream.script(lambda exchange: exchange.send(response(body=b"ok")))
    proxy = proxy_to(upstream, limits=Limits(per_connection_concurrency=1))
    door = proxy.wsgi(never)

    def careless(given: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        yield from iter(list(iter(door(given, start_response))))

    statuses: list[str] = []
    for _ in range(3):
        assert b"".join(careless(environ(), lambda status, fields: statuses.append(status))) == b"ok"
    assert statuses == ["200 OK"] * 3
    proxy.close()


def test_framing_that_the_server_hides(upstream: ScriptedUpstream) -> None:
    """A request that is refused before anything else is told of as well."""
    events: list[Event] = []
    door = proxy_to(upstream, observers=[events.append]).wsgi(never)
    statuses: list[str] = []
    given = environ("POST", HTTP_TRANSFER_ENCODING="chunked")
    b"".join(door(given, lambda status, fields: statuses.append(status)))
    assert statuses[0].startswith("411 ")
    assert [(event.kind, event.status) for event in events] == [("matched", None), ("denied", 411), ("finished", 411)]
