"""What a credential puts on: the request as the core forwards it, or as a real server sends it on."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from proxy_middleware import Credential, CredentialProvider, StaticCredentials
from proxy_middleware._fields import Field
from tests.callers import RawResponse, call, request
from tests.in_process import host, proxy_to
from tests.script import CONNECTION, Body, Script, play
from tests.script import request as caller_request
from tests.servers import serve_asgi, serve_wsgi
from tests.upstreams import ScriptedUpstream
from tests.wire import Address


@dataclass(frozen=True)
class Caller:
    """Calls through a proxy."""

    address: Address

    @property
    def url(self) -> str:
        """The connection's base URL, as it is for callers."""
        return f"http://{self.address[0]}:{self.address[1]}/connections/crm/proxy"

    def __call__(
        self, method: str, target: str, fields: Sequence[tuple[str, str]] = (), body: bytes | None = None
    ) -> RawResponse:
        """The response to a request for this target."""
        return call(self.address, request(method, f"/connections/crm/proxy{target}", fields, body))


class Sent(NamedTuple):
    """A request as it goes upstream."""

    method: bytes
    target: bytes
    fields: Sequence[Field]
    body: bytes

    def values(self, name: bytes) -> list[bytes]:
        """The values of all fields of that name."""
        return [value for other, value in self.fields if other.lower() == name]


def forwarded(
    source: Any, method: str, target: bytes, *fields: Field, body: bytes = b"", connection: Any = CONNECTION
) -> tuple[Sent, bool]:
    """The request that the core forwards for this one, and whether it collected the body for that."""
    credential = source if isinstance(source, Credential) else source.obtain(connection)
    script = Script(credential=credential, connection=connection)
    if body:
        fields += ((b"content-length", b"%d" % len(body)),)
    play(script, caller_request(method, target, *fields), body=Body(body))
    sent = script.sent[0]
    return Sent(sent.method, sent.target, sent.fields, body), "Collect" in script.kinds


@contextmanager
def proxied(
    upstream: ScriptedUpstream, source: Credential | CredentialProvider, *, door: str = "asgi", **settings: Any
) -> Iterator[Caller]:
    """A proxy under a real server, with this credential for its one connection; gives what calls through it."""
    proxy = proxy_to(upstream, credentials=StaticCredentials({"crm": source}), **settings)
    with serve_asgi(proxy.asgi(host)) if door == "asgi" else serve_wsgi(proxy.wsgi(wsgi_host)) as address:
        yield Caller(address)
    if door == "wsgi":
        proxy.close()  # The other door closes what it has at the end of the lifespan.


def wsgi_host(environ: Any, start_response: Any) -> Any:
    """The host application, which is never reached."""
    raise AssertionError("it is the proxy's")


def received(upstream: ScriptedUpstream) -> Sent:
    """The only request that came, as its bytes were read from the socket."""
    (came,) = upstream.requests
    came.wait_ended()
    return Sent(came.method, came.target, came.fields, came.body)
