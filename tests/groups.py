"""Which tests of a parallel run stay in one process: those that share what takes long to start."""

import re

from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from tests.servers import ASGI_SERVERS, WSGI_SERVERS

# What all tests of a folder or file share: a browser, the examples on their servers, sources that are read once.
PLACES = ("tests/integration/browser/", "tests/integration/frameworks/", "tests/test_architecture.py")
SHARED = (*ASGI_SERVERS, *WSGI_SERVERS, "granian-wsgi", "postgresql", "redis")

# Where one name begins with another, the longer one is meant.
_NAMED = re.compile(rf"[\[-]({'|'.join(sorted(SHARED, key=len, reverse=True))})[\]-]")


def group_of(nodeid: str) -> str:
    """What a test shares with others: the name of a server in its parameters, or its place; else its own id."""
    for place in PLACES:
        if nodeid.startswith(place):
            return place
    named = _NAMED.search(nodeid)
    return named[1] if named else nodeid


class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Hands out groups, the largest ones first; what is in no group goes to whoever is free.

    Not by the mark `xdist_group`: with pytest 9.2, pytest-xdist 3.8 does not see it.
    """

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
