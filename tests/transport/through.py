"""Clients whose requests go through a proxy, without a server in between."""

from typing import Any

from proxy_middleware import Proxy
from proxy_middleware.transport import ProxyTransport
from tests.client.colours import Colour


def through(colour: Colour, proxy: Proxy, selector: str = "crm", caller: object = "anyone") -> Any:
    """A client of the library; the proxy is closed after it."""
    client = colour.http(ProxyTransport(proxy, selector, caller))
    colour.closing(proxy.close if colour.blocking else proxy.aclose)
    return client
