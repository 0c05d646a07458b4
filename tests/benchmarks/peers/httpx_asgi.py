"""The peer: an ASGI proxy on httpx."""

import httpx

from tests.benchmarks.peers.common import POOL_SIZE
from tests.benchmarks.peers.httpx_proxy import proxy

limits = httpx.Limits(max_connections=POOL_SIZE, max_keepalive_connections=POOL_SIZE)
asgi = proxy(httpx.AsyncClient(limits=limits, trust_env=False))
