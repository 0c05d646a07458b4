"""A round of refreshing: one process asks the token endpoint, all others use what it has stored.

The store decides. Whoever holds the lease looks at the record again, asks, and saves under the version it saw; whoever
waits for the lease watches the version. New tokens are stored before they are used.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from proxy_middleware._credential import Credential
from proxy_middleware.credentials._lease import Lease
from proxy_middleware.credentials._token_endpoint import Granted, Outage, Refused, TokenEndpoint
from proxy_middleware.credentials._vault import Vault
from proxy_middleware.errors import RefreshFailed, RefreshPending
from proxy_middleware.models import Connection
from proxy_middleware.stores.protocol import Stored, Tokens

__all__ = ["DEAD", "NOT_CONNECTED", "Pace", "Prepare", "Rounds", "bearer"]

_log = logging.getLogger("proxy_middleware")

NOT_CONNECTED = "The connection's account has not been connected yet"
DEAD = "The connection's grant has expired or was revoked: its account has to be connected again"

# RFC 6749 section 5.2, and how GitHub and Slack spell it.
_DEAD_CODES = frozenset({"invalid_grant", "bad_refresh_token", "invalid_refresh_token"})

Prepare = Callable[[Connection, Tokens], tuple[dict[str, str], str]]
"""Header fields and form of the token request, given the stored tokens."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things take, in seconds.

    Attributes:
        round: All of a round, at the most.
        lease: A lease, unless it is renewed.
        renewal: Until a lease is renewed.
        poll: The first pause between two looks at a lease that another holds; the pauses grow.
        longest_poll: The longest one.
        save: Trying to save to a store that fails, at the most.
        waiting: Until the endpoint is asked, at the latest: an answer that nobody waits for takes the grant along.
    """

    round: float = 10.0
    lease: float = 5.0
    renewal: float = 1.5
    poll: float = 0.05
    longest_poll: float = 0.25
    save: float = 2.0
    waiting: float = 6.0


class Rounds:
    """Refreshes the connections of one provider.

    Args:
        vault: Keeps the tokens.
        endpoint: Gives new ones.
        prepare: Makes the request.
        spends: The request spends the stored refresh token: without one, or with a dead one, there is no use in asking.
        pace: How long things take.
    """

    def __init__(
        self, vault: Vault, endpoint: TokenEndpoint, prepare: Prepare, *, spends: bool, pace: Pace | None = None
    ) -> None:
        self._vault = vault
        self._endpoint = endpoint
        self._prepare = prepare
        self._spends = spends
        self._pace = pace or Pace()

    def run(self, connection: Connection, rejected: Credential | None) -> Credential:
        """A newer credential than the rejected one; with None, any.

        Raises:
            RefreshFailed: There is none to be had.
            StoreUnavailable: The store cannot be reached, and nothing was asked.
        """
        began = time.monotonic()
        deadline, latest = began + self._pace.round, began + min(self._pace.round, self._pace.waiting)
        stored = self._vault.load(connection.id)
        seen = _version(stored)
        if found := self._found(stored, rejected, seen):
            return found
        pause = self._pace.poll
        with Lease(self._vault.store, connection.id, self._pace.lease, self._pace.renewal) as lease:
            while not lease.acquire():
                if time.monotonic() + pause > latest:
                    raise RefreshPending("Another refresh of the connection's credential takes too long")
                time.sleep(pause)
                pause = min(pause * 1.5, self._pace.longest_poll)
                if found := self._found(self._vault.load(connection.id), rejected, seen):
                    return found
            stored = self._vault.load(connection.id)
            if found := self._found(stored, rejected, seen):
                return found
            if time.monotonic() > latest:
                raise RefreshFailed("The token store is too slow to refresh the connection's credential")
            return self._ask(connection, stored, lease, deadline)

    def _found(self, stored: Stored | None, rejected: Credential | None, seen: int) -> Credential | None:
        """What the record gives without a call; None if the endpoint has to be asked.

        Raises:
            RefreshFailed: There is no use in asking.
        """
        if self._spends:
            _check_grant(stored)
        credential = bearer(stored.tokens) if stored is not None else None
        if credential is None or rejected is None or _version(stored) != seen:
            return credential
        return credential if credential != rejected and not _expired(credential) else None

    def _ask(self, connection: Connection, stored: Stored | None, lease: Lease, deadline: float) -> Credential:
        tokens = stored.tokens if stored is not None else Tokens()
        if self._spends and tokens.refresh_token is None:
            raise RefreshFailed("The connection has no refresh token")
        # No variable holds the request: a frame of what is raised below must not show it.
        keep = partial(self._keep, connection.id, tokens, _version(stored), deadline)
        call = partial(self._call, keep, *self._prepare(connection, tokens), deadline)
        answer = lease.keep_during(call, deadline) or Outage("no answer in time")
        del call
        if isinstance(answer, Credential):
            return answer
        self._log_failure(connection.id, answer)
        if self._spends and isinstance(answer, Refused) and answer.code in _DEAD_CODES:
            return self._bury(connection.id, _version(stored))
        raise RefreshFailed

    def _call(
        self, keep: Callable[[Granted], Credential], headers: Mapping[str, str], form: str, deadline: float
    ) -> Credential | Refused | Outage:
        """Asks, and stores what it gives, be it too late for who asked: the old refresh token may be spent."""
        answer = self._endpoint.ask(headers, form, deadline)
        del headers, form
        return keep(answer) if isinstance(answer, Granted) else answer

    def _merged(self, old: Tokens, new: Granted) -> Tokens:
        return Tokens(
            new.access_token,
            # Grants without a user have none, even if an endpoint gives one (RFC 6749 section 4.4.3).
            (new.refresh_token or old.refresh_token) if self._spends else None,
            new.expires_at,
            new.scope or old.scope,
            # What the host has chosen to keep stays up to date.
            {name: new.members.get(name, value) for name, value in old.extra.items()},
        )

    def _keep(self, connection_id: str, old: Tokens, expected: int, deadline: float, answer: Granted) -> Credential:
        """Saves the new tokens, then gives their credential; whatever was stored meanwhile counts more."""
        until = min(deadline, time.monotonic() + self._pace.save)
        tokens = self._merged(old, answer)
        saved = self._vault.save(connection_id, tokens, expected, until)
        if not saved and tokens.refresh_token != old.refresh_token:
            stored = self._vault.load(connection_id)
            if stored is not None and stored.tokens.refresh_token == old.refresh_token:
                # What was stored meanwhile has just been spent.
                saved = self._vault.save(connection_id, tokens, stored.version, until)
        credential = bearer(tokens) if saved else self._newer(connection_id, expected)
        if credential is None:
            raise RefreshFailed
        return credential

    def _bury(self, connection_id: str, version: int) -> Credential:
        """The grant is dead, unless someone else has stored a newer one."""
        newer = self._newer(connection_id, version)
        if newer is None:
            self._vault.store.mark_dead(connection_id, version)
            raise RefreshFailed(DEAD)
        return newer

    def _newer(self, connection_id: str, version: int) -> Credential | None:
        stored = self._vault.load(connection_id)
        if stored is None or stored.dead or stored.version == version:
            return None
        return bearer(stored.tokens)

    def _log_failure(self, connection_id: str, answer: Refused | Outage) -> None:
        host = self._endpoint.host
        if isinstance(answer, Refused):
            what = "the token endpoint %s refused to refresh connection %r: %s (status %d)"
            _log.warning(what, host, connection_id, answer.code, answer.status)
        else:
            _log.warning("the token endpoint %s failed for connection %r: %s", host, connection_id, answer.reason)


def bearer(tokens: Tokens) -> Credential | None:
    """The credential that the access token makes; None if there is no access token yet."""
    if tokens.access_token is None:
        return None
    return Credential.bearer(tokens.access_token, expires_at=tokens.expires_at)


def _check_grant(stored: Stored | None) -> None:
    if stored is None:
        raise RefreshFailed(NOT_CONNECTED)
    if stored.dead:
        raise RefreshFailed(DEAD)


def _version(stored: Stored | None) -> int:
    return 0 if stored is None else stored.version


def _expired(credential: Credential) -> bool:
    return credential.expires_at is not None and credential.expires_at <= time.time()
