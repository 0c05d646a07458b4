"""Calls: by the client, and by httpx through the transport."""

from typing import assert_type

import httpx
import httpx2

from proxy_middleware import Proxy
from proxy_middleware.client import (
    AsyncProxyClient,
    ConnectionNotFound,
    Options,
    ProxyClient,
    ProxyFailed,
    Response,
    UpstreamTimeout,
)


def owners(token: str) -> list[str]:
    """The blocking client."""
    with ProxyClient("https://app.example.com", token, timeout=httpx.Timeout(5)) as client:
        assert_type(client, ProxyClient)
        proxy = client.connection("crm").proxy
        try:
            response = proxy.get("/v3/owners", params={"limit": 2}, headers={"accept": "application/json"})
        except ConnectionNotFound as error:
            assert_type(error.response, Response)
            return []
        except UpstreamTimeout as error:
            return [error.message]
        except ProxyFailed as error:
            raise RuntimeError(error.error, error.status, error.key, error.data.get("more")) from None
        assert_type(response, Response)
        proxy.post("/v3/owners", {"name": "Alice"}, timeout=None)
        proxy.put("/v3/owners/1", content=b"raw")
        proxy.patch("/v3/owners/1", json={"name": "Bob"})
        proxy.delete("/v3/owners/1")
        options: Options = {"params": {"page": 2}}
        proxy.request("PROPFIND", "/dav", **options)
        with proxy.stream("GET", "/v3/export") as stream:
            assert_type(stream, Response)
            return list(stream.iter_lines())


async def owners_async(token: str) -> str:
    """The asynchronous one."""
    async with AsyncProxyClient("https://app.example.com", token, transport=httpx.AsyncHTTPTransport()) as client:
        proxy = client.connection("crm").proxy
        response = await proxy.get("/v3/owners")
        assert_type(response, Response)
        async with proxy.stream("POST", "/v3/search", {"query": "a"}) as stream:
            assert_type(stream, Response)
            async for line in stream.aiter_lines():
                return line
    return response.text


def without_a_server(proxy: Proxy) -> httpx.Client:
    """A client of httpx."""
    return httpx.Client(transport=proxy.transport("crm", caller="job"), base_url="https://crm.invalid")


def without_a_server_httpx2(proxy: Proxy) -> httpx2.AsyncClient:
    """One of httpx2, asynchronous."""
    return httpx2.AsyncClient(transport=proxy.transport("crm"), base_url="https://crm.invalid")
