"""Stores that processes share, and sites around them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.credentials.site import Site
from tests.stores.conftest import _postgres, _redis, make_place, postgres, redis_server

__all__ = ["_postgres", "_redis", "postgres", "redis_server"]


@pytest.fixture
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """A site of the kind that the test's parameter names: "sqlite", "postgresql" or "redis"."""
    place = make_place(request.param, request)
    with Site(place, tmp_path) as made:
        yield made
    place.close()
