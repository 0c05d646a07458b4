"""Frozen values: what plugins are handed and give back, and the settings."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from proxy_middleware._fields import Field, canonical, clean_values, is_token
from proxy_middleware._globs import path_glob
from proxy_middleware._target import Base, OriginPattern, parse_base, parse_origin_pattern

__all__ = [
    "BrowserPolicy",
    "Connection",
    "EgressPolicy",
    "Event",
    "EventKind",
    "Limits",
    "ProxyRequest",
    "Replay",
    "ResponseHead",
    "Timeouts",
    "UpstreamRequest",
]

MiB = 1024 * 1024


def first_value(fields: Iterable[Field], name: str) -> str | None:
    """The first field of this name, whatever the case, as text; None if there is none."""
    wanted = name.lower().encode("ascii")
    for key, value in fields:
        if key.lower() == wanted:
            return value.decode("latin-1")
    return None


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long the upstream may take, in seconds; None is no limit, as is more than a year, or `math.inf`.

    Attributes:
        pool: Waiting for a free connection.
        connect: Name look-up, TCP connect and TLS handshake together.
        head: From the request's last byte to the end of the response head, interim responses (1xx) included.
        idle: A body, in either direction, standing still; not for reading a `text/event-stream`.

    Raises:
        ValueError: A limit is not above zero.
    """

    pool: float | None = 10
    connect: float | None = 5
    head: float | None = 60
    idle: float | None = 60

    def __post_init__(self) -> None:
        for name in ("pool", "connect", "head", "idle"):
            value = getattr(self, name)
            _positive(f"Timeouts.{name}", value)
            if value is not None and value > 366 * 86400:  # Sockets take no more; TOML, without None, says inf.
                object.__setattr__(self, name, None)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is allowed.

    Attributes:
        request_body: Bytes of one request body; None is no limit. More is a 413.
        connections_per_origin: Open connections to one upstream origin, per process and event loop.
        connections: Open connections to all upstreams, per process and event loop.
        keepalive: Seconds that an idle connection is kept.
        per_connection_concurrency: Requests of one connection (by its id) that may be under way at once, per process;
            None is no limit. More is a 429.
        rate: Requests of one connection in a stretch of time, such as `"100/minute"` or `"5 per second"`, in the
            notation of the library `limits`; None is no limit. More is a 429. Needs the extra `rate`.
        rate_storage: Where they are counted, by a URL of that library: by default in the process; with
            `"redis://host:6379"` for all that share it. A storage that cannot be reached limits nothing.
        credential_ttl: Seconds for which what a credential provider gave is used before the provider is asked again.
        refresh_backoff: Seconds for which a failed refresh is not tried again.
        response_head: Bytes of a response head. More is a 502.

    Raises:
        ValueError: A limit is not above zero.
    """

    request_body: int | None = None
    connections_per_origin: int = 100
    connections: int = 1000
    keepalive: float = 60
    credential_ttl: float = 60
    refresh_backoff: float = 30
    response_head: int = 64 * 1024
    per_connection_concurrency: int | None = None
    rate: str | None = None
    rate_storage: str = field(default="memory://", repr=False)  # It may hold a password.

    def __post_init__(self) -> None:
        _positive("Limits.request_body", self.request_body)
        _positive("Limits.per_connection_concurrency", self.per_connection_concurrency)
        for name in (
            "connections_per_origin",
            "connections",
            "keepalive",
            "credential_ttl",
            "refresh_backoff",
            "response_head",
        ):
            _positive(f"Limits.{name}", getattr(self, name) or 0)


@dataclass(frozen=True, slots=True)
class Replay:
    """How much of a request body is kept, so that it can be sent a second time after a refresh.

    Attributes:
        memory: Bytes kept in memory.
        disk: Further bytes kept in an unnamed temporary file. A longer body is sent once only, and where its length is
            known nothing of it is written to disk.
    """

    memory: int = 256 * 1024
    disk: int = 16 * MiB

    def __post_init__(self) -> None:
        if self.memory < 0 or self.disk < 0:
            raise ValueError("Replay.memory and Replay.disk cannot be negative")


@dataclass(frozen=True, slots=True)
class EgressPolicy:
    """Which addresses may be dialled; checked on the address itself, after the name look-up.

    Loopback, private, link-local, shared, reserved and multicast addresses are refused, in every IPv6 disguise, unless
    a network is allowed here. Cloud metadata addresses are allowed only when named exactly (`169.254.169.254/32`), as
    is whatever the name of a metadata service leads to. A network of disguises (`64:ff9b::/96`) allows those of public
    and of allowed IPv4 addresses.

    Attributes:
        allow: Networks that may be dialled after all, such as `"10.1.0.0/16"`.
        deny: Networks that may not; beats `allow`.

    Raises:
        ValueError: An entry is no network.
    """

    allow: Sequence[str] = ()
    deny: Sequence[str] = ()
    allowed: tuple[IPv4Network | IPv6Network, ...] = field(init=False, repr=False, compare=False)
    denied: tuple[IPv4Network | IPv6Network, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "allowed", _networks("EgressPolicy.allow", self.allow))
        object.__setattr__(self, "denied", _networks("EgressPolicy.deny", self.deny))


@dataclass(frozen=True, slots=True)
class BrowserPolicy:
    """What browsers may do, given that the proxy lives on the host application's own origin.

    Attributes:
        forward_cookies: Send the caller's cookies upstream. They are the host's own session: off by default.
        allowed_origins: Origins, such as `"https://app.example.com"`, whose pages may call although they are not ours.
        guard: False neither refuses browsers nor withholds fields from them.
    """

    forward_cookies: bool = False
    allowed_origins: Sequence[str] = ()
    guard: bool = True
    origins: frozenset[bytes] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _reject_text("BrowserPolicy.allowed_origins", self.allowed_origins)
        origins = set()
        for text in self.allowed_origins:
            base = parse_base(text)
            if base.path or text.endswith("/"):
                raise ValueError(f"BrowserPolicy.allowed_origins takes origins without a path, not {text!r}")
            # As browsers spell it: in lower case, and without the default port (RFC 6454 section 6.2).
            origins.add(str(base.origin).encode("ascii"))
        object.__setattr__(self, "origins", frozenset(origins))


@dataclass(frozen=True, slots=True)
class Connection:
    """A stored record: where one account at one external app is, and how it may be called. Never a socket.

    Attributes:
        id: Names the connection; a selector is compared with it first.
        base_url: `http` or `https` URL that targets are appended to.
        integration_key: Selects the connection where it is the only one with this key.
        integration_id: The same, by id.
        allowed_origins: Further origins that a full-URL target may name: `"https://files.example.com"`,
            `"https://*.example.com"`, or `"*"` for any origin.
        headers: Fields added where the caller sent none of that name.
        methods: The only methods that may be called; None allows every one.
        paths: Globs of the only paths that may be called, matched behind the base URL's path; None allows every one.
            `*` stays within a segment, `**` does not.
        timeouts: Replaces the middleware's own for this connection.
        rewrite_links: Whether the URLs in `Location`, `Content-Location` and `Link` that point at the connection's own
            origins are turned into the proxy's form, so that redirects and pagination stay inside.
        revision: Changes when the stored record does, for whoever keeps something by connection.
        attributes: Whatever the resolver wants the credential provider to know.

    Raises:
        ValueError: An attribute is malformed.
    """

    id: str
    base_url: str
    integration_key: str | None = field(default=None, kw_only=True)
    integration_id: str | None = field(default=None, kw_only=True)
    allowed_origins: Sequence[str] = field(default=(), kw_only=True)
    headers: Mapping[str, str] = field(default_factory=dict, kw_only=True, repr=False)
    methods: Iterable[str] | None = field(default=None, kw_only=True)
    paths: Sequence[str] | None = field(default=None, kw_only=True)
    timeouts: Timeouts | None = field(default=None, kw_only=True)
    rewrite_links: bool = field(default=False, kw_only=True)
    revision: str | int | None = field(default=None, kw_only=True)
    attributes: Mapping[str, Any] = field(default_factory=dict, kw_only=True, repr=False)

    base: Base = field(init=False, repr=False, compare=False)
    origins: tuple[OriginPattern, ...] = field(init=False, repr=False, compare=False)
    globs: tuple[Any, ...] | None = field(init=False, repr=False, compare=False)
    host: Field = field(init=False, repr=False, compare=False)
    added: tuple[Field, ...] = field(init=False, repr=False, compare=False)
    plain: bool = field(init=False, repr=False, compare=False)  # Nothing but origin and credential to be seen to.

    def __post_init__(self) -> None:
        if not self.id:
            raise ValueError("Connection.id cannot be empty")
        for name in ("allowed_origins", "methods", "paths"):
            _reject_text(f"Connection.{name}", getattr(self, name))
        keep = object.__setattr__
        keep(self, "base", parse_base(self.base_url))
        keep(self, "host", (b"host", self.base.origin.authority))
        keep(self, "origins", tuple(parse_origin_pattern(origin) for origin in self.allowed_origins))
        keep(self, "added", header_fields("Connection.headers", self.headers.items()))
        keep(self, "methods", None if self.methods is None else frozenset(self.methods))
        keep(self, "globs", None if self.paths is None else tuple(path_glob(path) for path in self.paths))
        keep(self, "plain", not self.base.path and not self.added and self.methods is None and self.globs is None)


@dataclass(slots=True)
class ProxyRequest:
    """The caller's request, as plugins see it: with the caller's own Authorization and Cookie.

    Attributes:
        method: As the caller spelled it.
        selector: Decoded.
        target: What follows `/proxy`, raw, with its query.
        fields: Header fields as pairs of bytes, names in lower case; WSGI servers merge duplicates and lose the order.
        client: Address and port of the peer, where the server tells.
        caller: What the authenticator returned; None until then.
        scope: The ASGI scope, or None under WSGI.
        environ: The WSGI environ, or None under ASGI.
    """

    method: str
    selector: str
    target: bytes
    fields: Sequence[Field] = field(repr=False)
    client: tuple[str, int] | None = None
    caller: Any = None
    scope: Any = field(default=None, repr=False)
    environ: Any = field(default=None, repr=False)

    def header(self, name: str) -> str | None:
        """The first field of this name, whatever the case; None if there is none. Cookies are joined."""
        if name.lower() == "cookie":  # HTTP/2 splits them (RFC 9113 section 8.2.3).
            values = [value for key, value in self.fields if key.lower() == b"cookie"]
            return b"; ".join(values).decode("latin-1") if values else None
        return first_value(self.fields, name)


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """The final request, as a signer sees it: the URL, fields and (where it asked for it) body that go upstream."""

    method: str
    url: str = field(repr=False)
    fields: Sequence[Field] = field(repr=False)
    body: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """Status and fields of the upstream's response, for `CredentialProvider.is_rejected`.

    Attributes:
        status: Status code.
        fields: Header fields as pairs of bytes, as the upstream sent them.
        body: At most the first 64 KiB of the body, where `is_rejected.needs_body(head)` asked for it; else None.
    """

    status: int
    fields: Sequence[Field] = field(repr=False)
    body: bytes | None = field(default=None, repr=False)

    def header(self, name: str) -> str | None:
        """The first field of this name, whatever the case; None if there is none."""
        return first_value(self.fields, name)


EventKind = Literal[
    "matched",
    "denied",
    "resolved",
    "refresh_started",
    "refresh_finished",
    "attempt",
    "response_started",
    "finished",
]


class Event(NamedTuple):
    """Something that has happened to a request, as an `Observer` is told.

    A request that goes well is `matched`, `resolved`, sent by one `attempt`, answered (`response_started`) and
    `finished`; the last comes to every request once. `denied` is one that the proxy refuses by itself before it has
    sent anything. `refresh_started` and `refresh_finished` stand around a refresh of the credential, also one that
    others had started.

    Attributes:
        kind: What has happened.
        time: When, in seconds of the monotonic clock.
        request: A number that all events of one request have in common, and no other request of the process.
        method: As the caller spelled it.
        selector: As the caller gave it, decoded; empty where it was malformed.
        connection_id: Which connection it is; None until that is known.
        attempts: How often the request has been sent upstream, as far as the core goes; the engine's own second try on
            a connection that had been closed idle is not counted.
        origin: Where an `attempt` goes, such as "https://api.example.com".
        path: The path of an `attempt`, percent-encoded and without its query.
        status: Of the upstream's response, or of the proxy's own answer.
        error: Why it did not go well, by the error types of RFC 9209 section 2.3; `caller_left` where nobody waits for
            the answer any more. None where it did.
        received: Bytes of the request's body that came from the caller, when it is `finished`.
        sent: Bytes of the response's body that went to the caller, when it is `finished`.
        timings: Seconds by phase, when it is `finished`: `resolve` (authentication and resolver), `credential`,
            `upstream` (from the first attempt to the head of the response that counts), `relay` and `total`; without
            those that were not reached.
    """

    kind: EventKind
    time: float
    request: int
    method: str
    selector: str
    connection_id: str | None = None
    attempts: int = 0
    origin: str | None = None
    path: str | None = None
    status: int | None = None
    error: str | None = None
    received: int = 0
    sent: int = 0
    timings: Mapping[str, float] = MappingProxyType({})


def header_fields(where: str, pairs: Iterable[tuple[str | bytes, str | bytes]]) -> tuple[Field, ...]:
    """Pairs of text or bytes as fields that may be sent.

    Raises:
        ValueError: A name or value is malformed, or the field is framing, which is the proxy's own.
    """
    fields = tuple((_bytes(name), _bytes(value)) for name, value in pairs)
    for name, _ in fields:
        if not is_token(name):
            raise ValueError(f"{where}: {name!r} is no field name")
        if canonical(name) in (b"host", b"connection", b"content-length", b"transfer-encoding"):
            raise ValueError(f"{where}: {name.decode()} is set by the proxy itself")
    if not clean_values(fields):
        raise ValueError(f"{where}: a value has a control character")
    return fields


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("latin-1")


def _positive(name: str, value: float | None) -> None:
    if value is not None and not value > 0:
        raise ValueError(f"{name} must be above zero, not {value!r}")


def _reject_text(name: str, value: object) -> None:
    if isinstance(value, str | bytes):
        raise ValueError(f"{name} takes a list, not {value!r}")


def _networks(name: str, entries: Sequence[str]) -> tuple[IPv4Network | IPv6Network, ...]:
    _reject_text(name, entries)
    try:
        return tuple(ip_network(entry) for entry in entries)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
