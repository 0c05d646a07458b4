"""The upstream for what nginx cannot do: answers that take their time, streams of events, uploads that are compared.

A program of its own: `python -m tests.benchmarks.service PORT`.
"""

import asyncio
import sys

import httptools

from tests.benchmarks.scenario import EVENT_SECONDS, JSON, SLOW_SECONDS, UPSTREAM_TOKEN, Comparison, event

BACKLOG = 4096
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def response(status: bytes, payload: bytes) -> bytes:
    """Return a complete response with a JSON body."""
    head = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % (status, len(payload)) + payload


SLOW = response(b"200 OK", JSON)
UNAUTHORIZED = response(b"401 Unauthorized", b"{}")
NOT_FOUND = response(b"404 Not Found", b"{}")


class Connection(asyncio.Protocol):
    """One connection; requests come one after the other."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._parser = httptools.HttpRequestParser(self)
        self._timer: asyncio.TimerHandle | None = None
        self._begin()

    def _begin(self) -> None:
        self._url = b""
        self._authorized = False
        self._received = Comparison()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"authorization":
            self._authorized = value == b"Bearer " + UPSTREAM_TOKEN.encode()

    def on_body(self, piece: bytes) -> None:
        self._received.feed(piece)

    def on_message_complete(self) -> None:
        path, _, query = self._url.partition(b"?")
        if not self._authorized:
            self._transport.write(UNAUTHORIZED)
        elif path == b"/slow":
            self._timer = self._loop.call_later(SLOW_SECONDS, self._transport.write, SLOW)
        elif path == b"/events":
            self._transport.write(STREAM_HEAD)
            self._send_event(0, int(query), self._loop.time())
        elif path == b"/upload":
            self._transport.write(response(b"200 OK", self._received.answer()))
        else:
            self._transport.write(NOT_FOUND)
        self._begin()

    def _send_event(self, number: int, count: int, start: float) -> None:
        if number == count:
            self._transport.write(b"0\r\n\r\n")
            return
        payload = event(number)
        self._transport.write(b"%x\r\n%s\r\n" % (len(payload), payload))
        due = start + (number + 1) * EVENT_SECONDS
        self._timer = self._loop.call_at(due, self._send_event, number + 1, count, start)


async def serve(port: int) -> None:
    """Serve on 127.0.0.1 until the process is ended."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", port, backlog=BACKLOG)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
