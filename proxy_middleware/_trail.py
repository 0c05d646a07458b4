"""What observers are told of a request. Nothing here runs where there are none."""

import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import count, pairwise
from time import monotonic
from types import MappingProxyType
from typing import Any

from proxy_middleware._steps import Forward, Refresh, Resolve, Step, Steps
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

    def __init__(self, observers: Sequence[Observer], method: str, selector: str) -> None:
        self._observers = observers
        self._number = next(_numbers)
        self._method = method
        self._selector = selector
        self._connection: str | None = None
        self._attempts = 0
        self._response: Any = None
        self._finished = False
        self._marks = {"": monotonic()}  # The ends of the phases.
        self._tell("matched", self._marks[""])

    def follow(self, steps: Steps) -> Steps:
        """The same steps, told of as they are performed."""
        try:
            step = next(steps)
            while True:
                self._before(step)
                try:
                    value = yield step
                except Exception as error:
                    if type(step) is Refresh:
                        self._tell("refresh_finished", monotonic(), error=reason(error))
                    step = steps.throw(error)
                else:
                    self._after(step, value)
                    step = steps.send(value)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]

    def _before(self, step: Step) -> None:
        if type(step) is Forward:
            now = monotonic()
            self._attempts += 1
            self._marks.setdefault("credential", now)
            path = step.target.partition(b"?")[0].decode("latin-1")
            self._tell("attempt", now, origin=_origin_text(step.origin), path=path)
        elif type(step) is Refresh:
            self._tell("refresh_started", monotonic())

    def _after(self, step: Step, value: Any) -> None:
        kind = type(step)
        if kind is Forward:
            self._response = value
            self._marks["upstream"] = now = monotonic()
            self._tell("response_started", now, status=value.status)
        elif kind is Resolve:
            self._connection = getattr(value, "id", None)
            self._marks["resolve"] = now = monotonic()
            self._tell("resolved", now)
        elif kind is Refresh:
            self._tell("refresh_finished", monotonic())

    def finish(self, error: BaseException | None, received: int) -> None:
        """The request is over; whoever says so first is believed.

        Args:
            error: What it ended with, if not with the whole response.
            received: Bytes of its body that have come from the caller.
        """
        if self._finished:
            return
        self._finished = True
        self._marks["relay"] = now = monotonic()
        response, status, sent = self._response, None, 0
        if isinstance(error, ProxyError):
            status = error.status
            if not self._attempts and status < 500:
                self._tell("denied", now, status=status, error=error.proxy_status)
        elif response is not None:
            status, sent = response.status, response.taken
        failure = None if error is None else reason(error)
        timings = {name: end - start for (_, start), (name, end) in pairwise(self._marks.items())}
        timings["total"] = now - self._marks[""]
        self._tell("finished", now, None, None, status, failure, received, sent, MappingProxyType(timings))

    def _tell(
        self,
        kind: EventKind,
        at: float,
        origin: str | None = None,
        path: str | None = None,
        status: int | None = None,
        error: str | None = None,
        received: int = 0,
        sent: int = 0,
        timings: Mapping[str, float] = _NO_TIMINGS,
    ) -> None:
        about = self._number, self._method, self._selector, self._connection, self._attempts
        # The tuple's own constructor: that of a NamedTuple is a Python function.
        event = tuple.__new__(Event, (kind, at, *about, origin, path, status, error, received, sent, timings))
        for observe in self._observers:
            try:
                observe(event)
            except Exception as failure:
                _logger.error("An observer failed with %s at %r (message withheld)", type(failure).__name__, kind)


def reason(error: BaseException) -> str:
    """The error type of RFC 9209, and for who left `caller_left`, which that knows nothing of."""
    if isinstance(error, ProxyError):
        return error.proxy_status
    if isinstance(error, ResponseTruncated):
        return "http_response_incomplete"
    if isinstance(error, CallerLeft) or not isinstance(error, Exception):
        return "caller_left"  # Servers cancel the request of a caller who has left.
    return "proxy_internal_error"
