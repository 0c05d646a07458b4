"""Proxy: puts the parts together, and owns the pools and the credential cache."""

import ssl
from collections.abc import Callable, Sequence
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Required, TypedDict

from proxy_middleware._admission import Admission
from proxy_middleware._credential import Credential
from proxy_middleware._drive import Perform, asgi_performers, wsgi_performers
from proxy_middleware._exchange import Rules
from proxy_middleware._loops import asyncio_loop
from proxy_middleware._plugins import Plugins
from proxy_middleware._single_flight import CredentialCache
from proxy_middleware._steps import Forward
from proxy_middleware._target import Matcher
from proxy_middleware._unframed import Mode, SpoolPolicy
from proxy_middleware.credentials.static import StaticCredentials
from proxy_middleware.models import BrowserPolicy, Connection, EgressPolicy, Limits, Replay, Timeouts
from proxy_middleware.protocols import Authenticator, ConnectionResolver, CredentialProvider, Observer, hand_egress

if TYPE_CHECKING:
    from proxy_middleware.asgi import ASGIApp, ASGIProxyMiddleware
    from proxy_middleware.upstream.asyncio import AsyncioUpstream
    from proxy_middleware.upstream.httpx import PerLoopUpstream
    from proxy_middleware.upstream.threads import ThreadsUpstream
    from proxy_middleware.wsgi import WSGIApp, WSGIProxyMiddleware

__all__ = ["Proxy", "Settings"]


class Settings(TypedDict, total=False):
    """The keywords of `Proxy` and of both doors; see `Proxy`."""

    resolver: Required[ConnectionResolver]
    credentials: Required[CredentialProvider]
    authenticate: Required[Authenticator]
    prefix: str
    limits: Limits
    timeouts: Timeouts
    egress: EgressPolicy
    browser: BrowserPolicy
    replay: Replay
    cache_guard: bool
    root_path: str | None
    spool_unframed: Mode
    ssl_context: ssl.SSLContext | None
    upstream: Any
    observers: Sequence[Observer]


