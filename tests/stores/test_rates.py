"""Rates that several processes and hosts count together."""

import pytest

from proxy_middleware._admission import Admission
from proxy_middleware.errors import TooManyRequests
from proxy_middleware.models import Limits
from tests.services import Redis
from tests.test_admission import admitted


def test_shared_storage(redis_server: Redis) -> None:
    """Proxies that count in one Redis have one rate between them."""
    limits = Limits(rate="3/hour", rate_storage=redis_server.fresh_url())
    one, other = Admission(limits), Admission(limits)
    assert one.blocks
    for admission in (one, other, one):
        admitted(admission)
    for admission in (one, other):
        with pytest.raises(TooManyRequests):
            admitted(admission)
