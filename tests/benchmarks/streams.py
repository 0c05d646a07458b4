"""Open streams of server-sent events, each event counted. A program of its own that prints what it saw as JSON.

`python -m tests.benchmarks.streams PORT PATH STREAMS EVENTS`
"""

import asyncio
import json
import sys
import time
from statistics import median, quantiles

import httptools

from tests.benchmarks.scenario import CALLER_TOKEN, EVENT_PADDING, EVENT_SECONDS

PATIENCE_SECONDS = 10


class Stream(asyncio.Protocol):
    """Asks for one stream and reads it to its end."""

    def __init__(self, path: str, count: int) -> None:
        self._request = (
            f"GET {path}?{count} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {CALLER_TOKEN}\r\n\r\n"
        )
        self._parser = httptools.HttpResponseParser(self)
        self._count = count
        self._pending = b""
        self._next = 0
        self._asked = 0
        self._complete = False
        self.ended = asyncio.get_running_loop().create_future()
        self.first: float | None = None
        self.delays: list[float] = []

    @property
    def good(self) -> bool:
        """Whether every event came, in order, and the end after them."""
        return self._complete and self._next == self._count

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._asked = time.monotonic_ns()
        transport.write(self._request.encode())

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._end()

    def on_body(self, piece: bytes) -> None:
        *events, self._pending = (self._pending + piece).split(b"\n\n")
        now = time.monotonic_ns()
        if self.first is None:
            self.first = (now - self._asked) / 1e6
        for event in events:
            self._take(event, now)

    def _take(self, event: bytes, now: int) -> None:
        label, _, rest = event.partition(b" ")
        number, _, rest = rest.partition(b" ")
        sent, _, padding = rest.partition(b" ")
        if (label, number, padding) != (b"data:", b"%d" % self._next, EVENT_PADDING):
            self._transport.abort()
            return
        self._next += 1
        self.delays.append((now - int(sent)) / 1e6)

    def on_message_complete(self) -> None:
        self._complete = self._parser.get_status_code() == 200
        self._transport.close()
        self._end()

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


async def main(port: int, path: str, streams: int, count: int) -> None:
    """Open all streams at once, wait until they have ended, and print the rate."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    opening = [loop.create_connection(lambda: Stream(path, count), "127.0.0.1", port) for _ in range(streams)]
    opened = [protocol for _, protocol in await asyncio.gather(*opening)]
    # The last event is followed by a pause, too; who is slow gets as long again.
    await asyncio.wait([stream.ended for stream in opened], timeout=2 * count * EVENT_SECONDS + PATIENCE_SECONDS)
    print(json.dumps(report(opened, loop.time() - start)))


def report(opened: list[Stream], elapsed: float) -> dict[str, float | None]:
    """Return what `load.Round` takes."""
    delays = [delay for stream in opened for delay in stream.delays]
    return {
        "rate": len(delays) / elapsed,
        "p50": median(delays) if delays else 0.0,
        "p99": quantiles(delays, n=100, method="inclusive")[98] if len(delays) > 1 else 0.0,
        "failures": sum(not stream.good for stream in opened),
        "first": median(firsts) if (firsts := [one.first for one in opened if one.first is not None]) else None,
    }


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
