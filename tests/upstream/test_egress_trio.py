"""The egress policy under trio, where httpcore dials through a backend of ours."""

import socket
from typing import Any

import httpx
import pytest
import trio

from proxy_middleware.errors import AddressRefused
from proxy_middleware.models import EgressPolicy, Limits
from proxy_middleware.upstream.httpx import default_async_transport
from tests.upstreams import ScriptedUpstream


def test_metadata_name(monkeypatch: pytest.MonkeyPatch, upstream: ScriptedUpstream) -> None:
    """The name of a metadata service is refused, even where its address is in an allowed network."""
    look_up = socket.getaddrinfo
    name = "metadata.google.internal"

    def local(host: Any, port: Any, *rest: Any, **options: Any) -> Any:
        host = "127.0.0.1" if host in (name, name.encode()) else host
        return look_up(host, port, *rest, **options)

    async def ask() -> None:
        async with default_async_transport(Limits(), EgressPolicy(allow=["127.0.0.0/8"]), None) as transport:
            request = httpx.Request("GET", f"http://{name}:{upstream.address[1]}/")
            await transport.handle_async_request(request)

    monkeypatch.setattr(socket, "getaddrinfo", local)
    with pytest.raises(AddressRefused):
        trio.run(ask)
    assert upstream.connections == 0
