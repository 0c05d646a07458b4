"""Tests that share what takes long to start are handed to one process."""

from typing import Any

import pytest

pytest.importorskip("xdist")

from tests.groups import group_of

UNIT = "tests/test_fields.py::test_names[x-1]"


@pytest.mark.parametrize(
    ("nodeid", "group"),
    [
        ("tests/integration/test_errors.py::test_limit[GET-until close-granian]", "granian"),
        ("tests/integration/test_errors.py::test_limit[granian-wsgi-True]", "granian-wsgi"),
        ("tests/integration/test_errors.py::test_limit[hypercorn-trio]", "hypercorn-trio"),
        ("tests/stores/test_contract.py::test_save[redis-extra]", "redis"),
        ("tests/integration/browser/test_wsgi.py::test_wsgi_host", "tests/integration/browser/"),
        (
            "tests/test_redis.py::test_prediction[redistribution]",
            "tests/test_redis.py::test_prediction[redistribution]",
        ),
        (UNIT, UNIT),
    ],
)
def test_groups(nodeid: str, group: str) -> None:
    """A server in the parameters, or a place, makes a group; other tests go to whoever is free."""
    assert group_of(nodeid) == group


def test_groups_are_what_the_run_goes_by(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pytest-xdist asks for the scheduler, and gets the one that keeps groups together."""
    monkeypatch.setattr(pytestconfig.option, "tx", ["popen"])
    made: Any = pytestconfig.hook.pytest_xdist_make_scheduler(config=pytestconfig, log=None)
    assert {made._split_scope(f"{UNIT[:-4]}[{number}-waitress]") for number in range(3)} == {"waitress"}
