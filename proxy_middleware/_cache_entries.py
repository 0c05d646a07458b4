"""What is known of connections' credentials, and for how long it counts: no lock, no thread, no event loop."""

from collections.abc import Callable
from dataclasses import dataclass, field

from proxy_middleware._credential import Credential
from proxy_middleware.errors import ProxyError, RefreshFailed, RefreshPending, StoreUnavailable
from proxy_middleware.models import Connection

# Seconds for which a credential is used on, or an expired one kept, before `obtain` is called again.
SHORT_WHILE = 5.0

Facts = tuple[object, ...]


def facts_of(connection: Connection) -> Facts:
    """What of a connection a credential depends on."""
    return (
        connection.revision,
        connection.base_url,
        connection.integration_key,
        connection.integration_id,
        connection.attributes,
    )


def same(one: Facts, other: Facts) -> bool:
    """Whether they are the same; attributes that cannot be compared are not."""
    try:
        return one == other
    except Exception:  # Whatever it is that their own comparison raises.
        return False


@dataclass(slots=True, eq=False)
class Question:
    """What the provider is asked: for any credential, or for one other than the rejected.

    Attributes:
        connection: For which connection.
        rejected: None where any will do.
        facts: Those of the connection, at this moment.
        serial: A question asked later has a higher one.
        forgotten: The connection was forgotten since, so that the answer is not kept.
    """

    connection: Connection
    rejected: Credential | None = None
    facts: Facts = field(init=False, repr=False)
    serial: int = -1
    forgotten: bool = False

    def __post_init__(self) -> None:
        # A copy of the attributes, so that a mapping that is changed later does not pass for what it was.
        self.facts = (*facts_of(self.connection)[:-1], dict(self.connection.attributes))


@dataclass(slots=True, eq=False)
class Entry:
    """What is known of one connection.

    Attributes:
        connection: What it was learned for.
        facts: Those of the connection, at that moment.
        serial: That of the question it came from.
        credential: None where only a failure is known.
        fresh_until: When `obtain` is to be called again, by the monotonic clock.
        failed: The credential that could not be refreshed; None where it was `obtain` that failed.
        retry_at: Until when that is not tried again, by the monotonic clock.
        life: Seconds that the credential had to live when it came from a refresh.
        obtained: What the core was told of a credential that never expires.
    """

    connection: Connection
    facts: Facts = field(repr=False)
    serial: int
    credential: Credential | None = None
    fresh_until: float = float("-inf")
    failed: Credential | None = None
    retry_at: float = float("-inf")
    life: float = float("inf")
    obtained: object = field(default=None, repr=False)


class Entries:
    """One entry per connection id; `CredentialCache` says what the arguments mean."""

    def __init__(
        self, ttl: float, backoff: float, capacity: int, clock: Callable[[], float], now: Callable[[], float]
    ) -> None:
        self.by_id: dict[str, Entry] = {}
        self._ttl = ttl
        self._backoff = backoff
        self._capacity = capacity
        self._clock = clock
        self._now = now

    def known(self, question: Question) -> Credential | None:
        """The answer that needs no provider; None if there is none.

        Raises:
            RefreshFailed: It failed lately, and is not tried again yet.
        """
        entry, now = self._of(question), self._clock()
        if entry is None:
            return None
        if question.rejected is None:
            good = now < entry.fresh_until
        else:
            good = entry.credential != question.rejected and self._alive(entry)
        if not good and now < entry.retry_at and entry.failed == question.rejected:
            raise RefreshFailed
        return entry.credential if good else None

    def succeeded(self, question: Question, credential: Credential) -> None:
        """Keeps the provider's answer."""
        if self._overtaken(question):
            return
        before = self._of(question)
        entry = Entry(question.connection, question.facts, question.serial, credential)
        entry.fresh_until = self._clock() + self._seconds(credential, self._ttl)
        if question.rejected is not None and credential.expires_at is not None:
            entry.life = credential.expires_at - self._now()
        if before is not None and before.failed == credential:
            entry.failed, entry.retry_at = before.failed, before.retry_at
        self._insert(entry)

    def failed(self, question: Question, error: Exception) -> Credential | None:
        """Draws the conclusions; returns what is used all the same, if there is something."""
        if _is_outage(error):
            if (credential := self.use_on(question)) is not None:
                return credential
        elif question.rejected is None and self._of(question) is not None and not self._overtaken(question):
            del self.by_id[question.connection.id]
        if question.rejected is not None or isinstance(error, RefreshFailed):
            self._back_off(question, error)
        return None

    def use_on(self, question: Question) -> Credential | None:
        """The credential that was obtained before, where none can be now: it serves for as long as it lives."""
        entry = self._of(question)
        if question.rejected is not None or entry is None or entry.credential is None or not self._alive(entry):
            return None
        seconds = self._seconds(entry.credential, min(self._backoff, SHORT_WHILE))
        entry.fresh_until = max(entry.fresh_until, self._clock() + seconds)
        return entry.credential

    def forget(self, connection_id: str) -> None:
        """Drops the entry."""
        self.by_id.pop(connection_id, None)

    def _of(self, question: Question) -> Entry | None:
        entry = self.by_id.get(question.connection.id)
        return entry if entry is not None and same(entry.facts, question.facts) else None

    def _alive(self, entry: Entry) -> bool:
        if entry.credential is None:
            return False
        return entry.credential.expires_at is None or entry.credential.expires_at > self._now()

    def _overtaken(self, question: Question) -> bool:
        """Whether something newer is known already, or nothing is to be kept."""
        entry = self.by_id.get(question.connection.id)
        newer = entry is not None and entry.serial > question.serial and entry.credential != question.rejected
        return question.forgotten or newer

    def _insert(self, entry: Entry) -> None:
        self.by_id.pop(entry.connection.id, None)  # It is the latest one now.
        self.by_id[entry.connection.id] = entry
        if len(self.by_id) > self._capacity:
            del self.by_id[next(iter(self.by_id))]

    def _seconds(self, credential: Credential, limit: float) -> float:
        """For how long it is used, from now; an expired one for a short while, since the provider has no other."""
        if credential.expires_at is None:
            return limit
        left = credential.expires_at - self._now()
        return min(limit, left if left > 0 else SHORT_WHILE)

    def _back_off(self, question: Question, error: Exception) -> None:
        # Where nothing was asked, nothing was refused.
        if isinstance(error, RefreshPending) or self._overtaken(question):
            return
        seconds = min(self._backoff, SHORT_WHILE) if isinstance(error, StoreUnavailable) else self._backoff
        entry = self._of(question)
        if entry is None:
            entry = Entry(question.connection, question.facts, question.serial)
            self._insert(entry)
        entry.failed, entry.retry_at = question.rejected, self._clock() + seconds


def _is_outage(error: Exception) -> bool:
    """Whether the error speaks of a provider in trouble, rather than of the credential."""
    outage = isinstance(error, StoreUnavailable | RefreshFailed)
    return outage or not isinstance(error, ProxyError) or error.status >= 500
