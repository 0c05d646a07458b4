"""The soak, for a few seconds: long enough to show that it works, and that nothing is wrong with what is frequent."""

import asyncio

from tests.soak.run import Soak


def test_a_few_seconds_of_everything() -> None:
    """Through both doors, nothing is wrong, nothing leaks, and faults are among what was done."""
    tally = asyncio.run(Soak(20, ("asgi", "wsgi")).run(3))
    assert tally.clean, tally.report()
    assert tally.requests.keys() == {"asgi", "wsgi"}
    assert tally.faults.total() > 10
