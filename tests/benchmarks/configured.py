"""The proxy as it is measured, in whichever process.

Everything that costs something is on: callers are authenticated, the credential is a provider's and comes out of the
cache, a request body is kept for a second try after a refresh, addresses are checked, and browsers are guarded against.
"""

import ssl
from collections.abc import Mapping

from proxy_middleware import (
    Connection,
    Credential,
    EgressPolicy,
    Limits,
    Observer,
    Proxy,
    StaticCredentials,
    StaticResolver,
    bearer_tokens,
)
from tests.benchmarks.scenario import CALLER_TOKEN, UPSTREAM_TOKEN

KEY = "benchmark"


class Tokens:
    """A provider whose credential can be refreshed."""

    async def obtain(self, connection: Connection) -> Credential:
        """Give the upstream's token; asked once a minute for each connection."""
        return Credential.bearer(UPSTREAM_TOKEN)

    async def refresh(self, connection: Connection, rejected: Credential) -> Credential:
        """Give it again; never asked, as the upstream rejects nothing."""
        return Credential.bearer(UPSTREAM_TOKEN)


def proxy(base_urls: Mapping[str, str], ssl_context: ssl.SSLContext | None = None, *observers: Observer) -> Proxy:
    """Return a proxy to these base URLs, by the connections' ids."""
    return Proxy(
        resolver=StaticResolver([Connection(name, url, integration_key=KEY) for name, url in base_urls.items()]),
        credentials=StaticCredentials({KEY: Tokens()}),
        authenticate=bearer_tokens({CALLER_TOKEN: "alice"}),
        egress=EgressPolicy(allow=("127.0.0.0/8",)),
        # As many as every other target may open: 1,000 callers would wait for the default of 100.
        limits=Limits(connections_per_origin=1000, connections=2000),
        ssl_context=ssl_context,
        observers=observers,
    )
