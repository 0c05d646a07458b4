"""The proxied host applications of `tests.hosts` in a process that is short of something.

`FILE_SIZE` in the environment is how many bytes a file may have: what would be longer fails as on a full disk, with a
short write first. `/take` takes every descriptor that the process may still have, `/give-one` gives one of them back,
and `/give` all.
"""

import os
import resource
from collections.abc import Callable, Iterable
from typing import Any

from tests import hosts

_DESCRIPTORS = 200
_taken: list[int] = []


def _limit(which: int, value: int) -> None:
    resource.setrlimit(which, (value, resource.getrlimit(which)[1]))


if size := os.environ.get("FILE_SIZE"):
    _limit(resource.RLIMIT_FSIZE, int(size))
_limit(resource.RLIMIT_NOFILE, _DESCRIPTORS)


def _take() -> None:
    try:
        while True:
            _taken.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return


def _give() -> None:
    while _taken:
        os.close(_taken.pop())


_ROUTES: dict[str, Callable[[], None]] = {
    "/take": _take,
    "/give-one": lambda: os.close(_taken.pop()),
    "/give": _give,
}


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    """The application under ASGI."""
    if scope["type"] == "http":
        _ROUTES.get(scope["path"], lambda: None)()
    await hosts.asgi_app(scope, receive, send)


def wsgi_app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """The application under WSGI."""
    _ROUTES.get(environ["PATH_INFO"], lambda: None)()
    return hosts.wsgi_app(environ, start_response)
