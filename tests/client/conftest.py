"""Fixtures of the client's tests."""

from collections.abc import Iterator

import httpx
import httpx2
import pytest

from tests.client.colours import Colour, coloured

COLOURS = ["blocking", "asyncio", "trio"]


@pytest.fixture(params=COLOURS)
def colour(request: pytest.FixtureRequest) -> Iterator[Colour]:
    """Httpx in all three colours."""
    with coloured(httpx, request.param) as opened:
        yield opened


@pytest.fixture(
    params=[(library, colour) for library in (httpx, httpx2) for colour in COLOURS],
    ids=lambda param: f"{param[0].__name__}-{param[1]}",
)
def each(request: pytest.FixtureRequest) -> Iterator[Colour]:
    """Both libraries in all three colours."""
    with coloured(*request.param) as opened:
        yield opened
