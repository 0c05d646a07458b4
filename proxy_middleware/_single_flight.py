"""The credential cache and its refresh rounds: one rule for threads and for any number of event loops at once.

`get` is the hot path: one look-up, no lock. Whoever finds nothing there, or whose credential was rejected, asks with
`obtain` or `refresh`. Those who ask for one connection at one time make a round: one of them leads, which is to call
the provider, and all share what comes of it. There is one round at a time per connection, whatever the question, so
that an answer from before a refresh never replaces the one from after it: who obtains while a refresh is under way gets
the newer credential, and who refreshes while one is being obtained compares first.

On an event loop the call is a task of its own, so that a caller who leaves takes nobody down. No exception of a
provider is kept or shared: each caller gets one of their own, which never was near a credential.
"""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, ClassVar

import anyio

from proxy_middleware._cache_entries import Entries, Question, facts_of, same
from proxy_middleware._credential import Credential
from proxy_middleware._forks import tell_after_fork
from proxy_middleware._loops import call_soon, spawn, within
from proxy_middleware._plugins import log_failure
from proxy_middleware.errors import InternalError, ProxyError, RefreshFailed, StoreError
from proxy_middleware.models import Connection

__all__ = ["CredentialCache"]

_logger = logging.getLogger("proxy_middleware")

Call = Callable[[], Any]
AsyncCall = Callable[[], Awaitable[Any]]


@dataclass(slots=True, eq=False)
class Round(Question):
    """One question, and all who wait for the answer.

    Attributes:
        began: When its asker came, or began to lead, by the monotonic clock.
        task: An event loop's own references to its tasks are weak ones.
        wakers: Called, from any thread, when it is done.
        done: Whether there is an outcome: a credential, or an error, of which copies are raised.
    """

    began: float = 0.0
    task: object = None
    wakers: list[Callable[[], object]] = field(default_factory=list)
    done: bool = False
    credential: Credential | None = None
    error: ProxyError | None = None

    def lost(self) -> bool:
        """Whether its event loop was closed in the middle of it, without so much as cancelling its tasks."""
        return isinstance(self.task, asyncio.Task) and self.task.get_loop().is_closed()


