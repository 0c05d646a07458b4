"""Bytes that may be needed a second time: in memory first, then in an unnamed temporary file, up to a limit."""

from tempfile import TemporaryFile
from threading import Lock
from typing import IO

from proxy_middleware.models import Replay

READ_SIZE = 64 * 1024


class Spool:
    """Keeps what is added to it, until that is more than the limits allow.

    Args:
        limits: How much may be kept.
        length: Bytes that will be added, where that is known. Of more than may be kept, nothing goes to the disk.

    Attributes:
        size: Bytes kept.
        overflown: Whether more was added than may be kept, so that the end is missing.
    """

    def __init__(self, limits: Replay, length: int | None = None) -> None:
        self._memory_limit = limits.memory
        self._limit = limits.memory + limits.disk
        if length is not None and length > self._limit:
            # What is in memory still serves the second try after a connection that turns out to be dead.
            self._limit = limits.memory
        self._memory = bytearray()
        self._file: IO[bytes] | None = None
        self.size = 0
        self.overflown = False
        # Of two worker threads, one may still write what a request that was broken off had read, while the other reads.
        self._lock = Lock()

    @classmethod
    def holding(cls, whole: bytes) -> "Spool":
        """Keeps in memory what the disk did not take."""
        spool = cls(Replay(memory=len(whole), disk=0))
        spool.add(whole)
        return spool

    def uses_disk(self, more: int = 0) -> bool:
        """Whether adding this many bytes touches the disk."""
        return not self.overflown and self._memory_limit < self.size + more <= self._limit

    def add(self, data: bytes) -> None:
        """Keeps more bytes."""
        with self._lock:
            if self.overflown or self.size + len(data) > self._limit:
                self.overflown = True
            elif self.size + len(data) <= self._memory_limit:
                self._memory += data
                self.size += len(data)
            elif self._written(data):
                self.size += len(data)
            else:
                self.overflown = True

    def _written(self, data: bytes) -> bool:
        """Whether it is on the disk. One that is full, or not there, costs the second try, not the first."""
        try:
            if self._file is None:
                # What is in memory stays there: the file begins where memory ends.
                self._file = TemporaryFile(prefix="proxy_middleware-", buffering=0)  # noqa: SIM115
            self._file.seek(self.size - len(self._memory))
            return self._file.write(data) == len(data)
        except OSError:
            return False

    def read(self, offset: int, size: int = READ_SIZE) -> bytes:
        """Up to `size` bytes from `offset` on; nothing at the end."""
        with self._lock:
            if offset < len(self._memory):
                return bytes(self._memory[offset : offset + size])
            if self._file is None:
                return b""
            self._file.seek(offset - len(self._memory))
            # A full disk may have taken a part of what does not count.
            return self._file.read(max(0, min(size, self.size - offset)))

    def close(self) -> None:
        """Forgets everything, and keeps nothing from now on."""
        with self._lock:
            self.overflown = True
            self.size = 0
            self._memory = bytearray()
            if self._file is not None:
                self._file.close()
                self._file = None
