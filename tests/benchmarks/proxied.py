"""The same hosts with the proxy in front, kept apart so that the bare ones do not load the package."""

import ssl

from tests.benchmarks import hosts
from tests.benchmarks.configured import proxy
from tests.benchmarks.scenario import own_settings

_settings = own_settings()
_proxy = proxy(_settings.connections, ssl.create_default_context(cafile=_settings.authority))

asgi = _proxy.asgi(hosts.asgi)
wsgi = _proxy.wsgi(hosts.wsgi)
