"""The proxy with an observer attached, which does nothing."""

import ssl

from proxy_middleware import Event
from tests.benchmarks import hosts
from tests.benchmarks.configured import proxy
from tests.benchmarks.scenario import own_settings


def ignore(event: Event) -> None:
    """Take no note."""


_settings = own_settings()
asgi = proxy(_settings.connections, ssl.create_default_context(cafile=_settings.authority), ignore).asgi(hosts.asgi)
