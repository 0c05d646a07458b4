"""Resolvers: from a selector to a connection."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from proxy_middleware._lazy import lazily
from proxy_middleware.errors import AmbiguousSelector, ConnectionNotFound
from proxy_middleware.models import Connection, ProxyRequest
from proxy_middleware.protocols import nonblocking

if TYPE_CHECKING:
    from proxy_middleware._cached_resolver import CachedResolver

__all__ = ["CachedResolver", "StaticResolver"]

# It knows event loops, which importing the package should not load.
__getattr__ = lazily(__name__, {"CachedResolver": "proxy_middleware._cached_resolver"})


class StaticResolver:
    """Connections that are known at start; every caller may use each of them.

    A selector is a connection id first; else an integration key or id, if exactly one connection has it.

    Args:
        connections: Any number; finding one takes as long among 100,000 as among ten.

    Raises:
        ValueError: Two connections have the same id.
    """

    def __init__(self, connections: Iterable[Connection]) -> None:
        self._by_id: dict[str, Connection] = {}
        self._by_integration: dict[str, list[Connection]] = {}
        for connection in connections:
            if connection.id in self._by_id:
                raise ValueError(f"two connections have the id {connection.id!r}")
            self._by_id[connection.id] = connection
            for name in {connection.integration_key, connection.integration_id} - {None}:
                self._by_integration.setdefault(str(name), []).append(connection)

    @nonblocking
    def resolve(self, selector: str, request: ProxyRequest) -> Connection:
        """The connection; raises ConnectionNotFound or AmbiguousSelector."""
        connection = self._by_id.get(selector)
        if connection is not None:
            return connection
        candidates = self._by_integration.get(selector, ())
        if not candidates:
            raise ConnectionNotFound
        if len(candidates) > 1:
            raise AmbiguousSelector
        return candidates[0]
