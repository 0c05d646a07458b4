"""A scripted upstream: an HTTP/1.1 server on a plain socket that keeps every byte and answers what it is told to."""

import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Self

from tests.wire import Address, Body, Fields, Message, Wire, framing_of, parse_head, reset

WAIT = 10.0
LINGER = 1.0


def response(status: int = 200, fields: Fields = (), body: bytes = b"", *, reason: bytes = b"OK") -> bytes:
    """The bytes of a response: the fields, then a `Content-Length`, then the body."""
    lines = [b"HTTP/1.1 %d %b" % (status, reason), *(b"%b: %b" % pair for pair in fields)]
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(body), b"", body])


@dataclass(frozen=True, kw_only=True)
class RecordedRequest(Message):
    """A request as it came. The body grows while it is read; `wait_ended` tells when it does no more."""

    head: bytes
    method: bytes
    target: bytes
    version: bytes
    connection_number: int
    _raw: bytearray = field(default_factory=bytearray)
    _decoded: bytearray = field(default_factory=bytearray)
    _ended: threading.Event = field(default_factory=threading.Event)
    _whole: threading.Event = field(default_factory=threading.Event)

    @property
    def body(self) -> bytes:
        """The decoded body, as far as it has been read."""
        return bytes(self._decoded)

    @property
    def raw_body(self) -> bytes:
        """The body as it was framed on the wire, as far as it has been read."""
        return bytes(self._raw)

    @property
    def complete(self) -> bool:
        """Whether the body has been read to its proper end."""
        return self._whole.is_set()

    def wait_ended(self, timeout: float = WAIT) -> bool:
        """Wait until the body has come to its end or has broken off; the value of `complete` then."""
        if not self._ended.wait(timeout):
            raise TimeoutError(f"the body of {self.method!r} {self.target!r} did not end")
        return self.complete


def _parse_request(head: bytes, connection_number: int) -> RecordedRequest:
    first, fields = parse_head(head)
    method, target, version = first.split(b" ")
    return RecordedRequest(
        fields=fields, head=head, method=method, target=target, version=version, connection_number=connection_number
    )


