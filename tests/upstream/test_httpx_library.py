"""Which of the two libraries: by what is handed over, and for calls of our own."""

import subprocess
import sys
from typing import Any

import httpcore
import httpcore2
import httpx
import httpx2
import pytest

from proxy_middleware.upstream.httpx_library import library_of, own_library
from tests.upstreams import ScriptedUpstream, response

TOKEN = b'{"access_token": "new", "token_type": "bearer"}'


class Own(httpx2.HTTPTransport):
    """A transport of an application's own."""


@pytest.mark.parametrize(
    ("thing", "library"),
    [
        (httpx.Request("GET", "http://x"), (httpx, httpcore)),
        (httpx2.Request("GET", "http://x"), (httpx2, httpcore2)),
        (Own(), (httpx2, httpcore2)),
        (httpx.BasicAuth("a", "b"), (httpx, httpcore)),
        (print, (httpx, httpcore)),
    ],
)
def test_what_is_handed_over_tells(thing: Any, library: Any) -> None:
    """The class tells, also that of a subclass; what is of neither is dealt with in our own."""
    assert library_of(thing) == library


def test_httpx_is_our_own() -> None:
    """Where both are installed, calls of our own are made with httpx."""
    assert own_library() == (httpx, httpcore)


WITHOUT_HTTPX = """
import sys, time
sys.modules["httpx"] = sys.modules["httpcore"] = None
import httpx2, trio
from proxy_middleware import EgressPolicy, Limits
from proxy_middleware.client import ProxyClient
from proxy_middleware.credentials._token_endpoint import TokenEndpoint
from proxy_middleware.credentials.httpx_auth import from_httpx_auth
from proxy_middleware.upstream.httpx import PerLoopUpstream
from tests.upstream.httpx_driver import forward_to

url, policy = sys.argv[1], EgressPolicy(allow=["127.0.0.1"])
assert TokenEndpoint(url, policy, None, None).ask({}, "a=b", time.monotonic() + 20).access_token == "new"
with ProxyClient(url) as client:
    assert type(client.connection("crm").proxy.get("/x")) is httpx2.Response
assert from_httpx_auth(lambda request: request)

async def main():
    upstream = PerLoopUpstream(Limits(), policy, None)
    assert (await upstream.send(forward_to(int(url.rpartition(":")[2])))).status == 200
    await upstream.aclose()

trio.run(main)
"""


def test_httpx2_alone(upstream: ScriptedUpstream) -> None:
    """Where httpx is not installed, everything runs on httpx2."""
    upstream.answer(response(200, ((b"Content-Type", b"application/json"),), TOKEN))
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_HTTPX, upstream.url], check=False, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert len(upstream.requests) == 3
