"""Token stores: where refreshed tokens live, so that several processes and hosts can share them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from proxy_middleware.errors import StoreCorrupted, StoreUnavailable
from proxy_middleware.stores.memory import MemoryStore
from proxy_middleware.stores.protocol import Stored, Tokens, TokenStore

if TYPE_CHECKING:
    from proxy_middleware.stores.encryption import generate_key
    from proxy_middleware.stores.redis import RedisStore
    from proxy_middleware.stores.sql import SQLStore

__all__ = [
    "MemoryStore",
    "RedisStore",
    "SQLStore",
    "StoreCorrupted",
    "StoreUnavailable",
    "Stored",
    "TokenStore",
    "Tokens",
    "generate_key",
]

# What needs SQLAlchemy, redis-py or cryptography is imported when it is first asked for, and comes with an extra.
_LAZY = {
    "RedisStore": ("proxy_middleware.stores.redis", "redis"),
    "SQLStore": ("proxy_middleware.stores.sql", "sql"),
    "generate_key": ("proxy_middleware.stores.encryption", "sql"),
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, extra = _LAZY[name]
    try:
        return getattr(import_module(module), name)
    except ImportError as missing:
        message = f'{name} needs the extra "{extra}": pip install "proxy_middleware[{extra}]"'
        raise ImportError(message) from missing
