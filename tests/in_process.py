"""Calls of an ASGI door in this process: the test is the server."""

from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import anyio

from proxy_middleware import (
    ASGIProxyMiddleware,
    Connection,
    Credential,
    EgressPolicy,
    Proxy,
    StaticCredentials,
    StaticResolver,
    anyone,
)
from tests.upstreams import ScriptedUpstream

Message = MutableMapping[str, Any]


def proxy_to(upstream: ScriptedUpstream, **settings: Any) -> Proxy:
    """A proxy that knows one connection, "crm", and lets anyone call it."""
    usual: dict[str, Any] = {
        "resolver": StaticResolver([Connection("crm", upstream.url)]),
        "credentials": StaticCredentials({"crm": Credential.bearer("secret")}),
        "authenticate": anyone,
        "egress": EgressPolicy(allow=("127.0.0.0/8",)),
    }
    return Proxy(**usual | settings)


async def host(*objects: Any) -> None:
    """The host application, which is never reached."""
    raise AssertionError("it is the proxy's")


@dataclass
class Call:
    """One request, and what the door sends for it. Its caller stays."""

    method: str = "GET"
    pieces: Iterable[bytes] = ()
    sent: list[Message] = field(default_factory=list)

    async def through(self, proxy: Proxy) -> "Call":
        """The request, sent through the proxy, when it has been answered."""
        return await self.at(proxy.asgi(host))

    async def at(self, door: ASGIProxyMiddleware) -> "Call":
        """The request, sent to this door, when it has been answered."""
        pieces = list(self.pieces)
        length = sum(map(len, pieces))
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": self.method,
            "path": "/connections/crm/proxy/x",
            "raw_path": b"/connections/crm/proxy/x",
            "query_string": b"",
            "root_path": "",
            "headers": [(b"content-length", b"%d" % length)] if pieces else [],
            "client": ("127.0.0.1", 1),
        }

        async def receive() -> Message:
            if not pieces:
                await anyio.sleep_forever()
            piece = pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

        await door(scope, receive, self.send)
        return self

    async def send(self, message: Message) -> None:
        """What the server does with a message: it is sent at once."""
        self.sent.append(message)

    @property
    def statuses(self) -> list[int]:
        """The statuses of all responses that were begun; there should be one."""
        return [message["status"] for message in self.sent if message["type"] == "http.response.start"]

    @property
    def ended(self) -> bool:
        """Whether the response was brought to its end."""
        return bool(self.sent) and self.sent[-1].get("more_body") is False
