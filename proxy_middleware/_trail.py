"""What observers are told of a request. Nothing here runs where there are none."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import count
from time import monotonic
from types import MappingProxyType
from typing import Any

from proxy_middleware._steps import Forward, Refresh, Resolve, Steps
from proxy_middleware.errors import CallerLeft, ProxyError, ResponseTruncated
from proxy_middleware.models import Event, EventKind
from proxy_middleware.protocols import Observer

_logger = logging.getLogger("proxy_middleware")
_numbers = count(1)
_origin_text = lru_cache(1024)(str)
_NO_TIMINGS: Mapping[str, float] = MappingProxyType({})


class Trail:
    """One request as observers see it.

    Args:
        observers: Who is told.
        method: The request's.
        selector: Which connection it asks for; empty where that is malformed.
    """

    _connection: str | None = None
    _attempts = 0
    _response: Any = None
    _finished = False
    _resolved = _sent = _answered = 0.0  # When, once it has come to that.

    def __init__(self, observers: Sequence[Observer], method: str, selector: str) -> None:
        self._observers = observers
        self._number = next(_numbers)
        self._method = method
        self._selector = selector
        self._began = now = monotonic()
        self._tell("matched", now)

    def follow(self, steps: Steps) -> Steps:
        """The same steps, told of as they are performed."""
        try:
            step = next(steps)
            while True:
                kind = type(step)
                if kind is Forward:
                    self._attempt(step)
                elif kind is Refresh:
                    self._tell("refresh_started", monotonic())
                try:
                    value = yield step
                except Exception as error:
                    if kind is Refresh:
                        self._tell("refresh_finished", monotonic(), error=reason(error))
                    step = steps.throw(error)
                    continue
                if kind is Forward:
                    self._response = value
                    self._answered = now = monotonic()
                    self._tell("response_started", now, None, None, value.status)
                elif kind is Resolve:
                    self._connection = getattr(value, "id", None)
                    self._resolved = now = monotonic()
                    self._tell("resolved", now)
                elif kind is Refresh:
                    self._tell("refresh_finished", monotonic())
                step = steps.send(value)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]

    def _attempt(self, step: Any) -> None:
        now = monotonic()
        self._attempts += 1
        self._sent = self._sent or now
        path = step.target.partition(b"?")[0].decode("latin-1")
        self._tell("attempt", now, _origin_text(step.origin), path)

    def finish(self, error: BaseException | None, received: int) -> None:
        """The request is over; whoever says so first is believed.

        Args:
            error: What it ended with, if not with the whole response.
            received: Bytes of its body that have come from the caller.
        """
        if self._finished:
            return
        self._finished, now = True, monotonic()
        response, status, sent, failure = self._response, None, 0, None
        if error is not None:
            failure = reason(error)
        if isinstance(error, ProxyError):
            status = error.status
            if not self._attempts and status < 500:
                self._tell("denied", now, None, None, status, failure)
        elif response is not None:
            status, sent = response.status, response.taken
        self._tell("finished", now, None, None, status, failure, received, sent, self._timings(now))

    def _timings(self, now: float) -> Mapping[str, float]:
        timings = {"total": now - self._began}
        if self._resolved:
            timings["resolve"] = self._resolved - self._began
        if self._sent:
            timings["credential"] = self._sent - self._resolved
        if self._answered:
            timings["upstream"] = self._answered - self._sent
            timings["relay"] = now - self._answered
        return MappingProxyType(timings)

    def _tell(
        self,
        kind: EventKind,
        now: float,
        origin: str | None = None,
        path: str | None = None,
        status: int | None = None,
        error: str | None = None,
        received: int = 0,
        sent: int = 0,
        timings: Mapping[str, float] = _NO_TIMINGS,
    ) -> None:
        # The tuple's own constructor: that of a NamedTuple is a Python function.
        event = tuple.__new__(
            Event,
            (
                kind,
                now,
                self._number,
                self._method,
                self._selector,
                self._connection,
                self._attempts,
                origin,
                path,
                status,
                error,
                received,
                sent,
                timings,
            ),
        )
        for observe in self._observers:
            try:
                observe(event)
            except Exception as failure:
                _logger.error("An observer failed with %s at %r (message withheld)", type(failure).__name__, kind)


class Ending:
    """What is seen to when a request is over; the bodies of both doors are one.

    Attributes:
        trail: Tells the observers, where there are any.
        leave: Makes room for another request to the same connection, where it is limited.
    """

    trail: Trail | None = None
    leave: Callable[[], None] | None = None
    _error: BaseException | None = None

    def failed(self, error: BaseException) -> None:
        """The request ends with this error, unless it had another before; observers are told when it is over."""
        if self.trail is not None and self._error is None:
            self._error = error

    def over(self, received: int) -> None:
        """The request is over, and so many bytes of its body have come."""
        if self.leave is not None:
            leave, self.leave = self.leave, None
            leave()
        if self.trail is not None:
            self.trail.finish(self._error, received)
            self._error = None  # Its traceback leads back to here.


def reason(error: BaseException) -> str:
    """The error type of RFC 9209, and for who left `caller_left`, which that knows nothing of."""
    if isinstance(error, ProxyError):
        return error.proxy_status
    if isinstance(error, ResponseTruncated):
        return "http_response_incomplete"
    if isinstance(error, CallerLeft) or not isinstance(error, Exception):
        return "caller_left"  # Servers cancel the request of a caller who has left.
    return "proxy_internal_error"
