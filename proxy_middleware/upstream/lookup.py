"""Name look-ups, in threads of their own.

getaddrinfo knows no time-out, and name servers that do not answer would otherwise hold up whatever shares its threads:
an event loop's executor runs the host's and the plugins' blocking calls as well.
"""

import socket
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future

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
    """Looks names up; those that find no thread free wait for one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = 0
        self._queue: deque[tuple[Origin, Found]] = deque()

    def submit(self, origin: Origin) -> Found:
        """The addresses, later; who stops waiting may cancel it."""
        found: Found = Future()
        with self._lock:
            if self._running >= LIMIT:
                self._queue.append((origin, found))
                return found
            self._running += 1
        try:
            # A daemon, because a process that ends should not wait for it either.
            threading.Thread(target=self._work, args=(origin, found), name="proxy-lookup", daemon=True).start()
        except BaseException:
            with self._lock:
                self._running -= 1
            raise
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

    def _work(self, origin: Origin, found: Found) -> None:
        while True:
            if found.set_running_or_notify_cancel():
                try:
                    found.set_result(_addresses(origin))
                except Exception as error:
                    found.set_exception(error)
            with self._lock:
                if not self._queue:
                    self._running -= 1
                    return
                origin, found = self._queue.popleft()


def _addresses(origin: Origin, flags: int = 0) -> Sequence[AddrInfo]:
    found = socket.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM, flags=flags)
    # The policy judges the name, too; getaddrinfo leaves its place empty unless it is asked for the canonical one.
    return [(family, kind, protocol, origin.host, address) for family, kind, protocol, _, address in found]
