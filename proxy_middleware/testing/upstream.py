"""An upstream that does as it is told, and keeps every byte that it is sent."""

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from proxy_middleware.testing._secrets import Secret, keep_known
from proxy_middleware.testing.messages import ReceivedRequest, Reply, ends_as_announced, read_request

__all__ = ["Answer", "FakeUpstream"]

Answer = Reply | bytes | Callable[[ReceivedRequest], Reply | bytes]

# Seconds that anything is waited for, unless told otherwise.
WAIT = 10.0

_REFUSAL = Reply(
    401,
    b'{"error": "invalid_token"}',
    {"Content-Type": "application/json", "WWW-Authenticate": 'Bearer error="invalid_token"'},
)


class FakeUpstream:
    """An HTTP/1.1 server on loopback, in threads of its own, so that plain and asynchronous code may call it.

        with FakeUpstream(Reply(401), Reply(200, b"ok")) as upstream:
            ...  # a connection with the base URL `upstream.url`, under `EgressPolicy(allow=["127.0.0.0/8"])`
        assert [request.header("authorization") for request in upstream.requests] == ["Bearer old", "Bearer new"]

    Every request is read to its end, kept in `requests`, and then answered. What goes wrong in here is raised when the
    `with` block ends: what an answering function raises, an event that is never set, and what is no HTTP/1.1.

    Args:
        answers: For one request after the other, the last one from then on; without any, 200 and "ok". A Reply; bytes,
            which are sent as they are, after which the connection is closed unless they are one whole response; or a
            function that makes one of these for a ReceivedRequest.
    """

    def __init__(self, *answers: Answer) -> None:
        self._changed = threading.Condition()
        self._requests: list[ReceivedRequest] = []
        self._connections = 0
        self._live: dict[int, socket.socket] = {}
        self._threads: list[threading.Thread] = []
        self._errors: list[Exception] = []
        self._closing = threading.Event()
        self._listener: socket.socket | None = None
        self._accepts: Callable[[ReceivedRequest], bool] | None = None
        self._demanded: list[Secret] = []
        self.answer(*answers)
        keep_known(self)

    @classmethod
    def demanding(cls, name: str, value: str, *answers: Answer) -> Self:
        """An upstream that answers 401 unless the request has a header field with exactly this value.

        Args:
            name: The field's name, such as "Authorization".
            value: Its value, such as "Bearer token-1"; `assert_no_credentials` knows it as a secret.
            answers: For the requests that have it.
        """
        upstream = cls(*answers)
        upstream.demand_field(name, value)
        return upstream

    def answer(self, *answers: Answer) -> None:
        """Answers with these from now on."""
        with self._changed:
            self._answers = list(answers) or [Reply(200, b"ok")]

    def demand_field(self, name: str, value: str) -> None:
        """Answers 401, from now on, to requests without a header field of exactly this value."""
        self._demanded.append(Secret.of_field(f"what the upstream demands in {name!r}", value))
        self.demand(lambda request: request.header(name) == value)

    def demand(self, accepts: Callable[[ReceivedRequest], bool]) -> None:
        """Answers 401, from now on, to requests that are not accepted, such as by `ExpiringCredentials.accepts`."""
        self._accepts = accepts

    @property
    def url(self) -> str:
        """Scheme, address and port, without a slash at the end; outside of `with` a RuntimeError."""
        if self._listener is None:
            raise RuntimeError("a FakeUpstream listens inside its `with` block only")
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def requests(self) -> list[ReceivedRequest]:
        """The requests so far, in the order in which they came to their end; a copy."""
        with self._changed:
            return list(self._requests)

    @property
    def connections(self) -> int:
        """How many TCP connections have been accepted."""
        return self._connections

    def wait_for_requests(self, count: int, timeout: float = WAIT) -> list[ReceivedRequest]:
        """The requests, once there are so many.

        Args:
            count: At least so many.
            timeout: Seconds.

        Raises:
            TimeoutError: Fewer have come; with what they were.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._requests) >= count, timeout):
                came = f"{len(self._requests)} of {count} requests came within {timeout:g} s"
                raise TimeoutError(f"{came}: {self._requests}")
            return list(self._requests)

    def secrets(self) -> list[Secret]:
        """What `assert_no_credentials` looks for."""
        return list(self._demanded)

    def __enter__(self) -> Self:
        if self._listener is not None or self._closing.is_set():
            raise RuntimeError("a FakeUpstream is entered once")
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._acceptor = threading.Thread(target=self._accept, args=(self._listener,), name="upstream", daemon=True)
        self._acceptor.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._close()
        if not self._errors:
            return
        failed = ExceptionGroup("the fake upstream failed", self._errors)
        if error is None:
            raise failed
        error.add_note(f"and {failed}: {self._errors}")

    def _close(self) -> None:
        assert self._listener is not None
        self._closing.set()
        with suppress(OSError):  # It may have ended by itself.
            socket.create_connection(self._listener.getsockname(), timeout=1).close()  # Wakes the acceptor.
        self._acceptor.join(WAIT)
        self._listener.close()
        self._listener = None
        with self._changed:
            for sock in self._live.values():
                with suppress(OSError):  # The peer has left before.
                    sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(WAIT)

    # In the threads.

    def _accept(self, listener: socket.socket) -> None:
        while True:
            sock, _ = listener.accept()
            if self._closing.is_set():
                sock.close()
                return
            with self._changed:
                self._connections += 1
                number = self._connections
                self._live[number] = sock
            name = f"upstream-{number}"
            thread = threading.Thread(target=self._converse, args=(sock, number), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def _converse(self, sock: socket.socket, number: int) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with sock.makefile("rb") as stream:
                while (request := read_request(stream, number)) is not None:
                    answer = self._take(request)
                    if not request.complete or not self._reply(sock, request, answer):
                        return
        except ConnectionError:
            """The peer has left, which tests may be about."""
        except Exception as error:
            self._errors.append(error)
        finally:
            with self._changed:
                sock.close()
                del self._live[number]

    def _take(self, request: ReceivedRequest) -> Answer:
        """Keeps the request, and gives its answer: in the same moment, so that both are in the same order."""
        with self._changed:
            self._requests.append(request)
            self._changed.notify_all()
            if self._accepts is not None and not self._accepts(request):
                return _REFUSAL
            return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    def _reply(self, sock: socket.socket, request: ReceivedRequest, answer: Answer) -> bool:
        """Answers; whether another request may follow on the connection."""
        made = answer(request) if callable(answer) else answer
        if isinstance(made, bytes):
            sock.sendall(made)
            return ends_as_announced(made, request.method)
        for part in made.wire(request.method):
            if isinstance(part, bytes):
                sock.sendall(part)
            else:
                self._wait(part, request)
        return made.break_after is None

    def _wait(self, event: threading.Event, request: ReceivedRequest) -> None:
        deadline = time.monotonic() + WAIT
        while not event.wait(0.02):
            if self._closing.is_set():
                raise ConnectionAbortedError("the upstream is closed")
            if time.monotonic() > deadline:
                raise TimeoutError(f"the event that the answer to {request} waits for was not set within {WAIT:g} s")