class Proxy:
    """The engine on its own: doors made by `asgi` and `wsgi` share its pools and its credential cache.

    Nothing is opened before the first request; pools are per process and event loop.

    Args:
        resolver: Finds the connection that a selector names.
        credentials: Holds the connections' credentials.
        authenticate: Says who is calling; `bearer_tokens`, `host_user` and `anyone` are ready-made.
        prefix: Where the connections live.
        limits: How much is allowed.
        timeouts: How long the upstream may take; a connection's own replace them.
        egress: Which addresses may be dialled, also for credentials: providers that make network calls are told. Not
            applied by an `upstream` of one's own.
        browser: What browsers may do.
        replay: How much of a request body is kept for a second try.
        cache_guard: Tell shared caches not to store what they otherwise might, since one URL means many tenants.
        root_path: The mount prefix, instead of what the server says; some servers let the caller choose it.
        spool_unframed: Whether responses without a length are spooled before they are sent: "always", "never", or
            "auto", where the server could not break a transfer off (up to 8 MiB, never event streams).
        ssl_context: For connections to upstreams; by default one that verifies against the system's authorities.
        upstream: An httpx or httpx2 transport, asynchronous for the ASGI door, synchronous for the WSGI door, instead
            of the built-in HTTP/1.1 engine.
        observers: Are told what happens to each request, by `Event`.

    Raises:
        TypeError: A required keyword is missing, or of the wrong kind.
        ValueError: A setting makes no sense, or `credentials` cannot obey `egress`.
    """

    _asyncio: "AsyncioUpstream | None" = None
    _threads: "ThreadsUpstream | None" = None
    _on_trio: "PerLoopUpstream | None" = None

    def __init__(
        self,
        *,
        resolver: ConnectionResolver,
        credentials: CredentialProvider,
        authenticate: Authenticator | None = None,
        prefix: str = "/connections",
        limits: Limits | None = None,
        timeouts: Timeouts | None = None,
        egress: EgressPolicy | None = None,
        browser: BrowserPolicy | None = None,
        replay: Replay | None = None,
        cache_guard: bool = True,
        root_path: str | None = None,
        spool_unframed: Mode = "auto",
        ssl_context: ssl.SSLContext | None = None,
        upstream: Any = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        if not callable(authenticate):
            raise TypeError(
                "authenticate is required, and says who may call: bearer_tokens({...}), host_user, anyone, "
                "or a callable of your own"
            )
        if not callable(getattr(resolver, "resolve", None)):
            raise TypeError("resolver needs a `resolve` method")
        if not callable(getattr(credentials, "obtain", None)):
            raise TypeError("credentials needs an `obtain` method")
        for observer in observers:
            if not callable(observer) or iscoroutinefunction(observer):
                raise TypeError("an observer is a plain function, or an object with a plain `__call__`")
        self.observers = tuple(observers)
        self.matcher = Matcher(prefix, root_path)
        self.unframed = SpoolPolicy(spool_unframed)
        self._plugins = Plugins(authenticate, resolver, _finder(credentials))
        self._limits = limits or Limits()
        self._cache = CredentialCache(self._limits.credential_ttl, self._limits.refresh_backoff)
        self._admission = Admission(self._limits)
        self._egress = egress or EgressPolicy()
        rules = self._limits, timeouts or Timeouts(), browser or BrowserPolicy(), replay or Replay(), cache_guard
        # ASGI servers fail on what they do not know as a status; WSGI has no such limit, and names as they came.
        self.asgi_rules = Rules(*rules, max_status=599, lower_case=True, root_path=root_path)
        self.wsgi_rules = Rules(*rules, max_status=999, lower_case=False, root_path=root_path)
        self._ssl_context = ssl_context
        self._transport = upstream
        # Last, so that nobody is told the policy of a proxy that does not come about.
        hand_egress(credentials, self._egress)

    def asgi(self, app: "ASGIApp") -> "ASGIProxyMiddleware":
        """An ASGI door around this application."""
        from proxy_middleware.asgi import ASGIProxyMiddleware

        return ASGIProxyMiddleware.over(app, self)

    def wsgi(self, app: "WSGIApp") -> "WSGIProxyMiddleware":
        """A WSGI door around this application."""
        from proxy_middleware.wsgi import WSGIProxyMiddleware

        return WSGIProxyMiddleware.over(app, self)

    def transport(self, selector: str, *, caller: object = "anyone") -> Any:
        """A transport of httpx and httpx2 that calls a connection without a server in between; for SDKs built on them.

        Blocking and asynchronous in one; `proxy_middleware.transport` says which URLs it takes, and what it raises.

        Args:
            selector: Names the connection.
            caller: Becomes `request.caller`; the authenticator is not asked. None answers 401.

        Raises:
            ValueError: The selector is malformed.
        """
        from proxy_middleware.transport import ProxyTransport

        return ProxyTransport(self, selector, caller)

    def forget(self, connection_id: str) -> None:
        """Drops what is cached of a connection's credential, so that the next request asks the provider.

        For when the account behind a connection was connected anew, or its credential revoked. Other processes have
        caches of their own, which last `Limits.credential_ttl`.
        """
        self._cache.forget(connection_id)

    def close(self) -> None:
        """Closes the pool of the WSGI door. A request that comes later opens a new one."""
        if self._threads is not None:
            self._threads.close()

    async def aclose(self) -> None:
        """Closes the ASGI doors' pool of the running event loop, and the WSGI door's."""
        self.close()
        on_asyncio = asyncio_loop() is not None
        if self._asyncio is not None and on_asyncio:
            await self._asyncio.aclose()
        if self._on_trio is not None and not on_asyncio:
            await self._on_trio.aclose()

    # What the doors are built from.

    def asgi_performers(self) -> tuple[Perform, Perform]:
        """Who performs the core's steps on asyncio, and who on any other event loop."""
        if self._transport is not None:
            from proxy_middleware.upstream.httpx import AsyncTransportUpstream

            perform = asgi_performers(
                self._plugins, self._cache, self._admission, AsyncTransportUpstream(self._transport).send
            )
            return perform, perform
        if self._asyncio is None:
            from proxy_middleware.upstream.asyncio import AsyncioUpstream

            # Transports may be met in several threads at once; all of them share what the first one has made.
            vars(self).setdefault("_asyncio", AsyncioUpstream(self._limits, self._egress, self._ssl_context))
            assert self._asyncio is not None
        return (
            asgi_performers(self._plugins, self._cache, self._admission, self._asyncio.send),
            asgi_performers(self._plugins, self._cache, self._admission, self._send_on_trio),
        )

    def wsgi_performers(self) -> Perform:
        """Who performs the core's steps in a thread."""
        if self._transport is not None:
            from proxy_middleware.upstream.httpx import TransportUpstream

            return wsgi_performers(self._plugins, self._cache, self._admission, TransportUpstream(self._transport).send)
        if self._threads is None:
            from proxy_middleware.upstream.threads import ThreadsUpstream

            vars(self).setdefault("_threads", ThreadsUpstream(self._limits, self._egress, self._ssl_context))
            assert self._threads is not None
        return wsgi_performers(self._plugins, self._cache, self._admission, self._threads.send)

    def _send_on_trio(self, forward: Forward) -> Any:
        if self._on_trio is None:
            from proxy_middleware.upstream.httpx import PerLoopUpstream

            vars(self).setdefault("_on_trio", PerLoopUpstream(self._limits, self._egress, self._ssl_context))
            assert self._on_trio is not None
        return self._on_trio.send(forward)


def _finder(credentials: CredentialProvider) -> Callable[[Connection], Credential | CredentialProvider]:
    if isinstance(credentials, StaticCredentials) and type(credentials).obtain is StaticCredentials.obtain:
        return credentials.select
    return lambda connection: credentials
