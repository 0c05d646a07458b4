"""Plugins for the host applications: credentials that expire, and parts that fail with a secret in their message."""

from collections.abc import Awaitable
from itertools import count

import anyio

from proxy_middleware import (
    Authenticator,
    Connection,
    ConnectionResolver,
    Credential,
    ProxyRequest,
    ResponseHead,
    nonblocking,
)

CALLER_TOKEN = "caller-token"
UPSTREAM_SECRET = "upstream-secret-canary"


class PluginFailed(Exception):
    """What failing plugins raise; its message must be shown to nobody."""

    def __init__(self) -> None:
        super().__init__(f"{UPSTREAM_SECRET} was refused")


class NumberedTokens:
    """A provider whose every refresh gives the next of "upstream-secret-canary-1", "-2", ..."""

    def __init__(self) -> None:
        self._numbers = count(1)

    def obtain(self, connection: Connection) -> Credential:
        """The next token, too: what was refreshed once is the cache's business."""
        return Credential.bearer(f"{UPSTREAM_SECRET}-{next(self._numbers)}")

    def refresh(self, connection: Connection, rejected: Credential) -> Credential:
        """A newer token than the rejected one."""
        return self.obtain(connection)


class NumberedTokensLater:
    """The same with methods that are `async def`, and do wait."""

    def __init__(self) -> None:
        self._tokens = NumberedTokens()

    async def obtain(self, connection: Connection) -> Credential:
        """The next token."""
        await anyio.sleep(0.01)
        return self._tokens.obtain(connection)

    async def refresh(self, connection: Connection, rejected: Credential) -> Credential:
        """A newer token than the rejected one."""
        return await self.obtain(connection)


class Judge(NumberedTokens):
    """A provider of an upstream that says "expired" with a field of its own, and means something else by a 401."""

    def is_rejected(self, connection: Connection, response: ResponseHead) -> bool:
        """Whether the field is there."""
        return response.header("X-Expired") == "yes"


class FailingRefresh(NumberedTokens):
    """A provider that cannot refresh."""

    def refresh(self, connection: Connection, rejected: Credential) -> Credential:
        """Fails."""
        raise PluginFailed


class SameToken:
    """A provider whose refresh gives what was rejected."""

    def obtain(self, connection: Connection) -> Credential:
        """Always the same token."""
        return Credential.bearer(UPSTREAM_SECRET)

    def refresh(self, connection: Connection, rejected: Credential) -> Credential:
        """The same, again."""
        return self.obtain(connection)


class FailingProvider:
    """A provider that is broken."""

    def obtain(self, connection: Connection) -> Credential:
        """Fails."""
        raise PluginFailed


class FailingResolver:
    """A resolver that fails for the selector "resolver-fails", and is another one for all others."""

    def __init__(self, resolver: ConnectionResolver) -> None:
        self._resolve = resolver.resolve

    @nonblocking
    def resolve(self, selector: str, request: ProxyRequest) -> Connection | Awaitable[Connection]:
        """Fails, or does as the other one."""
        if selector == "resolver-fails":
            raise PluginFailed
        return self._resolve(selector, request)


class FailingAuthenticator:
    """An authenticator that fails where the selector is "authenticator-fails", and is another one for all others."""

    def __init__(self, authenticate: Authenticator) -> None:
        self._authenticate = authenticate

    @nonblocking
    def __call__(self, request: ProxyRequest) -> object:
        """Fails, or does as the other one."""
        if request.selector == "authenticator-fails":
            raise PluginFailed
        return self._authenticate(request)
