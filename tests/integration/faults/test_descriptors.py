"""A process without descriptors: who needs a new connection is told, and all is well once there are some again."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.callers import OpenCall, RawResponse, open_call, request
from tests.integration.asking import asked, check_problem
from tests.servers import ASGI_SERVERS, RunningServer, ServerFactory
from tests.upstreams import ScriptedUpstream

UNREACHABLE = (502, "connection", "upstream_unreachable", "connection_refused")
# To one origin: fewer than the requests that fail, so that a place that were lost would be missed.
PLACES = 4


@pytest.fixture
def other() -> Iterator[ScriptedUpstream]:
    """Another upstream."""
    with ScriptedUpstream() as scripted:
        yield scripted


@pytest.fixture
def running(
    server: str,
    server_factory: ServerFactory,
    upstream: ScriptedUpstream,
    other: ScriptedUpstream,
    tls_upstream: ScriptedUpstream,
    integration_options: dict[str, Any],
) -> RunningServer:
    """A server whose descriptors can be taken, and for which the authorities of the system are in a file."""
    app = "asgi_app" if server in ASGI_SERVERS else "wsgi_app"
    options = {
        "limits": {"connections_per_origin": PLACES},
        "timeouts": {"pool": 0.5},
        "connections": {
            "other": {"base_url": other.url},
            "named": {"base_url": other.url.replace("127.0.0.1", "localhost")},
            "secure": {"base_url": tls_upstream.url},
        },
    }
    env = {
        "UPSTREAM_URL": upstream.url,
        "PROXY_OPTIONS": json.dumps(options),
        "SSL_CERT_FILE": integration_options["ca_file"],
    }
    return server_factory(server, f"tests.integration.faults.scarce_host:{app}", env)


@pytest.mark.parametrize("server", ["uvicorn-httptools", "gunicorn-gthread"])
def test_no_descriptor_left(running: RunningServer, upstream: ScriptedUpstream, other: ScriptedUpstream) -> None:
    """New connections are a 502, and idle ones go on being used; then everything is as it was."""
    with open_call(running.address) as caller:
        assert ask(caller, "root/proxy/x").body == b"ok"
        assert tell(caller, "/take") == 404
        for _ in range(3 * PLACES):
            check_problem(ask(caller, "other/proxy/x"), *UNREACHABLE)
            assert ask(caller, "named/proxy/x").status == 502
            assert ask(caller, "secure/proxy/x").status == 502
            assert ask(caller, "root/proxy/x").body == b"ok"
        assert other.connections == 0
        # Enough for a socket, or for the authorities' file, but not for both at a time.
        assert tell(caller, "/give-one") == 404
        assert ask(caller, "secure/proxy/x").status in (200, 502)
        assert tell(caller, "/give") == 404
        for selector in ("root", "other", "named", "secure"):
            assert ask(caller, f"{selector}/proxy/x").body == b"ok", selector
    assert upstream.connections == 1


def ask(caller: OpenCall, path: str) -> RawResponse:
    """The answer to one more request on this connection."""
    caller.send(asked(path))
    return caller.read_rest()


def tell(caller: OpenCall, path: str) -> int:
    """Has the host do something; the status of its answer."""
    caller.send(request("GET", path))
    return caller.read_rest().status