class Exchange:
    """What a script holds: one request, of which the body is read only when asked for, and the means to answer."""

    def __init__(self, sock: socket.socket, wire: Wire, request: RecordedRequest, cancelled: threading.Event) -> None:
        self.sock = sock
        self.request = request
        self.head = request.head
        self.connection_number = request.connection_number
        self.ended = False
        self._wire = wire
        self._cancelled = cancelled
        self._body = Body(wire, *framing_of(request, otherwise="none"))

    @property
    def body(self) -> bytes:
        """The whole decoded body; reads what has not been read yet."""
        return self.read(None)

    def read(self, count: int | None) -> bytes:
        """Read on until `count` decoded bytes are there in all (None: to the end); everything read so far."""
        while (count is None or len(self.request._decoded) < count) and (piece := next(self._body.pieces, None)):
            self.request._raw.extend(piece[0])
            self.request._decoded.extend(piece[1])
            self._note_end()
        self._note_end(exhausted=count is None)
        return self.request.body

    def discard_body(self) -> int:
        """Read the body to its end and keep nothing of it, for large ones: how many decoded bytes that was."""
        count = sum(len(decoded) for _, decoded in self._body.pieces)
        self._note_end(exhausted=True)
        return count

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.sock.sendall(data)

    def wait(self, event: threading.Event, timeout: float = WAIT) -> None:
        """Wait until the test sets the event; `TimeoutError` if it never does."""
        deadline = time.monotonic() + timeout
        while not event.wait(0.02):
            if self._cancelled.is_set():
                raise ConnectionAbortedError("the test is over")
            if time.monotonic() > deadline:
                raise TimeoutError("the event was never set")

    def wait_closed(self, timeout: float = LINGER) -> bool:
        """Whether the peer closes the connection within `timeout` seconds, with FIN or RST."""
        return self._wire.closes_within(timeout)

    def close(self) -> None:
        """End the connection from this side with FIN, under TLS with close_notify before it."""
        self.ended = True
        if isinstance(self.sock, ssl.SSLSocket):
            self.sock.settimeout(LINGER)
            with suppress(OSError):  # the peer need not answer a close_notify
                self.sock.unwrap()
        with suppress(OSError):  # the peer may have gone before
            self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Break the connection with RST."""
        self.ended = True
        reset(self.sock)

    def _note_end(self, *, exhausted: bool = False) -> None:
        if self._body.complete:
            self.request._whole.set()
        if exhausted or self._body.complete:
            self.request._ended.set()


Script = Callable[[Exchange], None]


def answering(*answers: bytes) -> Script:
    """A script that reads the whole request and sends the answers in turn, the last one again and again.

    An answer without a length, or with `Connection: close`, is followed by FIN.
    """
    left, lock = list(answers), threading.Lock()

    def script(exchange: Exchange) -> None:
        exchange.read(None)
        with lock:
            answer = left.pop(0) if len(left) > 1 else left[0]
        exchange.send(answer)
        if _is_last(answer, exchange.request.method):
            exchange.close()

    return script


def _is_last(answer: bytes, method: bytes) -> bool:
    first, fields = parse_head(answer.partition(b"\r\n\r\n")[0])
    message = Message(fields=fields)
    if b"close" in b",".join(message.values(b"connection")).lower():
        return True
    bodiless = method == b"HEAD" or first.split(b" ")[1] in (b"204", b"304")
    return not bodiless and framing_of(message, otherwise="close")[0] == "close"


class ScriptedUpstream:
    """An upstream on loopback: a thread for each connection, a script for each request.

    What a script raises is raised again when the upstream is stopped or told to forget, but for connection errors: they
    mean that the peer has left, which is what many tests are about.
    """

    def __init__(self, ssl_context: ssl.SSLContext | None = None) -> None:
        self.requests: list[RecordedRequest] = []
        self.connections = 0
        self._ssl_context = ssl_context
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.address: Address = self._listener.getsockname()
        self.url = f"{'https' if ssl_context else 'http'}://127.0.0.1:{self.address[1]}"
        self._changed = threading.Condition()
        self._live: dict[int, socket.socket] = {}
        self._busy: set[int] = set()
        self._threads: list[threading.Thread] = []
        self._errors: list[Exception] = []
        self._stopping = False
        self._start_over()

    def _start_over(self) -> None:
        self._script = answering(response(body=b"ok"))
        self._routes: dict[bytes, Script] = {}
        self._cancelled = threading.Event()

    def answer(self, *answers: bytes) -> None:
        """Answer every request with these in turn, the last one from then on. Until told, it is 200 "ok"."""
        self._script = answering(*answers)

    def script(self, script: Script) -> Script:
        """Let `script` deal with every request. Also usable as a decorator."""
        self._script = script
        return script

    def route(self, path: bytes, script: Script | bytes) -> None:
        """Let `script` (or a fixed answer) deal with the requests for exactly this path, whatever the query."""
        self._routes[path] = answering(script) if isinstance(script, bytes) else script

    def wait_for_requests(self, count: int, timeout: float = WAIT) -> list[RecordedRequest]:
        """Wait until the heads of `count` requests have come; all requests. Their bodies may still be on the way."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.requests) >= count, timeout):
                raise TimeoutError(f"{len(self.requests)} of {count} requests came")
            return list(self.requests)

    def forget(self) -> None:
        """Begin a new test: no requests, no connections counted, no scripts. Idle connections stay open."""
        self._cancelled.set()
        with self._changed:
            self._changed.wait_for(lambda: not self._busy, 0.2)
            for number in self._busy:
                self._hang_up(number)
            self.requests, self.connections = [], 0
            self._start_over()
        self._raise_errors()

    def stop(self) -> None:
        """Close everything and wait for the threads."""
        self._cancelled.set()
        self._stopping = True
        socket.create_connection(self.address).close()  # wakes the accepting thread
        self._acceptor.join(WAIT)
        self._listener.close()
        with self._changed:
            for number in self._live:
                self._hang_up(number)
        for thread in self._threads:
            thread.join(WAIT)
        self._raise_errors()

    def __enter__(self) -> Self:
        self._acceptor = threading.Thread(target=self._accept, name="upstream-acceptor", daemon=True)
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _raise_errors(self) -> None:
        errors, self._errors = self._errors, []
        if errors:
            raise ExceptionGroup("the upstream failed", errors)

    def _hang_up(self, number: int) -> None:
        with suppress(OSError):  # gone already; the plain method, since the TLS one would drop its state under a reader
            socket.socket.shutdown(self._live[number], socket.SHUT_RDWR)

    def _accept(self) -> None:
        number = 0
        while True:
            sock, _ = self._listener.accept()
            if self._stopping:
                sock.close()
                return
            number += 1
            thread = threading.Thread(
                target=self._converse, args=(sock, number), name=f"upstream-{number}", daemon=True
            )
            with self._changed:
                self.connections += 1
                self._live[number] = sock
                self._threads.append(thread)
            thread.start()

    def _converse(self, plain: socket.socket, number: int) -> None:
        try:
            with closing(self._secured(plain, number)) as sock:
                self._serve(sock, number)
        except (ConnectionError, ssl.SSLError):
            pass  # the peer left, or did not like the certificate: cases under test
        except Exception as error:
            self._errors.append(error)
        finally:
            with self._changed:
                plain.close()
                del self._live[number]
                self._busy.discard(number)
                self._changed.notify_all()

    def _secured(self, plain: socket.socket, number: int) -> socket.socket:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._ssl_context is None:
            return plain
        plain.settimeout(WAIT)
        self._live[number] = sock = self._ssl_context.wrap_socket(plain, server_side=True)
        return sock

    def _serve(self, sock: socket.socket, number: int) -> None:
        wire = Wire(sock)
        while not wire.was_reset:
            sock.settimeout(None)  # a pooled connection may be idle for as long as it likes
            head = wire.through(b"\r\n\r\n")
            if not head.endswith(b"\r\n\r\n"):
                return
            sock.settimeout(3 * WAIT)
            exchange = self._begin(sock, wire, _parse_request(head, number))
            try:
                self._script_for(exchange.request.target)(exchange)
                if not self._finish(exchange):
                    return
            finally:
                exchange.request._ended.set()

    def _begin(self, sock: socket.socket, wire: Wire, request: RecordedRequest) -> Exchange:
        with self._changed:
            self.requests.append(request)
            self._busy.add(request.connection_number)
            self._changed.notify_all()
            return Exchange(sock, wire, request, self._cancelled)

    def _script_for(self, target: bytes) -> Script:
        return self._routes.get(target.partition(b"?")[0], self._script)

    def _finish(self, exchange: Exchange) -> bool:
        """Read what is left of the request; whether another one may follow on the connection."""
        if exchange.ended:
            if exchange.sock.fileno() >= 0:
                exchange.wait_closed()  # closing with unread bytes would turn the FIN into a RST
            return False
        exchange.read(None)
        with self._changed:
            self._busy.discard(exchange.connection_number)
            self._changed.notify_all()
        return exchange.request.complete
