"""The examples under test: what serves each, where the proxy is in it, and how its callers say who they are."""

from dataclasses import dataclass, field

from tests.callers import RawResponse, call, request
from tests.host_plugins import UPSTREAM_SECRET
from tests.wire import Address

Fields = tuple[tuple[str, str], ...]

# The token and the password that the examples have where the environment does not say otherwise.
TOKEN = ("Authorization", "Bearer alice-token")
SIGN_IN = b"user=alice&password=wonderland"
FORM = ("Content-Type", "application/x-www-form-urlencoded")


@dataclass(frozen=True, kw_only=True)
class Example:
    """One example under one server.

    Attributes:
        app: "module:attribute" within the folder of examples.
        server: One of `tests.servers`.
        mount: The path that the proxy is mounted at.
        own: A path of the host application, and what it answers to the caller.
        session: Whether callers sign in with the host's form and are known by its cookie; else they have a token.
        env: What the server is told beside the upstream.
    """

    name: str
    app: str
    server: str
    mount: str = ""
    own: tuple[str, bytes] = ("/hello", b"hello\n")
    session: bool = False
    env: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


ALICE = ("/me", b"alice\n")
SESSIONS = (
    Example(name="flask-login", app="flask_login_app:app", server="werkzeug", own=ALICE, session=True),
    Example(
        name="django-wsgi",
        app="django_app:wsgi_application",
        server="gunicorn-gthread",
        own=("/me/", b"alice\n"),
        session=True,
    ),
    Example(
        name="django-asgi",
        app="django_app:asgi_application",
        server="uvicorn-httptools",
        own=("/me/", b"alice\n"),
        session=True,
    ),
)
# Those with sessions first: pytest puts tests of one example together by its place in the list.
EXAMPLES = (
    *SESSIONS,
    Example(name="fastapi", app="fastapi_app:app", server="uvicorn-httptools", own=("/health", b'{"status":"ok"}')),
    Example(name="starlette", app="starlette_app:app", server="uvicorn-h11", own=ALICE),
    Example(
        name="starlette-mount",
        app="starlette_mount_app:app",
        server="uvicorn-httptools",
        mount="/api",
        own=("/api/hello", b"hello from /api/hello\n"),
    ),
    Example(
        name="starlette-root-path",
        app="starlette_mount_app:app",
        server="uvicorn-httptools",
        mount="/api",
        own=("/hello", b"hello from /tools/hello\n"),
        env={"UVICORN_ROOT_PATH": "/tools"},
    ),
    Example(name="quart", app="quart_app:app", server="hypercorn"),
    Example(name="litestar", app="litestar_app:app", server="uvicorn-httptools"),
    Example(name="falcon-asgi", app="falcon_app:asgi_app", server="uvicorn-httptools"),
    Example(name="falcon-wsgi", app="falcon_app:wsgi_app", server="gunicorn-gthread"),
    Example(name="pyramid", app="pyramid_app:app", server="waitress"),
    Example(name="bottle", app="bottle_app:app", server="gunicorn-gthread"),
)


def environment(upstream_url: str) -> dict[str, str]:
    """What points the examples to the upstream: a base URL with a path, on loopback."""
    return {
        "GITHUB_API_URL": f"{upstream_url}/base",
        "GITHUB_NETWORKS": "127.0.0.0/8",
        "GITHUB_TOKEN": UPSTREAM_SECRET,
        "ALICE_GITHUB_TOKEN": UPSTREAM_SECRET,
    }


@dataclass(frozen=True)
class Host:
    """An example that runs, and the field by which it knows its caller."""

    example: Example
    address: Address
    caller: tuple[str, str]

    @classmethod
    def of(cls, example: Example, address: Address) -> "Host":
        """Signs in where the example wants that."""
        return cls(example, address, sign_in(address) if example.session else TOKEN)

    def path(self, target: str, selector: str = "github") -> str:
        """Where the proxy has this target."""
        return f"{self.example.mount}/connections/{selector}/proxy{target}"

    def asked(self, target: str, method: str = "GET", fields: Fields = (), body: bytes | None = None) -> bytes:
        """The bytes of a request through the proxy, from its caller."""
        return request(method, self.path(target), (self.caller, *fields), body)

    def ask(self, target: str, method: str = "GET", fields: Fields = (), body: bytes | None = None) -> RawResponse:
        """The answer to it."""
        return call(self.address, self.asked(target, method, fields, body))

    def get(self, path: str, *fields: tuple[str, str]) -> RawResponse:
        """The answer to a GET of any path, by nobody unless the fields say who."""
        return call(self.address, request("GET", path, fields))


def sign_in(address: Address) -> tuple[str, str]:
    """The session cookie that the host's own form gives."""
    answer = call(address, request("POST", "/sign-in", [FORM], SIGN_IN))
    assert (answer.status, answer.body) == (200, b"signed in as alice\n")
    (cookie,) = answer.values(b"set-cookie")
    return "Cookie", cookie.decode().partition(";")[0]
