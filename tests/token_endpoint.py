"""A strict authorization server on loopback, with an API behind it that accepts its access tokens only.

In this process: `with TokenEndpoint() as endpoint`. As one of its own: `python -m tests.token_endpoint [port]`, which
prints its URL; `GET /state` then gives `state()`, and `POST /control` takes `{"call": name, "with": {...}}` for the
methods in `CONTROLS`. The client `client` with the secret `secret` is known; everything else is registered.
"""

import json
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl

from tests.token_grants import Grants, Refusal

CONTROLS = (
    "register",
    "trust",
    "connect",
    "expire_access_tokens",
    "revoke",
    "misbehave",
    "behave",
    "release",
    "settle",
)


@dataclass
class Misbehaviour:
    """What happens instead of an honest answer, and how many more times (None: until `behave`)."""

    kind: str
    times: int | None
    options: dict[str, Any]


class _Server(ThreadingHTTPServer):
    # Beyond socketserver's five, the kernel would have callers try again a second later, or more.
    request_queue_size = 1024


class TokenEndpoint(Grants):
    """The server; a context manager that runs it in threads of this process.

    `misbehave` takes these kinds. `answer`: `status`, `body`, `headers` instead of an honest answer. `hold`: waits for
    `release` before it does anything. `late`: has done everything, then waits for `release`. `lose`: has done
    everything, then closes the connection. `drip`: sends an endless head, or (`body=True`) body, byte by byte.
    `same`: gives the access token that it has given last.
    """

    def __init__(self, port: int = 0) -> None:
        super().__init__()
        self.register("client", key="secret")
        self._misbehaviour: Misbehaviour | None = None
        self._released = threading.Event()
        self._stopped = threading.Event()
        handler = type("Handler", (_Handler,), {"endpoint": self})
        self._server = _Server(("127.0.0.1", port), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.token_url = f"{self.url}/token"
        self.api_url = f"{self.url}/api"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve, name="token-endpoint", daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stopped.set()
        self._released.set()
        self._server.shutdown()
        self._server.server_close()

    def serve(self) -> None:
        """Serves until the process ends."""
        self._server.serve_forever(0.005)

    def misbehave(self, kind: str, times: int | None = None, **options: Any) -> None:
        """Goes wrong from now on."""
        self._released.clear()
        self._misbehaviour = Misbehaviour(kind, times, options)

    def behave(self) -> None:
        """Goes right again; what is held stays so."""
        self._misbehaviour = None

    def release(self) -> None:
        """Lets go of what is held."""
        self._released.set()

    def wait(self) -> None:
        """Waits for `release`, but not for ever."""
        self._released.wait(60)

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def next_misbehaviour(self) -> Misbehaviour:
        """What the call that has just come meets."""
        with self.lock:
            now = self._misbehaviour
            if now is not None and now.times is not None:
                now.times -= 1
                if now.times <= 0:
                    self._misbehaviour = None
            return now or Misbehaviour("none", None, {})


class _Handler(BaseHTTPRequestHandler):
    endpoint: TokenEndpoint
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path == "/token":
            self._token(body)
        elif self.path == "/control":
            asked = json.loads(body)
            assert asked["call"] in CONTROLS
            self._send(200, getattr(self.endpoint, asked["call"])(**asked.get("with", {})))
        else:
            self._api()

    def do_GET(self) -> None:
        if self.path == "/state":
            self._send(200, self.endpoint.state())
        else:
            self._api()

    do_PUT = do_PATCH = do_DELETE = do_POST

    def _api(self) -> None:
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        accepted = self.path.startswith("/api") and scheme == "Bearer" and self.endpoint.accepts(token)
        self.endpoint.count("api accepted" if accepted else "api rejected")
        if accepted:
            self._send(200, {"path": self.path})
        else:
            self._send(401, {"error": "invalid_token"}, {"www-authenticate": 'Bearer error="invalid_token"'})

    def _token(self, body: bytes) -> None:
        self.endpoint.count("token calls")
        wrong = self.endpoint.next_misbehaviour()
        if wrong.kind == "answer":
            self._send(wrong.options["status"], wrong.options.get("body", ""), wrong.options.get("headers", {}))
        elif wrong.kind == "drip":
            self._drip(wrong.options.get("body", False))
        else:
            if wrong.kind == "hold":
                self.endpoint.wait()
            self._answer_honestly(body, wrong)

    def _answer_honestly(self, body: bytes, wrong: Misbehaviour) -> None:
        assert self.headers["content-type"] == "application/x-www-form-urlencoded"
        form = dict(parse_qsl(body.decode("ascii"), keep_blank_values=True, strict_parsing=True))
        status, answer = 200, {}
        try:
            answer = self.endpoint.token(form, self.headers.get("authorization"), same=wrong.kind == "same")
        except Refusal as refusal:
            status, answer = refusal.status, {"error": refusal.code, "error_description": f"because of {form}"}
        self.endpoint.count("token answers")
        if wrong.kind == "late":
            self.endpoint.wait()
        if wrong.kind == "lose":
            self.close_connection = True
        else:
            self._send(status, answer)

    def _drip(self, in_body: bool) -> None:
        with _gone_callers():
            self.wfile.write(b"HTTP/1.1 200 OK\r\n" + (b"content-length: 1000000\r\n\r\n" if in_body else b"x-drip: "))
            while not self.endpoint.stopped:
                self.wfile.write(b" ")
                time.sleep(0.02)
        self.close_connection = True

    def _send(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        with _gone_callers():
            self.send_response(status)
            for name, value in {"content-type": "application/json", **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)


@contextmanager
def _gone_callers() -> Iterator[None]:
    try:
        yield
    except (BrokenPipeError, ConnectionResetError):
        """Nobody is left to answer."""


def main() -> None:
    """Serves until the process is killed."""
    endpoint = TokenEndpoint(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    print(endpoint.url, flush=True)
    endpoint.serve()


if __name__ == "__main__":
    main()
