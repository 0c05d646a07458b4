"""The peer: an ASGI proxy on httpx2."""

import httpx2

from tests.benchmarks.peers.common import POOL_SIZE
from tests.benchmarks.peers.httpx_proxy import proxy

limits = httpx2.Limits(max_connections=POOL_SIZE, max_keepalive_connections=POOL_SIZE)
asgi = proxy(httpx2.AsyncClient(limits=limits, trust_env=False))
