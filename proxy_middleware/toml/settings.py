"""Everything else that a proxy of its own needs to know, out of the same file: who may call, and the settings."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from proxy_middleware.access import anyone, bearer_tokens
from proxy_middleware.credentials.static import StaticCredentials
from proxy_middleware.models import BrowserPolicy, EgressPolicy, Limits, Replay, Timeouts
from proxy_middleware.proxy import Proxy, Settings
from proxy_middleware.resolvers import StaticResolver
from proxy_middleware.toml.connections import TIMEOUTS, read_connections
from proxy_middleware.toml.credentials import Kept, read_credentials
from proxy_middleware.toml.reader import (
    Key,
    Table,
    TomlError,
    anything,
    flag,
    number,
    read_file,
    secret,
    text,
    texts,
    url,
    whole,
)

_PARTS: Mapping[str, tuple[type, Mapping[str, Key]]] = {
    "limits": (
        Limits,
        {
            "request_body": Key(whole),
            "connections_per_origin": Key(whole),
            "connections": Key(whole),
            "keepalive": Key(number),
            "credential_ttl": Key(number),
            "refresh_backoff": Key(number),
            "response_head": Key(whole),
            "per_connection_concurrency": Key(whole),
            "rate": Key(text),
            "rate_storage": Key(url),
        },
    ),
    "timeouts": (Timeouts, TIMEOUTS),
    "egress": (EgressPolicy, {"allow": Key(texts), "deny": Key(texts)}),
    "browser": (BrowserPolicy, {"forward_cookies": Key(flag), "allowed_origins": Key(texts), "guard": Key(flag)}),
    "replay": (Replay, {"memory": Key(whole), "disk": Key(whole)}),
}
_PLAIN = {"prefix": Key(text), "root_path": Key(text), "cache_guard": Key(flag), "spool_unframed": Key(text)}


class Loaded(NamedTuple):
    """A file that is as it should be: the keywords of `Proxy`, and what goes into its token store at the start."""

    settings: Settings
    kept: Kept


def load(path: str | os.PathLike[str]) -> Loaded:
    """Reads a file, and the secrets that it names. Nothing is opened.

    Raises:
        OSError: It cannot be read.
        TomlError: It is not as it should be; with everything that is wrong.
    """
    file = read_file(path)
    connections, kept = read_connections(file), read_credentials(file)
    authenticate, others = _read_callers(file), _read_proxy(file.table("proxy"))
    if file.problems:
        raise TomlError(path, file.problems)
    required = {
        "resolver": StaticResolver(connections),
        "credentials": StaticCredentials(kept.entries),
        "authenticate": authenticate,
    }
    settings: Settings = {**required, **others}  # type: ignore[typeddict-item]
    try:
        Proxy(**settings)
    except ValueError as error:
        raise TomlError(path, [f"proxy: {error}"]) from None
    return Loaded(settings, kept)


def _read_callers(file: Table) -> Any:
    callers = file.data.get("callers")
    if callers == "anyone":
        return anyone
    if not isinstance(callers, dict) or not callers:
        file.note("callers", 'has to be a table of names and their tokens, or "anyone"')
        return None
    tokens = file.table("callers").values({name: Key(secret) for name in callers}) or {}
    if len(set(tokens.values())) < len(tokens):
        file.note("callers", "two have the same token")
    return bearer_tokens({token: name for name, token in tokens.items()})


def _read_proxy(table: Table) -> dict[str, Any]:
    plain = {**_PLAIN, **{name: Key(anything) for name in _PARTS}}
    values = table.values(plain) or {}
    for name, (kind, keys) in _PARTS.items():
        if name in table.data:
            values[name] = table.table(name).make(keys, kind)
    return values
