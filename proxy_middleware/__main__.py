"""`python -m proxy_middleware`: a proxy of its own out of a TOML file, to try it out, or as a side-car.

serve   answers callers
check   says what is wrong with a file, and where
key     makes a key for a token store, or encrypts a store's records with its newest
"""

import argparse
import sys
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from proxy_middleware.errors import StoreCorrupted, StoreUnavailable
from proxy_middleware.toml.credentials import read_store
from proxy_middleware.toml.reader import TomlError, read_file
from proxy_middleware.toml.settings import load

# Seconds that requests under way are given when the server is told to stop.
GRACE = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns 0, or 1 where something is wrong, which is said on standard error."""
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], None] = options.run
    try:
        run(options)
    except (OSError, ImportError, TomlError, StoreUnavailable, StoreCorrupted) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _serve(options: argparse.Namespace) -> None:
    try:
        import uvicorn
    except ImportError as missing:
        message = 'serve needs the extra "serve": pip install "proxy_middleware[serve]"'
        raise ImportError(message) from missing
    from proxy_middleware.observe import LoggingObserver
    from proxy_middleware.proxy import Proxy

    loaded = load(options.file)
    loaded.kept.fill_store()
    loaded.settings["observers"] = [LoggingObserver()]
    door = Proxy(**loaded.settings).asgi(_nothing_else)
    uvicorn.run(
        door,
        host=options.host,
        port=options.port,
        log_config=_with_our_logger(uvicorn.config.LOGGING_CONFIG),
        # An event stream may never end by itself.
        timeout_graceful_shutdown=GRACE,
        access_log=False,  # It has queries, where secrets may be.
    )


def _with_our_logger(config: dict[str, Any]) -> dict[str, Any]:
    ours = {"handlers": ["default"], "level": "INFO"}
    return {**config, "loggers": {**config["loggers"], "proxy_middleware": ours}}


async def _nothing_else(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    """The host application: there is nothing besides the proxy."""
    if scope["type"] == "http":
        fields = [(b"content-type", b"text/plain"), (b"content-length", b"10")]
        await send({"type": "http.response.start", "status": 404, "headers": fields})
        await send({"type": "http.response.body", "body": b"Not found\n"})


def _check(options: argparse.Namespace) -> None:
    count = len(load(options.file).kept.entries)
    print(f"{options.file}: {_counted(count, 'connection')}, nothing wrong")


def _new_key(options: argparse.Namespace) -> None:
    from proxy_middleware.stores import generate_key

    print(generate_key())


def _rotate(options: argparse.Namespace) -> None:
    file = read_file(options.file)
    store = read_store(file)
    if store is None and not file.problems:
        file.note("store", "is missing")
    if file.problems:
        raise TomlError(options.file, file.problems)
    print(f"{_counted(store.rotate(), 'record')} encrypted with the first key")


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m proxy_middleware", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(required=True, metavar="command")
    serve = commands.add_parser("serve", help="answer callers, until interrupted")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1)")
    serve.add_argument("--port", type=int, default=8000, help="TCP port (default: 8000)")
    check = commands.add_parser("check", help="say what is wrong with a file, and where")
    keys = commands.add_parser("key", help="keys of a token store").add_subparsers(required=True, metavar="command")
    new = keys.add_parser("new", help="make a key")
    rotate = keys.add_parser("rotate", help="encrypt every record with the store's first key")
    for command, run in ((serve, _serve), (check, _check), (new, _new_key), (rotate, _rotate)):
        command.set_defaults(run=run)
        if command is not new:
            command.add_argument("file", help="TOML file, such as connections.toml")
    return parser


if __name__ == "__main__":
    sys.exit(main())
