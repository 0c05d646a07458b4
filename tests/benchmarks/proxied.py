"""The same hosts with the proxy in front, kept apart so that the bare ones do not load the package."""

import os
from typing import Any

from proxy_middleware import (
    ASGIProxyMiddleware,
    Connection,
    Credential,
    EgressPolicy,
    StaticCredentials,
    StaticResolver,
    WSGIProxyMiddleware,
    bearer_tokens,
)
from tests.benchmarks import hosts
from tests.benchmarks.scenario import CALLER_TOKEN, UPSTREAM_TOKEN, UPSTREAM_VARIABLE

_settings: dict[str, Any] = {
    "resolver": StaticResolver([Connection("crm", os.environ[UPSTREAM_VARIABLE])]),
    "credentials": StaticCredentials({"crm": Credential.bearer(UPSTREAM_TOKEN)}),
    "authenticate": bearer_tokens({CALLER_TOKEN: "alice"}),
    "egress": EgressPolicy(allow=("127.0.0.0/8",)),
}

asgi = ASGIProxyMiddleware(hosts.asgi, **_settings)
wsgi = WSGIProxyMiddleware(hosts.wsgi, **_settings)
