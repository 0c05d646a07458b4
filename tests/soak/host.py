"""The host applications of the soak. `UPSTREAM_URL`, `FRAGILE` and `CLOSED` in the environment are the upstreams."""

import os
from typing import Any

from proxy_middleware import (
    ASGIProxyMiddleware,
    Connection,
    Credential,
    EgressPolicy,
    Replay,
    StaticCredentials,
    StaticResolver,
    Timeouts,
    WSGIProxyMiddleware,
    bearer_tokens,
)
from tests.host_plugins import CALLER_TOKEN, UPSTREAM_SECRET, NumberedTokens
from tests.hosts import host_asgi, host_wsgi
from tests.soak.plan import REPLAY_DISK, REPLAY_MEMORY

# Seconds that the connection "hasty" waits for an upstream that hangs.
HASTE = 0.5

_BEARER = Credential.bearer(UPSTREAM_SECRET)
_CONNECTIONS = [
    *(Connection(name, os.environ["UPSTREAM_URL"]) for name in ("bearer", "header", "query", "expiring")),
    Connection("hasty", os.environ["UPSTREAM_URL"], timeouts=Timeouts(head=HASTE, idle=HASTE)),
    Connection("fragile", os.environ["FRAGILE"]),
    Connection("closed", os.environ["CLOSED"]),
]
_KEYWORDS: dict[str, Any] = {
    "resolver": StaticResolver(_CONNECTIONS),
    "credentials": StaticCredentials(
        {
            **dict.fromkeys(("bearer", "hasty", "fragile", "closed"), _BEARER),
            "header": Credential.header("X-Api-Key", UPSTREAM_SECRET),
            "query": Credential.query("key", UPSTREAM_SECRET),
            "expiring": NumberedTokens(),
        }
    ),
    "authenticate": bearer_tokens({CALLER_TOKEN: "alice"}),
    "egress": EgressPolicy(allow=("127.0.0.0/8",)),
    "replay": Replay(memory=REPLAY_MEMORY, disk=REPLAY_DISK),
}

asgi_app = ASGIProxyMiddleware(host_asgi, **_KEYWORDS)
wsgi_app = WSGIProxyMiddleware(host_wsgi, **_KEYWORDS)
