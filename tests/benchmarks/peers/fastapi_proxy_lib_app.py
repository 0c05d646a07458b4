"""The peer: fastapi-proxy-lib in a FastAPI application, as its documentation shows it."""

from typing import Annotated

import httpx
from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi_proxy_lib.core.http import ReverseHttpProxy
from starlette.requests import Request
from starlette.responses import Response

from tests.benchmarks.peers.common import CREDENTIAL, POOL_SIZE, UPSTREAM, is_known
from tests.benchmarks.scenario import PROXY_PREFIX


def put_on(request: httpx.Request) -> httpx.Request:
    """Replace the caller's token by the upstream's."""
    request.headers["Authorization"] = CREDENTIAL
    return request


async def known_caller(authorization: Annotated[str, Header()] = "") -> None:
    """Let nobody else in."""
    if not is_known(authorization):
        raise HTTPException(401)


limits = httpx.Limits(max_connections=POOL_SIZE, max_keepalive_connections=POOL_SIZE)
proxy = ReverseHttpProxy(httpx.AsyncClient(auth=put_on, limits=limits, trust_env=False), base_url=f"{UPSTREAM}/")
asgi = FastAPI()


@asgi.get(PROXY_PREFIX + "/{path:path}", dependencies=[Depends(known_caller)])
async def forward(request: Request, path: str) -> Response:
    """Forward one request."""
    response: Response = await proxy.proxy(request=request, path=path)
    return response
