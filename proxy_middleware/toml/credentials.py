"""The kinds of credentials that a TOML file can speak of."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from proxy_middleware._credential import Credential
from proxy_middleware.credentials.static import StaticCredentials
from proxy_middleware.protocols import CredentialProvider
from proxy_middleware.toml.connections import TOP, connection_tables
from proxy_middleware.toml.reader import Key, Table, TomlError, pairs, read_file, secret, secrets, text, texts, url

__all__ = ["TomlCredentials"]


class TomlCredentials(StaticCredentials):
    """The credentials of the connections in a TOML file; see `proxy_middleware.toml`.

    Reads the file, and the secrets that it names, once. Where it has a `store`, that is opened and set up at once, and
    each `refresh_token` of the file put into it, unless it has tokens for the connection already.

    Args:
        path: The file.

    Raises:
        OSError: It cannot be read.
        TomlError: It is not as it should be.
        StoreUnavailable: The store cannot be reached.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        file = read_file(path)
        kept = read_credentials(file)
        if file.problems:
            raise TomlError(path, file.problems)
        super().__init__(kept.entries)
        kept.fill_store()


class Kept(NamedTuple):
    """What a file says of credentials.

    Attributes:
        entries: By connection id.
        store: Where tokens are kept, if anywhere but in memory.
        tokens: What goes in there, or to an entry's own store, if that has nothing yet: refresh tokens by connection.
    """

    entries: dict[str, Credential | CredentialProvider]
    store: Any
    tokens: dict[str, str]

    def fill_store(self) -> None:
        """Sets the store up, and puts in the refresh tokens that it has not seen; raises what its methods raise."""
        from proxy_middleware.stores import Tokens

        if self.store is not None:
            self.store.create()
        for name, refresh_token in self.tokens.items():
            store = getattr(self.entries[name], "store")  # noqa: B009 -- only OAuth2 has one, and is imported lazily
            if store.load(name) is None:
                store.save(name, Tokens(refresh_token=refresh_token), 0)  # Another process may have been first.


def read_credentials(file: Table) -> Kept:
    """Every connection's credential, and the store; notes what is wrong with them."""
    file.values(TOP)
    store = read_store(file)
    kept = Kept({}, store, {})
    for name, table in connection_tables(file):
        if "credential" not in table.data:
            table.note("credential", "is missing")
        elif (entry := _read_credential(table.table("credential"), store)) is not None:
            kept.entries[name] = entry.credential
            if entry.refresh_token is not None:
                kept.tokens[name] = entry.refresh_token
    return kept


def read_store(file: Table) -> Any:
    """The token store of the file; None if it has none, or it is not as it should be."""
    if "store" not in file.data:
        return None
    return file.table("store").make({"url": Key(url, True), "keys": Key(secrets, True)}, _open_store)


def _open_store(url: str, keys: Sequence[str]) -> Any:
    from proxy_middleware.stores import RedisStore, SQLStore

    return (RedisStore if url.startswith(("redis:", "rediss:", "unix:")) else SQLStore)(url, keys=keys)


class _Entry(NamedTuple):
    credential: Credential | CredentialProvider
    refresh_token: str | None = None


def _read_credential(table: Table, store: Any) -> _Entry | None:
    kind = table.data.get("type")
    if not isinstance(kind, str) or kind not in _KINDS:
        table.note("type", f"has to be one of {', '.join(_KINDS)}")
        return None
    make, keys = _KINDS[kind]

    def build(**values: Any) -> Any:
        del values["type"]
        return make(store, **values)

    made = table.make({"type": Key(text), **keys}, build)
    return made if made is None or isinstance(made, _Entry) else _Entry(made)


def _static(make: Callable[..., Credential]) -> Callable[..., Credential]:
    return lambda store, **values: make(**values)


def _oauth2(
    store: Any,
    *,
    grant: str = "refresh_token",
    refresh_token: str | None = None,
    is_rejected: Any = None,
    **values: Any,
) -> _Entry:
    from proxy_middleware.credentials.oauth2 import OAuth2

    spends = grant == "refresh_token"
    if refresh_token is not None and not spends:
        raise ValueError(f"a refresh_token has no use with the grant {grant}")
    if refresh_token is None and spends and store is None:
        raise ValueError("a refresh_token is missing, or a store that has one")
    provider = OAuth2(store=store, grant=grant, is_rejected=is_rejected, **values)  # type: ignore[arg-type]
    return _Entry(provider, refresh_token)


def _aws(store: Any, **values: Any) -> CredentialProvider:
    from proxy_middleware.credentials.aws import AWSSigV4

    return AWSSigV4(**values)


def _oauth1(store: Any, **values: Any) -> CredentialProvider:
    from proxy_middleware.credentials.oauth1 import OAuth1

    return OAuth1(**values)


def _scope(value: Any, folder: Any) -> str | list[str]:
    return text(value, folder) if isinstance(value, str) else texts(value, folder)


def _rule(value: Any, folder: Any) -> Any:
    from proxy_middleware.credentials import expiry

    rules = {"aws": expiry.AWS, "google_ai": expiry.GOOGLE_AI, "slack": expiry.SLACK}
    if not isinstance(value, str) or value not in rules:
        raise ValueError(f"has to be one of {', '.join(rules)}")
    return rules[value]


_NAMED = {"name": Key(text, True), "value": Key(secret, True)}
_KINDS: Mapping[str, tuple[Callable[..., Any], Mapping[str, Key]]] = {
    "bearer": (_static(Credential.bearer), {"token": Key(secret, True)}),
    "basic": (_static(Credential.basic), {"user": Key(text, True), "password": Key(secret, True)}),
    "header": (_static(Credential.header), _NAMED),
    "query": (_static(Credential.query), _NAMED),
    "cookie": (_static(Credential.cookie), _NAMED),
    "oauth2": (
        _oauth2,
        {
            "token_url": Key(text, True),
            "client_id": Key(text, True),
            "client_secret": Key(secret),
            "private_key": Key(secret),
            "key_id": Key(text),
            "algorithm": Key(text),
            "client_auth": Key(text),
            "grant": Key(text),
            "refresh_token": Key(secret),
            "scope": Key(_scope),
            "params": Key(pairs),
            "is_rejected": Key(_rule),
        },
    ),
    "aws": (
        _aws,
        {
            "region": Key(text, True),
            "service": Key(text, True),
            "access_key": Key(secret, True),
            "secret_key": Key(secret, True),
            "session_token": Key(secret),
            "payload": Key(text),
        },
    ),
    "oauth1": (
        _oauth1,
        {
            "client_key": Key(text, True),
            "client_secret": Key(secret, True),
            "token": Key(text),
            "token_secret": Key(secret),
            "signature_method": Key(text),
            "realm": Key(text),
        },
    ),
}
