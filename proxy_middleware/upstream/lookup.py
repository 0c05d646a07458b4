"""Name look-ups, in threads of their own.

getaddrinfo knows no time-out, and name servers that do not answer would otherwise hold up whatever shares its threads:
an event loop's executor runs the host's and the plugins' blocking calls as well.
"""

import socket
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from copy import copy

from proxy_middleware._target import Origin
from proxy_middleware.upstream.egress import AddrInfo

# Look-ups at a time: as many threads hang at the most when name servers do.
LIMIT = 32

Found = Future[Sequence[AddrInfo]]


def literal(origin: Origin) -> Sequence[AddrInfo] | None:
    """The address of a host that is an IP literal; None where it is a name."""
    try:
        return _addresses(origin, socket.AI_NUMERICHOST)
    except socket.gaierror:
        return None


class Lookups:
    """Looks names up; those that find no thread free wait for one.

    Who asks for a name that is being looked up waits for that answer. Otherwise the crowd that wants one name, whose
    servers hang, would hold the threads of all other names.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = 0
        self._asked: dict[Origin, list[Found]] = {}  # Who waits for which answer.
        self._queue: deque[Origin] = deque()

    def submit(self, origin: Origin) -> Found:
        """The addresses, later; who stops waiting may cancel it."""
        found: Found = Future()
        with self._lock:
            others = self._asked.get(origin)
            self._asked[origin] = [found, *(other for other in others or () if not other.cancelled())]
            if others is not None:
                return found
            if self._running >= LIMIT:
                self._queue.append(origin)
                return found
            self._running += 1
        try:
            # A daemon, because a process that ends should not wait for it either.
            threading.Thread(target=self._work, args=(origin,), name="proxy-lookup", daemon=True).start()
        except Exception as error:  # The system has no thread left; others may wait for this one by now.
            with self._lock:
                self._running -= 1
            self._fail(origin, error)
        return found

    def find(self, origin: Origin, timeout: float | None) -> Sequence[AddrInfo]:
        """The addresses, for a thread that waits so many seconds; raises what getaddrinfo does, and TimeoutError."""
        found = literal(origin)
        if found is not None:
            return found
        later = self.submit(origin)
        try:
            return later.result(timeout)
        finally:
            later.cancel()

    def _work(self, origin: Origin) -> None:
        while True:
            if self._wanted(origin):
                try:
                    addresses = _addresses(origin)
                except Exception as error:
                    self._fail(origin, error)
                else:
                    for found in self._take(origin):
                        found.set_result(addresses)
            with self._lock:
                if not self._queue:
                    self._running -= 1
                    return
                origin = self._queue.popleft()

    def _wanted(self, origin: Origin) -> bool:
        """Whether anybody still waits; if not, it is not being looked up any more."""
        with self._lock:
            if all(found.cancelled() for found in self._asked[origin]):
                del self._asked[origin]
                return False
        return True

    def _take(self, origin: Origin) -> list[Found]:
        """Those who wait for the answer, of whom none can leave now."""
        with self._lock:
            asked = self._asked.pop(origin)
        return [found for found in asked if found.set_running_or_notify_cancel()]

    def _fail(self, origin: Origin, error: Exception) -> None:
        for found in self._take(origin):
            found.set_exception(copy(error))  # One of their own, since raising it adds to it.


def _addresses(origin: Origin, flags: int = 0) -> Sequence[AddrInfo]:
    found = socket.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM, flags=flags)
    # The policy judges the name, too; getaddrinfo leaves its place empty unless it is asked for the canonical one.
    return [(family, kind, protocol, origin.host, address) for family, kind, protocol, _, address in found]