class CredentialCache:
    """Keeps credentials by connection, and has a provider called once for all who ask at the same time.

    What is known counts for one connection id, revision, base URL, integration and set of attributes. Whoever asks with
    others neither gets it nor joins the round; attributes that cannot be compared are different ones.

    Args:
        ttl: Seconds for which an obtained credential is used before `obtain` is called again; never past its expiry.
        backoff: Seconds for which a failed refresh is not tried again.
        clock: A monotonic clock.
        now: Unix time.

    Attributes:
        ROUND_SECONDS: Nobody joins a round that is older.
        GRACE_SECONDS: After so much more a call on an event loop is given up, and who waits for others' gives up. It
            leaves a provider with a limit of `ROUND_SECONDS` of its own the time to say itself what happened.
        CAPACITY: So many connections are known; then the one learned first is forgotten.
        by_id: What is known, to be read only.
    """

    ROUND_SECONDS: ClassVar[float] = 10.0
    GRACE_SECONDS: ClassVar[float] = 2.0
    CAPACITY: ClassVar[int] = 10_000

    def __init__(
        self,
        ttl: float = 60.0,
        backoff: float = 30.0,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.clock = clock
        self._entries = Entries(ttl, backoff, self.CAPACITY, clock, now)
        self.by_id = self._entries.by_id
        self._rounds: dict[str, list[Round]] = {}
        self._serials = count()
        # Reentrant, since the garbage collector ends the task of a lost event loop wherever it happens to run.
        self._lock = threading.RLock()
        tell_after_fork(self)

    def get(self, connection: Connection) -> Credential | None:
        """The cached credential, which may be about to expire; None if `obtain` is to be asked."""
        entry = self.by_id.get(connection.id)
        if entry is None or self.clock() >= entry.fresh_until:
            return None
        if entry.connection is connection or same(entry.facts, facts_of(connection)):
            return entry.credential
        return None

    def margin(self, connection: Connection, usual: float) -> float:
        """Seconds before its expiry from which on the cached credential is refreshed.

        Half of a short life at the most: a token that lives for less than the usual margin would otherwise be refreshed
        for each request. One that had no life at all when a refresh gave it, as a clock is wrong or its lifetime was
        said to be 0, is used until `obtain` is called again: the upstream may think otherwise.
        """
        entry = self.by_id.get(connection.id)
        if entry is None:
            return usual
        return min(usual, entry.life / 2) if entry.life > 0 else -math.inf

    def obtain(self, connection: Connection, call: Call) -> Credential:
        """The credential to use now, asked for in a thread.

        Args:
            connection: Whose.
            call: Calls the provider's `obtain`.

        Raises:
            RefreshFailed: The provider raised it, now or within the back-off, or was not done in time.
            InternalError: The provider raised what is no ProxyError, or gave no Credential; the log says where.
            ProxyError: The provider raised it.
        """
        return self._ask(Round(connection), call)

    async def aobtain(self, connection: Connection, call: AsyncCall) -> Credential:
        """Does on an event loop what `obtain` does in a thread."""
        return await self._aask(Round(connection), call)

    def refresh(self, connection: Connection, rejected: Credential, call: Call) -> Credential:
        """A credential other than the rejected one, asked for in a thread.

        Args:
            connection: Whose.
            rejected: The one that will not do.
            call: Calls the provider's `refresh`, unless another credential is known already.

        Raises:
            RefreshFailed: There is none; what the provider raised, if it was something else, is in the log.
        """
        return self._ask(Round(connection, rejected), call)

    async def arefresh(self, connection: Connection, rejected: Credential, call: AsyncCall) -> Credential:
        """Does on an event loop what `refresh` does in a thread."""
        return await self._aask(Round(connection, rejected), call)

    def forget(self, connection_id: str) -> None:
        """Drops what is known, back-off included; what is being asked at this moment will not be kept."""
        with self._lock:
            self._entries.forget(connection_id)
            for round_ in self._rounds.get(connection_id, ()):
                round_.forgotten = True

    # Asking, in two colours. Everyone brings a round of their own, and leads it if there is none to join.

    def _ask(self, own: Round, call: Call) -> Credential:
        own.began = self.clock()
        while True:
            step = self._next(own)
            if isinstance(step, Credential):
                return step
            if step is own:
                self._lead(own, call)
            else:
                event = threading.Event()
                if self._notify(step, event.set):
                    event.wait(self._patience(own))
            if (answer := self._answer(own, step)) is not None:
                return answer

    async def _aask(self, own: Round, call: AsyncCall) -> Credential:
        own.began = self.clock()
        while True:
            step = self._next(own)
            if isinstance(step, Credential):
                return step
            if step is own:
                self._start(own, call)
            event = anyio.Event()
            if self._notify(step, partial(call_soon(), event.set)):
                with anyio.move_on_after(self._patience(own)):
                    await event.wait()
            if (answer := self._answer(own, step)) is not None:
                return answer

    def _next(self, own: Round) -> Credential | Round:
        """What is known already, or else the round to wait for, or to lead if it is the caller's own."""
        with self._lock:
            known = self._entries.known(own)
            return self._join(own) if known is None else known

    def _join(self, own: Round) -> Round:
        now = self.clock()
        for round_ in tuple(self._rounds.get(own.connection.id, ())):
            if round_.lost():
                self._abandon(round_)
            elif self._open(round_, now) and same(round_.facts, own.facts):
                return round_
        own.began, own.serial = now, next(self._serials)
        self._rounds.setdefault(own.connection.id, []).append(own)
        return own

    def _open(self, round_: Round, now: float) -> bool:
        return now - round_.began < self.ROUND_SECONDS and not round_.forgotten

    def _notify(self, round_: Round, waker: Callable[[], object]) -> bool:
        with self._lock:
            if not round_.done:
                round_.wakers.append(waker)
            return not round_.done

    def _patience(self, own: Round) -> float:
        return own.began + self.ROUND_SECONDS + self.GRACE_SECONDS - self.clock()

    def _answer(self, own: Round, round_: Round) -> Credential | None:
        """What this round, or having waited for it in vain, means for who asked; None if they have to ask again."""
        if not round_.done:
            with self._lock:
                used_on = self._entries.use_on(own)
            if used_on is None:
                raise RefreshFailed
            return used_on
        if round_.credential is not None and round_.credential != own.rejected:
            return round_.credential
        if round_.error is not None and round_.rejected == own.rejected:
            raise _copy(round_.error)
        return None  # That a refresh failed does not say what would be obtained, nor the other way round.

    # Leading a round.

    def _lead(self, round_: Round, call: Call) -> None:
        try:
            self._succeed(round_, call())
        except Exception as error:
            self._fail(round_, error)
        except BaseException:
            self._abandon(round_)
            raise

    def _start(self, round_: Round, call: AsyncCall) -> None:
        try:
            round_.task = spawn(partial(self._alead, round_, call))
        except BaseException:
            self._abandon(round_)
            raise

    async def _alead(self, round_: Round, call: AsyncCall) -> None:
        try:
            self._succeed(round_, await within(self.ROUND_SECONDS + self.GRACE_SECONDS, call()))
        except Exception as error:
            self._fail(round_, error)
        except BaseException:  # The event loop ends.
            self._abandon(round_)
            raise

    def _succeed(self, round_: Round, credential: object) -> None:
        if not isinstance(credential, Credential):
            raise TypeError(f"the provider gave {type(credential).__name__}, not Credential")
        if credential == round_.rejected:
            raise RefreshFailed
        with self._lock:
            self._entries.succeeded(round_, credential)
            self._end(round_, credential)

    def _fail(self, round_: Round, error: Exception) -> None:
        with self._lock:
            used_on = self._entries.failed(round_, error)
            self._end(round_, used_on, _public(round_, error))
        if isinstance(error, StoreError):
            # Its reason is for the host, and callers are not told.
            _logger.error("the token store fails connection %r: %s", round_.connection.id, error)
        elif used_on is not None or not isinstance(error, ProxyError if round_.rejected is None else RefreshFailed):
            log_failure("Obtain" if round_.rejected is None else "Refresh", error)

    def _abandon(self, round_: Round) -> None:
        """Nobody will know what the call would have given, so that it does not count as a failure of the provider."""
        with self._lock:
            self._end(round_, self._entries.use_on(round_), RefreshFailed())

    def _end(self, round_: Round, credential: Credential | None, error: ProxyError | None = None) -> None:
        if round_.done:
            return
        round_.credential, round_.error, round_.done = credential, error, True
        left = [other for other in self._rounds.pop(round_.connection.id, ()) if other is not round_]
        if left:
            self._rounds[round_.connection.id] = left
        for wake in round_.wakers:
            with suppress(RuntimeError):  # That event loop has ended, and who waited there with it.
                wake()
        round_.task = None

    def after_fork(self) -> None:
        """No round goes on in the child: neither its leader nor who waits for it is there."""
        self._lock = threading.RLock()
        rounds, self._rounds = self._rounds, {}
        for round_ in (round_ for several in rounds.values() for round_ in several):
            round_.wakers.clear()


def _public(question: Question, error: Exception) -> ProxyError:
    if question.rejected is not None:
        return RefreshFailed()
    return _copy(error) if isinstance(error, ProxyError) else InternalError()


def _copy(error: ProxyError) -> ProxyError:
    """The same error without where it came from. Its constructor may want anything, and is not called."""
    try:
        copy = type(error).__new__(type(error), *error.args)
    except Exception:  # A class with a `__new__` of its own may raise anything.
        return InternalError()
    copy.__dict__.update({name: value for name, value in error.__dict__.items() if name != "__notes__"})
    return copy
