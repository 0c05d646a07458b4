"""The commands of the Python servers: one worker each, no access log, and room for every caller."""

import sys
from collections.abc import Callable

from tests.benchmarks.programs import Place

THREADS = 32
CONNECTIONS = 4000
BACKLOG = 2048

Command = Callable[[Place], list[str]]


def uvicorn(module: str, loop: str) -> Command:
    """Serve `module:asgi` on httptools."""
    options = ["--http", "httptools", "--loop", loop, "--ws", "none", "--workers", "1", "--backlog", str(BACKLOG)]
    options += ["--no-access-log", "--log-level", "warning", "--host", "127.0.0.1", "--port"]
    return lambda place: [*_module("uvicorn"), *options, str(place.port), _application(module, "asgi")]


def granian(module: str, loop: str) -> Command:
    """Serve `module:asgi` on one runtime thread."""
    options = ["--interface", "asgi", "--http", "1", "--no-ws", "--workers", "1", "--runtime-threads", "1"]
    options += ["--loop", loop, "--backlog", str(BACKLOG), "--backpressure", str(CONNECTIONS)]
    options += ["--log-level", "warning", "--host", "127.0.0.1", "--port"]
    return lambda place: [*_module("granian"), *options, str(place.port), _application(module, "asgi")]


def gunicorn(module: str) -> Command:
    """Serve `module:wsgi` on threads."""
    options = ["--worker-class", "gthread", "--workers", "1", "--threads", str(THREADS), "--keep-alive", "60"]
    options += ["--worker-connections", str(CONNECTIONS), "--backlog", str(BACKLOG), "--timeout", "120"]
    options += ["--log-level", "warning", "--no-control-socket", "--bind"]
    return lambda place: [
        *_module("gunicorn"),
        *options,
        f"127.0.0.1:{place.port}",
        _application(module, "wsgi"),
    ]


def waitress(module: str) -> Command:
    """Serve `module:wsgi` on threads."""
    options = [f"--threads={THREADS}", f"--connection-limit={CONNECTIONS}", f"--backlog={BACKLOG}"]
    # poll, since select knows no descriptor above 1023.
    options += ["--asyncore-use-poll", "--max-request-body-size=2147483648"]
    return lambda place: [
        *_module("waitress"),
        *options,
        f"--listen=127.0.0.1:{place.port}",
        _application(module, "wsgi"),
    ]


def _module(name: str) -> list[str]:
    return [sys.executable, "-m", name]


def _application(module: str, name: str) -> str:
    return f"tests.benchmarks.{module}:{name}"
