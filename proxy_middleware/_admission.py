"""How many requests a connection gets: at once, and in a stretch of time. Nobody waits here; too many is a 429."""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from proxy_middleware._forks import tell_after_fork
from proxy_middleware.errors import TooManyRequests
from proxy_middleware.models import Limits

_logger = logging.getLogger("proxy_middleware")


class Admission:
    """Counts for the doors of one proxy.

    Args:
        limits: `per_connection_concurrency`, `rate` and `rate_storage` count here.

    Attributes:
        blocks: Whether `admit` may wait for the network.

    Raises:
        ImportError: A rate is limited, and the extra is not installed.
        ValueError: The rate or its storage cannot be understood.
    """

    def __init__(self, limits: Limits) -> None:
        self._most = limits.per_connection_concurrency
        self._rate = None if limits.rate is None else _Rate(limits.rate, limits.rate_storage)
        self.blocks = self._rate is not None and not limits.rate_storage.startswith("memory:")
        self._lock = threading.Lock()
        self._under_way: dict[str, int] = {}
        # Who leaves takes no lock: the garbage collector may end a lost request wherever it happens to run.
        self._left: deque[str] = deque()
        tell_after_fork(self)

    def admit(self, connection_id: str, body: Any) -> None:
        """Lets a request in, which leaves when its body is closed.

        Raises:
            TooManyRequests: There are too many already.
        """
        self.enter(connection_id, body)
        self.take(connection_id)

    def enter(self, connection_id: str, body: Any) -> None:
        """Counts it among those under way; never waits. Raises TooManyRequests."""
        if self._most is None:
            return
        with self._lock:
            self._count_down()
            full = self._under_way.get(connection_id, 0) >= self._most
            if not full:
                self._under_way[connection_id] = self._under_way.get(connection_id, 0) + 1
                body.leave = partial(self._leave, self._left, connection_id)
        if full:
            raise TooManyRequests("Too many requests to this connection are under way")

    def take(self, connection_id: str) -> None:
        """Counts it in its stretch of time. Raises TooManyRequests."""
        if self._rate is not None:
            self._rate.take(connection_id)

    def _leave(self, left: "deque[str]", connection_id: str) -> None:
        left.append(connection_id)
        if self._lock.acquire(blocking=False):
            try:
                self._count_down()
            finally:
                self._lock.release()

    def _count_down(self) -> None:
        while self._left:
            connection_id = self._left.popleft()
            under_way = self._under_way.get(connection_id, 0) - 1
            if under_way > 0:
                self._under_way[connection_id] = under_way
            else:
                self._under_way.pop(connection_id, None)

    def after_fork(self) -> None:
        """The requests under way are the parent's."""
        self._lock = threading.Lock()
        self._under_way, self._left = {}, deque()
        if self._rate is not None:
            self._rate.after_fork()


class _Rate:
    """So many requests in a moving window of time, by the library `limits`."""

    def __init__(self, rate: str, storage: str) -> None:
        try:
            import limits
            import limits.errors
            import limits.storage
            import limits.strategies
        except ImportError as error:
            raise ImportError(
                'Limits.rate needs the extra "rate": pip install "proxy_middleware[rate]"', name=error.name
            ) from error
        try:
            self._item = limits.parse(rate)
        except ValueError:
            raise ValueError(f'Limits.rate is such as "100/minute", not {rate!r}') from None
        # Its own memory starts a thread, which a fork would not take along: not before the first request.
        self._open: Callable[[], Any] = lambda: limits.strategies.MovingWindowRateLimiter(
            limits.storage.storage_from_string(storage)
        )
        self._window: Any = None
        self._lock = threading.Lock()
        self._own = storage.startswith("memory:")
        if not self._own:
            try:
                self._open()
            except (AssertionError, limits.errors.ConfigurationError) as error:
                # Their messages have the URL, where a password may be.
                reason = type(error).__name__
                raise ValueError(f"Limits.rate_storage cannot be understood, or lacks its library ({reason})") from None
            except Exception as error:
                _say_down(error)

    def take(self, connection_id: str) -> None:
        """Counts one request.

        Raises:
            TooManyRequests: It is one too many.
        """
        try:
            window = self._window
            if window is None:
                with self._lock:
                    window = self._window = self._window or self._open()
            if window.hit(self._item, connection_id):
                return
            left = window.get_window_stats(self._item, connection_id).reset_time - time.time()
            if self._own and left > self._item.get_expiry() + 1:
                # `limits` counts by the wall clock, which has jumped back: without this nobody could call before it is
                # where it was.
                window.clear(self._item, connection_id)
                window.hit(self._item, connection_id)
                return
        except Exception as error:
            _say_down(error)
            return
        raise TooManyRequests(retry_after=max(1, math.ceil(left)))

    def after_fork(self) -> None:
        self._window, self._lock = None, threading.Lock()


def _say_down(error: Exception) -> None:
    # A storage that is down stops nobody: the limit is there to protect what still works.
    _logger.warning("The rate of requests is not limited now: %s", type(error).__name__)
