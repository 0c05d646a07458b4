"""A store's lease on one connection, for one round of refreshing."""

import logging
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from time import monotonic
from types import TracebackType
from typing import Self, TypeVar

from proxy_middleware.stores.protocol import TokenStore

__all__ = ["Lease"]

_T = TypeVar("_T")
_log = logging.getLogger("proxy_middleware")
# Seconds after the deadline in which a call that keeps to it has ended.
_GRACE = 0.25


class Lease:
    """Lets one round at a time ask the token endpoint, among all processes that share the store.

    A holder that is killed blocks others for `seconds`. As a context manager it is given back at the end, if it was
    acquired.

    Args:
        store: Keeps the leases.
        connection_id: What it is for.
        seconds: How long it holds unless it is renewed.
        renewal: Seconds after which it is.
    """

    def __init__(self, store: TokenStore, connection_id: str, seconds: float, renewal: float) -> None:
        self._store = store
        self._connection_id = connection_id
        self._seconds = seconds
        self._renewal = renewal
        # Of this round alone: two rounds of one process must not share a lease.
        self._owner = secrets.token_hex(16)
        self._tried = False

    def acquire(self) -> bool:
        """Whether it is held now; raises what the store raises."""
        self._tried = True
        return self._store.acquire(self._connection_id, self._owner, self._seconds)

    def keep_during(self, call: Callable[[], _T], deadline: float) -> _T | None:
        """Does something in a thread of its own, and renews the lease meanwhile.

        Args:
            call: What is done; it raises nothing.
            deadline: By `time.monotonic()`; None is returned then, and the thread left to itself.
        """
        result: Future[_T] = Future()

        def work() -> None:
            try:
                result.set_result(call())
            except BaseException as error:
                result.set_exception(error)

        # A daemon, because a process that ends should not wait for it either.
        threading.Thread(target=work, name="proxy-token-call", daemon=True).start()
        while (left := deadline - monotonic()) > 0:
            if wait([result], min(left, self._renewal)).done:
                return result.result()
            self._renew()
        if wait([result], _GRACE).done:
            return result.result()
        # It may still spend the refresh token: nobody else may do so before the lease has run out.
        self._tried = False
        return None

    def _renew(self) -> None:
        try:
            held = self._store.renew(self._connection_id, self._owner, self._seconds)
        except Exception as error:
            _log.warning(
                "the lease on connection %r could not be renewed: %s", self._connection_id, type(error).__name__
            )
            return
        if not held:
            # Too late to stop: the endpoint may have used up the refresh token. The save will tell.
            _log.warning("the lease on connection %r was lost while its tokens were refreshed", self._connection_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Also after an acquire that raised: the store may have granted it all the same.
        if not self._tried:
            return
        try:
            self._store.release(self._connection_id, self._owner)
        except Exception as failure:
            _log.warning(
                "the lease on connection %r could not be released: %s", self._connection_id, type(failure).__name__
            )
