"""The egress policy under trio, where httpcore dials through a backend of ours."""

import errno
import socket
from typing import Any

import httpx
import pytest
import trio

from proxy_middleware import Connection, Credential, Proxy, StaticCredentials, StaticResolver, anyone
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


def test_authorities_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """An upstream for whose certificate no authorities can be read is one that cannot be reached, as on asyncio."""

    def unreadable() -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    async def ask() -> None:
        async with httpx.AsyncClient(transport=proxy.transport("crm")) as client:
            assert (await client.get("http://crm.invalid/")).status_code == 502

    proxy = Proxy(
        resolver=StaticResolver([Connection("crm", "https://127.0.0.1")]),
        credentials=StaticCredentials({"crm": Credential.bearer("secret")}),
        authenticate=anyone,
        egress=EgressPolicy(allow=["127.0.0.0/8"]),
    )
    monkeypatch.setattr("proxy_middleware.upstream.httpx.default_ssl_context", unreadable)
    trio.run(ask)
