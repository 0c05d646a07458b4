"""Real servers: as subprocesses on a free port of loopback, and in threads of this process for quick tests."""

import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from werkzeug.serving import make_server

from tests.wire import Address

ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]
WSGIApp = Callable[[Any, Any], Iterable[bytes]]

ROOT = Path(__file__).resolve().parent.parent
START = 30.0
STOP = 3.0

_WERKZEUG = """
import sys
from werkzeug.serving import run_simple
from werkzeug.utils import import_string
run_simple("127.0.0.1", int(sys.argv[2]), import_string(sys.argv[1]), threaded=True)
"""
_COMMANDS = {
    "uvicorn-httptools": "-m uvicorn {app} --host 127.0.0.1 --port {port} --http httptools",
    "uvicorn-h11": "-m uvicorn {app} --host 127.0.0.1 --port {port} --http h11",
    "hypercorn": "-m hypercorn {app} --bind 127.0.0.1:{port} --workers 0",
    "hypercorn-trio": "-m hypercorn {app} --bind 127.0.0.1:{port} --workers 0 --worker-class trio",
    "granian": "-m granian {app} --host 127.0.0.1 --port {port} --interface asgi --workers 1",
    "gunicorn-gthread": "-m gunicorn {app} --bind 127.0.0.1:{port} -k gthread --threads 8 --no-control-socket",
    "gunicorn-sync": "-m gunicorn {app} --bind 127.0.0.1:{port} -k sync --no-control-socket",
    "waitress": "-m waitress --listen=127.0.0.1:{port} --threads=8 {app}",
    "werkzeug": "-c {werkzeug} {app} {port}",
    "granian-wsgi": "-m granian {app} --host 127.0.0.1 --port {port} --interface wsgi --workers 1",
}
ASGI_SERVERS = ("uvicorn-httptools", "uvicorn-h11", "hypercorn", "hypercorn-trio", "granian")
WSGI_SERVERS = ("gunicorn-gthread", "gunicorn-sync", "waitress", "werkzeug")


@dataclass
class RunningServer:
    """A server in a subprocess. What it prints goes to a file."""

    server: str
    address: Address
    _process: subprocess.Popen[bytes] = field(repr=False)
    _output: Path = field(repr=False)
    _killed: bool = field(default=False, repr=False)

    @property
    def pid(self) -> int:
        """The process that was started; granian and gunicorn have their worker below it."""
        return self._process.pid

    def pids(self) -> list[int]:
        """The process that was started and its workers (Linux)."""
        return [self.pid, *_children(self.pid)]

    def peak_memory(self) -> int:
        """The largest resident set, in bytes, that any of the server's processes has had so far (Linux)."""
        return max(_peak(pid) for pid in self.pids())

    def log(self) -> str:
        """Everything that the server has written to stdout and stderr so far."""
        return self._output.read_text(errors="replace")

    def remove_log(self) -> None:
        """Remove the file that the output went to."""
        self._output.unlink()

    def kill(self) -> None:
        """Stop it: SIGTERM, so that lifespans end, then SIGKILL for whatever is left of it after 3 seconds."""
        if self._killed:
            return
        self._killed = True
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP)
        with suppress(ProcessLookupError):  # nothing is left of its process group
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait(STOP)


def _children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [found for child in map(int, listed.split()) for found in (child, *_children(child))]


def _peak(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def free_port() -> int:
    """A port that nothing listens on, from below the range that the kernel takes for outgoing connections."""
    while True:
        port = random.randrange(15000, 32000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port


def start(server: str, app: str, env: Mapping[str, str]) -> RunningServer:
    """Start `app` ("module:attribute") under one of the servers, with one worker, and wait until it answers.

    The app is sent one `GET /` by that. Stop what this returns with `kill()`.

    Raises:
        RuntimeError: the server ended, or did not answer within 30 seconds; with what it printed.
    """
    port = free_port()
    words = _COMMANDS[server].split()
    command = [word.format(app=app, port=port, werkzeug=_WERKZEUG) for word in words]
    handle, output = tempfile.mkstemp(prefix=f"{server}-", suffix=".log")
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **env},
        stdin=subprocess.DEVNULL,
        stdout=handle,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    os.close(handle)
    running = RunningServer(server, ("127.0.0.1", port), process, Path(output))
    _wait_until_it_answers(running)
    return running


def _wait_until_it_answers(running: RunningServer) -> None:
    deadline = time.monotonic() + START
    while not _answers(running.address):
        if running._process.poll() is not None or time.monotonic() > deadline:
            running.kill()
            printed = running.log()
            running.remove_log()
            raise RuntimeError(f"{running.server} did not start:\n{printed}")
        time.sleep(0.02)


def _answers(address: Address) -> bool:
    """Whether a response comes; gunicorn and granian accept connections before their worker can answer."""
    try:
        with socket.create_connection(address, timeout=START) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: host.test\r\nConnection: close\r\n\r\n")
            return sock.recv(1) != b""
    except OSError:
        return False


class ServerFactory:
    """Starts servers and keeps them: the same server, app and environment are started once."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, str, frozenset[tuple[str, str]]], RunningServer] = {}

    def __call__(self, server: str, app: str, env: Mapping[str, str]) -> RunningServer:
        """A running server, started now or before. One that a test kills needs an `env` of its own."""
        key = (server, app, frozenset(env.items()))
        if key not in self._running:
            self._running[key] = start(server, app, env)
        return self._running[key]

    def stop(self) -> None:
        """Stop all of them and remove their logs."""
        for running in self._running.values():
            running.kill()
            running.remove_log()


@contextmanager
def serve_asgi(app: ASGIApp) -> Iterator[Address]:
    """Serve an ASGI app with uvicorn in a thread; lifespan runs, and is ended, where the app takes part in it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, interface="asgi3", log_config=None, timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, args=([listener],), name="uvicorn", daemon=True)
        thread.start()
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("uvicorn did not start")
            time.sleep(0.005)
        try:
            yield listener.getsockname()
        finally:
            server.should_exit = True
            thread.join(STOP)


@contextmanager
def serve_wsgi(app: WSGIApp) -> Iterator[Address]:
    """Serve a WSGI app with werkzeug in a thread, each connection in a thread of its own."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="werkzeug", daemon=True)
    thread.start()
    try:
        yield ("127.0.0.1", server.port)
    finally:
        server.shutdown()
        thread.join(STOP)
        server.server_close()
