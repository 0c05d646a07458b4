"""Credentials that expire, are rejected and cannot be refreshed when a test wants it."""

from dataclasses import dataclass
from threading import Lock
from time import time

from proxy_middleware._credential import Credential
from proxy_middleware.errors import RefreshFailed
from proxy_middleware.models import Connection
from proxy_middleware.protocols import nonblocking
from proxy_middleware.testing._secrets import Secret, keep_known
from proxy_middleware.testing.messages import ReceivedRequest

__all__ = ["ExpiringCredentials"]


@dataclass(frozen=True, slots=True)
class _Issued:
    token: str
    credential: Credential


class ExpiringCredentials:
    """A credential provider that issues the bearer tokens "token-1", "token-2" and so on.

    Each connection has a token of its own. `obtain` gives the connection's latest one, be it expired or not, as a
    provider does that is told by nobody; `refresh` issues the next, unless there is a newer one than the rejected.
    Together with a FakeUpstream that asks `accepts`, this is an API whose tokens expire:

        upstream.demand(credentials.accepts)
        credentials.expire()    # the next request is a 401, then a refresh, then the upstream's answer

    Args:
        lifetime: Seconds that a token lives from when it is issued, by the clock of the package, which may be a
            FakeClock; None is for ever. May be set later.
        fail_refresh: Whether `refresh` raises RefreshFailed. May be set later.

    Attributes:
        obtained: How often `obtain` was called.
        refreshed: How often `refresh` was called.
    """

    def __init__(self, *, lifetime: float | None = None, fail_refresh: bool = False) -> None:
        self.lifetime = lifetime
        self.fail_refresh = fail_refresh
        self.obtained = 0
        self.refreshed = 0
        self._lock = Lock()
        self._tokens: list[str] = []
        self._latest: dict[str, _Issued] = {}
        self._expired: set[str] = set()
        keep_known(self)

    @property
    def tokens(self) -> list[str]:
        """The tokens that were issued so far, the latest last; a copy."""
        with self._lock:
            return list(self._tokens)

    @nonblocking
    def obtain(self, connection: Connection) -> Credential:
        """The connection's latest token; its first, if there is none yet."""
        with self._lock:
            self.obtained += 1
            latest = self._latest.get(connection.id)
            return latest.credential if latest is not None else self._issue(connection)

    @nonblocking
    def refresh(self, connection: Connection, rejected: Credential) -> Credential:
        """A newer token than the rejected one.

        Raises:
            RefreshFailed: Refreshes are to fail.
        """
        with self._lock:
            self.refreshed += 1
            if self.fail_refresh:
                raise RefreshFailed
            latest = self._latest.get(connection.id)
            if latest is not None and latest.credential != rejected:
                return latest.credential
            return self._issue(connection)

    def expire(self) -> None:
        """From now on no token that was issued so far is accepted."""
        with self._lock:
            self._expired.update(self._tokens)

    def accepts(self, request: ReceivedRequest) -> bool:
        """Whether the request has a connection's latest token, and that has not expired."""
        given = (request.header("authorization") or "").removeprefix("Bearer ")
        with self._lock:
            return any(
                issued.token == given and given not in self._expired and _alive(issued.credential)
                for issued in self._latest.values()
            )

    def secrets(self) -> list[Secret]:
        """What `assert_no_credentials` looks for."""
        return [Secret(f"token {number} of ExpiringCredentials", t.encode()) for number, t in enumerate(self.tokens, 1)]

    def __repr__(self) -> str:
        return f"<ExpiringCredentials: {len(self._tokens)} issued>"

    def _issue(self, connection: Connection) -> Credential:
        token = f"token-{len(self._tokens) + 1}"
        expires_at = None if self.lifetime is None else time() + self.lifetime
        credential = Credential.bearer(token, expires_at=expires_at)
        self._tokens.append(token)
        self._latest[connection.id] = _Issued(token, credential)
        return credential


def _alive(credential: Credential) -> bool:
    return credential.expires_at is None or time() < credential.expires_at
