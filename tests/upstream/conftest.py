"""Fixtures of the httpx tests: the libraries, and the drivers."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import httpx
import httpx2
import pytest
from anyio.from_thread import start_blocking_portal

from proxy_middleware.upstream.httpx_library import library_of
from tests.upstream.httpx_driver import Driver


@pytest.fixture(params=[httpx, httpx2], ids=["httpx", "httpx2"])
def library(request: pytest.FixtureRequest) -> Any:
    """Both libraries."""
    return request.param


@pytest.fixture(params=["asyncio", "trio", "blocking"])
def driver(request: pytest.FixtureRequest, library: ModuleType) -> Iterator[Driver]:
    """All three colours."""
    if request.param == "blocking":
        driver = Driver(library, None)
        yield driver
        driver.close()
        return
    with start_blocking_portal(request.param) as portal:
        driver = Driver(library, portal.call)
        yield driver
        driver.close()


@pytest.fixture(params=[("asyncio", httpx), ("trio", httpx), ("trio", httpx2)], ids=["asyncio", "trio", "trio-httpx2"])
def own_driver(request: pytest.FixtureRequest) -> Iterator[Driver]:
    """Both event loops; the transports made here are of this library."""
    name, library = request.param
    own = library_of(library.Headers())
    with pytest.MonkeyPatch.context() as patch, start_blocking_portal(name) as portal:
        patch.setattr("proxy_middleware.upstream.httpx.own_library", lambda: own)
        driver = Driver(library, portal.call)
        yield driver
        driver.close()
