"""Calls through the host application of `auth_host`, what both know, and the upstreams that stand behind it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any
from urllib.parse import parse_qsl

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.callers import RawResponse, call, request
from tests.host_plugins import CALLER_TOKEN, UPSTREAM_SECRET
from tests.servers import ASGI_SERVERS, RunningServer, ServerFactory
from tests.token_grants import Grants, Refusal
from tests.upstreams import Exchange, RecordedRequest, Script, ScriptedUpstream, response
from tests.wire import Address

DOORS = ("uvicorn-httptools", "gunicorn-gthread")
JSON = ((b"Content-Type", b"application/json"),)
EXPIRED = response(401, ((b"WWW-Authenticate", b'Bearer error="invalid_token"'),), b"expired", reason=b"Nope")

_numbers = count(1)

# The short limits, in seconds.
HASTY_TTL, HASTY_BACKOFF = 1.0, 0.8

# Who calls, by token.
CALLERS = {CALLER_TOKEN: "alice", "bobs-token": "bob"}

_KEY = ec.derive_private_key(int.from_bytes(UPSTREAM_SECRET.encode()), ec.SECP256R1())
PRIVATE_KEY = _KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
PUBLIC_KEY = _KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

# What the stand-in for the token endpoint is to know: client -> how it authenticates, and with what.
CLIENTS = {
    "basic": ("client_secret_basic", UPSTREAM_SECRET),
    "post": ("client_secret_post", UPSTREAM_SECRET),
    "signer": ("private_key_jwt", PUBLIC_KEY),
}
ISSUER = "issuer@example.com"

ACCESS_KEY, REGION = "AKIDEXAMPLE", "eu-central-1"


def selector_of(kind: str) -> str:
    """A connection of this kind that nobody has used yet."""
    return f"{kind}:{next(_numbers)}"


@dataclass(frozen=True, eq=False)
class Host:
    """A running host application."""

    running: RunningServer

    @property
    def server(self) -> str:
        """Which server it is."""
        return self.running.server

    @property
    def address(self) -> Address:
        """Where it listens."""
        return self.running.address

    def ask(
        self,
        selector: str,
        method: str = "GET",
        fields: Sequence[tuple[str, str]] = (),
        body: bytes | None = None,
        *,
        target: str = "/x",
        prefix: str = "/connections",
        caller: str = CALLER_TOKEN,
        timeout: float = 20,
    ) -> RawResponse:
        """The answer to a request by way of a connection."""
        return call(self.address, self.asked(selector, method, fields, body, target, prefix, caller), timeout=timeout)

    @staticmethod
    def asked(
        selector: str,
        method: str = "GET",
        fields: Sequence[tuple[str, str]] = (),
        body: bytes | None = None,
        target: str = "/x",
        prefix: str = "/connections",
        caller: str = CALLER_TOKEN,
    ) -> bytes:
        """The bytes of such a request."""
        own = ("Authorization", f"Bearer {caller}")
        return request(method, f"{prefix}/{selector}/proxy{target}", [own, *fields], body)

    def tell(self, path: str, body: bytes = b"") -> None:
        """Has the host itself do something; see there."""
        assert call(self.address, request("POST", path, body=body)).body == b"host"

    def connect(self, selector: str, **tokens: Any) -> None:
        """Does what a host application does once a user has consented: stores the tokens."""
        kept = {name: tokens[name] for name in ("access_token", "refresh_token", "expires_at") if name in tokens}
        self.tell(f"/put/{selector}", json.dumps(kept).encode())


StartHost = Callable[[str], Host]


def start_host(factory: ServerFactory, server: str, upstream: ScriptedUpstream, closed_port: int) -> Host:
    """The host application under this server, started now or before."""
    app = "asgi_app" if server in ASGI_SERVERS else "wsgi_app"
    env = {"UPSTREAM_URL": upstream.url, "CLOSED_PORT": str(closed_port)}
    return Host(factory(server, f"tests.integration.auth_host:{app}", env))


def strict_grants(upstream: ScriptedUpstream) -> Grants:
    """An authorization server of this test's own; its token endpoint is a route of the upstream."""
    grants = Grants()
    grants.url = upstream.url
    for client_id, (way, key) in CLIENTS.items():
        grants.register(client_id, way, key)
    grants.trust(ISSUER, PUBLIC_KEY)
    upstream.route(b"/token", token_endpoint(grants))
    return grants


def token_endpoint(grants: Grants) -> Script:
    """What a token endpoint with these grants answers."""

    def script(exchange: Exchange) -> None:
        form = dict(parse_qsl(exchange.body.decode("ascii"), keep_blank_values=True, strict_parsing=True))
        authorization = exchange.request.header(b"authorization")
        try:
            status, answer = 200, grants.token(form, authorization.decode("ascii") if authorization else None)
        except Refusal as refusal:
            status, answer = refusal.status, {"error": refusal.code}
        exchange.send(response(status, JSON, json.dumps(answer).encode()))

    return script


def bearer_api(accepts: Callable[[str], bool], good: bytes = response(body=b"welcome"), bad: bytes = EXPIRED) -> Script:
    """What an API answers that accepts these tokens."""

    def script(exchange: Exchange) -> None:
        exchange.read(None)
        exchange.send(good if accepts(token_of(exchange.request)) else bad)

    return script


def token_of(seen: RecordedRequest) -> str:
    """The bearer token that came with a request."""
    scheme, _, token = (seen.header(b"authorization") or b"").decode().partition(" ")
    assert scheme == "Bearer"
    return token


def token_calls(upstream: ScriptedUpstream) -> list[RecordedRequest]:
    """The requests to the token endpoint."""
    return [seen for seen in list(upstream.requests) if seen.target == b"/token"]


def api_calls(upstream: ScriptedUpstream) -> list[RecordedRequest]:
    """All others."""
    return [seen for seen in list(upstream.requests) if seen.target != b"/token"]


def same_but_for_the_token(first: RecordedRequest, second: RecordedRequest) -> bool:
    """Whether two requests are the same byte for byte, but for tokens that differ, and how chunks were cut."""
    tokens = [seen.header(b"authorization") or b"" for seen in (first, second)]
    heads = [seen.head.replace(token, b"") for seen, token in zip((first, second), tokens, strict=True)]
    whole = first.wait_ended() and second.wait_ended()
    return whole and tokens[0] != tokens[1] and heads[0] == heads[1] and first.body == second.body
