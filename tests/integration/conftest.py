"""One set of options for all of these tests, so that each server is started once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.conftest import StartProxy
from tests.integration.auth_calls import Host, StartHost, start_host
from tests.servers import RunningServer, ServerFactory
from tests.upstreams import ScriptedUpstream
from tests.wire import Address

MIB = 1024 * 1024
BODY_LIMIT = 4 * MIB
REPLAY_LIMIT = 2 * MIB

ProxyServer = Callable[[str], RunningServer]


@pytest.fixture(scope="session")
def integration_options(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The options: limits that tests can reach, and two further connections that may call any origin."""
    ca_file: Path = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(ca_file))
    hasty = {"pool": 0.3, "connect": 0.4, "head": 0.5, "idle": 0.5}
    return {
        "ca_file": str(ca_file),
        "limits": {
            "request_body": BODY_LIMIT,
            "connections_per_origin": 1,
            "connections": 1,
            "response_head": 16 * 1024,
        },
        "replay": {"memory": 64 * 1024, "disk": REPLAY_LIMIT - 64 * 1024},
        "connections": {
            "open": {"allowed_origins": ["*"]},
            "hasty": {"allowed_origins": ["*"], "timeouts": hasty},
        },
    }


@pytest.fixture
def proxy_server(start_proxy: StartProxy, integration_options: dict[str, Any]) -> ProxyServer:
    """Starts a server with these options, or takes the running one."""
    return lambda server: start_proxy(server, **integration_options)


@pytest.fixture
def proxy_address(proxy_server: ProxyServer) -> Callable[[str], Address]:
    """The same, when only the address is needed."""
    return lambda server: proxy_server(server).address


@pytest.fixture
def start_auth_host(server_factory: ServerFactory, shared_upstream: ScriptedUpstream, closed_port: int) -> StartHost:
    """Starts the host application of every kind of credential under a server."""
    return lambda server: start_host(server_factory, server, shared_upstream, closed_port)


@pytest.fixture
def host(server: str, start_auth_host: StartHost) -> Host:
    """The same, under the server that the test names."""
    return start_auth_host(server)
