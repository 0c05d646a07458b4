"""Credential providers, behind the credential cache, in the colour of the door."""

from collections.abc import Callable
from time import time
from typing import Any

from proxy_middleware._cache_entries import Entry
from proxy_middleware._credential import Credential
from proxy_middleware._exchange import is_expiry
from proxy_middleware._plugins import Call, Find, asettled, for_asgi, for_asgi_apart, for_wsgi, settled
from proxy_middleware._single_flight import CredentialCache
from proxy_middleware._steps import EXPIRY_MARGIN, Obtained
from proxy_middleware.errors import ProxyError, RefreshFailed, ResponseTruncated
from proxy_middleware.models import Connection, ResponseHead
from proxy_middleware.protocols import CredentialProvider

# Bytes of a response's body that `is_rejected` may see.
JUDGED = 64 * 1024
# Seconds after which a call on the background loop is given up, as one on a door's own loop is.
PATIENCE = CredentialCache.ROUND_SECONDS + CredentialCache.GRACE_SECONDS


class Provider:
    """A provider's methods, and whether it has the optional ones."""

    def __init__(
        self, provider: CredentialProvider, wait: Callable[[Call], Call], judge: Callable[[Call], Call]
    ) -> None:
        refresh, is_rejected = getattr(provider, "refresh", None), getattr(provider, "is_rejected", None)
        self.obtain = wait(provider.obtain)
        self.refresh = wait(refresh) if refresh else None
        self.is_rejected = judge(is_rejected) if is_rejected else None
        self.needs_body: Call | None = getattr(is_rejected, "needs_body", None)
        self._refreshes, self._judges = refresh is not None, is_rejected is not None

    def obtained(self, credential: Credential, cache: CredentialCache, connection: Connection) -> Obtained:
        """What the core is told."""
        now, margin = time(), EXPIRY_MARGIN
        if credential.expires_at is not None and credential.expires_at - now < margin:
            margin = cache.margin(connection, margin)
        return Obtained(credential, now, self._refreshes, self._judges, margin)


class Providers:
    """Finds the provider of a connection, and performs what the core asks of it, in a thread.

    Args:
        find: The credential, or the provider, of a connection; the same few objects for ever.
        cache: Keeps what providers gave.
    """

    def __init__(self, find: Find, cache: CredentialCache) -> None:
        self._find = find
        self._cache = cache
        self._known: dict[int, Provider | Obtained] = {}
        self._entries, self._clock = cache.by_id, cache.clock

    def obtain(self, connection: Connection) -> Any:
        """The credential to use now, as an Obtained."""
        entry = self._entries.get(connection.id)
        if entry is not None and entry.connection is connection and self._clock() < entry.fresh_until:
            return entry.obtained or self._look_up(connection, entry)
        return self._look_up(connection, None)

    def _look_up(self, connection: Connection, entry: Entry | None) -> Any:
        provider = self._of(connection)
        if type(provider) is Obtained:
            return provider if provider.credential.expires_at is None else provider._replace(now=time())
        assert isinstance(provider, Provider)
        credential = self._cache.get(connection)
        if credential is None:
            return self._obtain(provider, connection)
        obtained = provider.obtained(credential, self._cache, connection)
        if entry is not None and entry.credential is credential and credential.expires_at is None:
            entry.obtained = obtained
        return obtained

    def refresh(self, connection: Connection, rejected: Credential) -> Any:
        """A newer credential than the rejected one."""
        provider = self._of(connection)
        if not isinstance(provider, Provider) or not provider.refresh:
            raise RefreshFailed
        return self._refresh(provider.refresh, connection, rejected)

    def judge(self, connection: Connection, response: Any) -> Any:
        """Whether this response rejects the credential."""
        provider = self._of(connection)
        head = ResponseHead(response.status, response.fields)
        if not isinstance(provider, Provider) or not provider.is_rejected:
            return is_expiry(head)
        if provider.needs_body is None or not provider.needs_body(head):
            return provider.is_rejected(connection, head)
        return self._judge_body(provider.is_rejected, connection, response)

    def _of(self, connection: Connection) -> Provider | Obtained:
        source = self._find(connection)
        known = self._known.get(id(source))
        if known is None:
            known = Obtained(source) if isinstance(source, Credential) else self._provider(source)
            # `find` hands out the same few objects for ever, so that their ids stay theirs.
            self._known[id(source)] = known
        return known

    # What differs by colour.

    def _provider(self, source: CredentialProvider) -> Provider:
        return Provider(source, for_wsgi, for_wsgi)

    def _obtain(self, provider: Provider, connection: Connection) -> Any:
        credential = self._cache.obtain(connection, lambda: settled(provider.obtain(connection), PATIENCE))
        return provider.obtained(credential, self._cache, connection)

    def _refresh(self, refresh: Call, connection: Connection, rejected: Credential) -> Any:
        return self._cache.refresh(connection, rejected, lambda: settled(refresh(connection, rejected), PATIENCE))

    def _judge_body(self, is_rejected: Call, connection: Connection, response: Any) -> Any:
        pieces: list[bytes] = []
        try:
            while not _enough(response, pieces):
                pieces.append(response.read())
        except (ProxyError, ResponseTruncated):
            pass  # Whoever reads on is told.
        return is_rejected(connection, _head_with(response, pieces))


class AsyncProviders(Providers):
    """The same on an event loop."""

    def _provider(self, source: CredentialProvider) -> Provider:
        return Provider(source, for_asgi_apart, for_asgi)

    async def _obtain(self, provider: Provider, connection: Connection) -> Obtained:
        credential = await self._cache.aobtain(connection, lambda: asettled(provider.obtain(connection)))
        return provider.obtained(credential, self._cache, connection)

    async def _refresh(self, refresh: Call, connection: Connection, rejected: Credential) -> Credential:
        return await self._cache.arefresh(connection, rejected, lambda: asettled(refresh(connection, rejected)))

    async def _judge_body(self, is_rejected: Call, connection: Connection, response: Any) -> bool:
        pieces: list[bytes] = []
        try:
            while not _enough(response, pieces):
                pieces.append(await response.read())
        except (ProxyError, ResponseTruncated):
            pass  # Whoever reads on is told.
        return bool(await asettled(is_rejected(connection, _head_with(response, pieces))))


def _enough(response: Any, pieces: list[bytes]) -> bool:
    return response.at_end or sum(map(len, pieces)) >= JUDGED


def _head_with(response: Any, pieces: list[bytes]) -> ResponseHead:
    """The head with the start of the body, which is put back."""
    body = b"".join(pieces)
    response.unread(body)
    return ResponseHead(response.status, response.fields, body[:JUDGED])
