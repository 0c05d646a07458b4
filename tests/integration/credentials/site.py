"""A store, token endpoints whose tokens are in it, and servers that share it."""

import json
import time
from base64 import b64encode
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from proxy_middleware.stores import Stored, Tokens
from tests.servers import ASGI_SERVERS, RunningServer, start
from tests.stores.places import KEY, Place
from tests.token_endpoint import TokenEndpoint


class Site:
    """As a context manager it ends all that was started.

    Args:
        place: Where the store is.
        folder: An empty one.

    Attributes:
        endpoints: By connection id.
        folder: Where stores that stop at a step make their files.
    """

    def __init__(self, place: Place, folder: Path) -> None:
        self.folder = folder
        self.endpoints: dict[str, TokenEndpoint] = {}
        self._url = place.url
        self._store = place.open()
        self._store.create()
        self._stack = ExitStack()
        self._running: list[RunningServer] = []

    def connect(self, connection_id: str, **settings: Any) -> TokenEndpoint:
        """Starts an endpoint with these settings for a connection, unless it has one; its user consents (again)."""
        if connection_id not in self.endpoints:
            self.endpoints[connection_id] = self._stack.enter_context(TokenEndpoint())
            self.endpoints[connection_id].settle(**settings)
        endpoint = self.endpoints[connection_id]
        given, expires_in = endpoint.connect(), endpoint.expires_in
        expires_at = None if expires_in is None else time.time() + expires_in
        self._store.put(connection_id, Tokens(given["access_token"], given["refresh_token"], expires_at))
        return endpoint

    def start(
        self, *servers: str, workers: int = 1, limits: dict[str, Any] | None = None, steps: dict[str, str] | None = None
    ) -> list[RunningServer]:
        """Starts servers, each with so many worker processes, for the connections that there are by now."""
        host = {
            "endpoints": {name: endpoint.url for name, endpoint in self.endpoints.items()},
            "store": self._url,
            "key": b64encode(KEY).decode(),
            "limits": limits or {},
            "steps": steps or {},
            "folder": str(self.folder),
        }
        env = {
            "HOST": json.dumps(host),
            # Both uvicorn and gunicorn take the number of workers from there.
            "WEB_CONCURRENCY": str(workers),
            # The workers are forks of a process that has made the proxy already.
            "GUNICORN_CMD_ARGS": "--preload",
        }

        def start_one(server: str) -> RunningServer:
            running = start(server, _app(server), env)
            self._running.append(running)
            return running

        with ThreadPoolExecutor() as pool:
            return list(pool.map(start_one, servers))

    def stored(self, connection_id: str) -> Stored:
        """The record of a connection."""
        record = self._store.load(connection_id)
        assert record is not None
        return record

    def counts(self, connection_id: str) -> Counter[str]:
        """What a connection's endpoint has counted."""
        return Counter(self.endpoints[connection_id].state())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with ThreadPoolExecutor() as pool:
            list(pool.map(RunningServer.kill, self._running))
        for running in self._running:
            running.remove_log()
        self._stack.close()


def _app(server: str) -> str:
    return f"tests.integration.credentials.host:{'asgi' if server in ASGI_SERVERS else 'wsgi'}_app"
