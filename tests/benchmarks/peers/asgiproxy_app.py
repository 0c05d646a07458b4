# mypy: allow-subclassing-any
"""The peer: asgiproxy with a configuration of its own, as its documentation shows it."""

from typing import Any

from asgiproxy.config import BaseURLProxyConfigMixin, ProxyConfig
from asgiproxy.context import ProxyContext
from asgiproxy.simple_proxy import make_simple_proxy_app

from tests.benchmarks.peers.common import (
    CREDENTIAL,
    POOL_SIZE,
    UPSTREAM,
    Message,
    Receive,
    Send,
    asgi_fields,
    is_known,
    refuse,
    target,
)


class Config(BaseURLProxyConfigMixin, ProxyConfig):
    """Cuts the prefix off, and puts the credential on."""

    upstream_base_url = UPSTREAM
    rewrite_host_header = UPSTREAM.partition("://")[2]

    def get_upstream_url(self, scope: Message) -> str:
        """Return the URL without the query."""
        return target(scope["path"], "")

    def process_client_headers(self, *, scope: Message, headers: Any) -> Any:
        """Replace the caller's token by the upstream's."""
        fields: Any = super().process_client_headers(scope=scope, headers=headers)
        fields["authorization"] = CREDENTIAL
        return fields


_proxy = make_simple_proxy_app(ProxyContext(Config(), max_concurrency=POOL_SIZE))


async def asgi(scope: Message, receive: Receive, send: Send) -> None:
    """Forward one request of a known caller."""
    if scope["type"] == "http" and not is_known(dict(asgi_fields(scope)).get("authorization", "")):
        await refuse(send)
        return
    await _proxy(scope, receive, send)
