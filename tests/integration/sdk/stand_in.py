"""An upstream that stands in for several APIs, and lets in nobody but the stored account."""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

from proxy_middleware import Connection, Credential, CredentialProvider
from proxy_middleware.credentials import AWSSigV4
from tests.credentials.proxied import Sent
from tests.credentials.verify_sigv4 import SignatureDoesNotMatch, verify
from tests.upstreams import Exchange, ScriptedUpstream, response

CALLER_TOKEN = "callers-own-token"
STORED = "stored-secret"
REGION, ACCESS_KEY = "eu-central-1", "AKIDSTORED"

CREDENTIALS: dict[str, Credential | CredentialProvider] = {
    "openai": Credential.bearer(STORED),
    "stripe": Credential.bearer(STORED),
    "slack": Credential.bearer(STORED),
    "github": Credential.header("Authorization", f"token {STORED}"),
    "gitlab": Credential.header("PRIVATE-TOKEN", STORED),
    "huggingface": Credential.bearer(STORED),
    "elasticsearch": Credential.header("Authorization", f"ApiKey {STORED}"),
    "s3": AWSSigV4(REGION, "s3", ACCESS_KEY, STORED),
    "dynamodb": AWSSigV4(REGION, "dynamodb", ACCESS_KEY, STORED),
}
_STORED_FIELDS = {
    "github": (b"authorization", f"token {STORED}".encode()),
    "gitlab": (b"private-token", STORED.encode()),
    "elasticsearch": (b"authorization", f"ApiKey {STORED}".encode()),
}


class Asked:
    """A request, as an API looks at it.

    Attributes:
        path: The path below that of the API, as it was sent.
        query: The query's parameters; of several values the last.
        url: The API's own base URL, as it would write it into its answers.
    """

    def __init__(self, exchange: Exchange, app: str, path: str, url: str) -> None:
        self.method = exchange.request.method.decode()
        self.path, _, query = path.partition("?")
        self.query = {name: values[-1] for name, values in parse_qs(query, keep_blank_values=True).items()}
        self.url = f"{url}/{app}"
        self.exchange = exchange
        self.sent = Sent(exchange.request.method, exchange.request.target, exchange.request.fields, exchange.body)

    def field(self, name: bytes) -> str:
        """A header field's value; empty without one."""
        return b", ".join(self.sent.values(name)).decode("latin-1")

    @property
    def json(self) -> Any:
        """The body, which is JSON."""
        return json.loads(self.sent.body)

    @property
    def form(self) -> dict[str, str]:
        """The body, which is a form."""
        return {name: values[-1] for name, values in parse_qs(self.sent.body.decode()).items()}


def answer(
    content: object, status: int = 200, *fields: tuple[bytes, bytes], kind: bytes = b"application/json"
) -> bytes:
    """A response with a JSON body, or with these bytes."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return response(status, ((b"Content-Type", kind), *fields), body)


def is_let_in(app: str, asked: Asked) -> bool:
    """Whether this is the stored account, by the stored account's credential alone."""
    if CALLER_TOKEN.encode() in asked.exchange.head + asked.sent.body:
        return False
    if app in ("s3", "dynamodb"):
        try:
            verify(asked.sent, STORED, scope=(ACCESS_KEY, REGION, app))
        except SignatureDoesNotMatch:
            return False
        return True
    name, value = _STORED_FIELDS.get(app, (b"authorization", f"Bearer {STORED}".encode()))
    others = {b"authorization", b"private-token"} - {name}
    return asked.sent.values(name) == [value] and not any(asked.sent.values(other) for other in others)


API = Callable[[Asked], bytes]


class StandIn:
    """Several APIs at one upstream.

    Args:
        upstream: Where they are.
        apis: What they answer, by name, which is where they are below the upstream's URL.

    Attributes:
        url: The upstream's URL.
        asked: What has been asked, in order, by the stored account.
        refused: How many requests were somebody else's.
    """

    def __init__(self, upstream: ScriptedUpstream, apis: dict[str, API]) -> None:
        self.url = upstream.url
        self._apis = apis
        self.asked: list[Asked] = []
        self.refused = 0
        upstream.script(self._serve)

    def connections(self) -> list[Connection]:
        """A connection to each API."""
        return [Connection(name, f"{self.url}/{name}", rewrite_links=True) for name in self._apis]

    def _serve(self, exchange: Exchange) -> None:
        app, slash, path = exchange.request.target.decode("ascii")[1:].partition("/")
        asked = Asked(exchange, app, slash + path, self.url)
        if not is_let_in(app, asked):
            self.refused += 1
            exchange.send(answer({"error": {"message": "not the stored account"}}, 401))
            return
        self.asked.append(asked)
        exchange.send(self._apis[app](asked))
