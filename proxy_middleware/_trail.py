"""What observers are told of a request. Nothing here runs where there are none."""

import logging
from collections.abc import Callable, Sequence
from itertools import count
from time import monotonic
from typing import Any

from proxy_middleware._told import Told
from proxy_middleware.errors import CallerLeft, ProxyError, ResponseTruncated
from proxy_middleware.models import Event, EventKind
from proxy_middleware.protocols import Observer

_logger = logging.getLogger("proxy_middleware")
_numbers = count(1)
_QUESTION_MARK = 0x3F


class Trail:
    """One request as observers see it.

    Args:
        observe: Who is told.
        method: The request's.
        selector: Which connection it asks for; empty where that is malformed.

    Attributes:
        error: What the request ends with, if not with the whole response.
    """

    __slots__ = (
        "_answered",
        "_attempts",
        "_began",
        "_connection",
        "_method",
        "_number",
        "_observe",
        "_resolved",
        "_response",
        "_selector",
        "_sent",
        "error",
    )

    def __init__(self, observe: Observer, method: str, selector: str) -> None:
        self._observe: Observer | None = observe
        self._number = number = next(_numbers)
        self._method = method
        self._selector = selector
        self._connection: str | None = None
        self._response: Any = None
        self.error: BaseException | None = None
        self._attempts = 0
        self._began = now = monotonic()
        self._resolved = self._sent = self._answered = 0.0  # When, once it has come to that.
        try:
            observe(Told(("matched", now, number, method, selector, None, 0, None, None, None, None, 0, 0, None)))
        except Exception as failure:
            _log_failure(failure, "matched")

    def tell(self, kind: EventKind, about: Any = None, error: str | None = None) -> None:
        """Tells what happens on the way.

        Args:
            kind: What happens.
            about: The connection that has been `resolved`, the Forward that is an `attempt`, the response that has
                started; the status of what is `denied`.
            error: Why it has not gone well.
        """
        now = monotonic()
        origin = path = status = None
        if kind == "attempt":
            origin, path = about.origin, about.target
            if _QUESTION_MARK in path:
                path = path.partition(b"?")[0]  # Behind it may be a credential.
            self._attempts += 1
            self._sent = self._sent or now
        elif kind == "response_started":
            self._answered, self._response = now, about
            status = about.status
        elif kind == "resolved":
            self._resolved = now
            self._connection = getattr(about, "id", None)
        else:
            status = about
        event = Told(
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
                0,
                0,
                None,
            )
        )
        try:
            self._observe(event)  # type: ignore[misc]
        except Exception as failure:
            _log_failure(failure, kind)

    def finish(self, received: int) -> None:
        """The request is over; whoever says so first is believed.

        Args:
            received: Bytes of its body that have come from the caller.
        """
        if self._observe is None:
            return
        error, response, status, sent, failure = self.error, self._response, None, 0, None
        if error is not None:
            self.error = None  # Its traceback leads back to here.
            failure = reason(error)
        if isinstance(error, ProxyError):
            status = error.status
            if not self._attempts and status < 500:
                self.tell("denied", status, failure)
        elif response is not None:
            status, sent = response.status, response.taken
        observe, self._observe = self._observe, None
        event = Told(
            (
                "finished",
                monotonic(),
                self._number,
                self._method,
                self._selector,
                self._connection,
                self._attempts,
                None,
                None,
                status,
                failure,
                received,
                sent,
                (self._began, self._resolved, self._sent, self._answered),
            )
        )
        try:
            observe(event)
        except Exception as failed:
            _log_failure(failed, "finished")


def as_one(observers: Sequence[Observer]) -> Observer | None:
    """Tells all of them; None where there is none."""
    if len(observers) < 2:
        return observers[0] if observers else None

    def observe(event: Event) -> None:
        for each in observers:
            try:
                each(event)
            except Exception as failure:
                _log_failure(failure, event.kind)

    return observe


def _log_failure(failure: Exception, kind: EventKind) -> None:
    _logger.error("An observer failed with %s at %r (message withheld)", type(failure).__name__, kind)


class Ending:
    """What is seen to when a request is over; the bodies of both doors are one.

    Attributes:
        trail: Tells the observers, where there are any.
        leave: Makes room for another request to the same connection, where it is limited.
    """

    trail: Trail | None = None
    leave: Callable[[], None] | None = None

    def failed(self, error: BaseException) -> None:
        """The request ends with this error, unless it had another before; observers are told when it is over."""
        if self.trail is not None and self.trail.error is None:
            self.trail.error = error

    def over(self, received: int) -> None:
        """The request is over, and so many bytes of its body have come."""
        if self.leave is not None:
            leave, self.leave = self.leave, None
            leave()
        if self.trail is not None:
            self.trail.finish(received)


def reason(error: BaseException) -> str:
    """The error type of RFC 9209, and for who left `caller_left`, which that knows nothing of."""
    if isinstance(error, ProxyError):
        return error.proxy_status
    if isinstance(error, ResponseTruncated):
        return "http_response_incomplete"
    if isinstance(error, CallerLeft) or not isinstance(error, Exception):
        return "caller_left"  # Servers cancel the request of a caller who has left.
    return "proxy_internal_error"
