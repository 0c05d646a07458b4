"""A credential, and how it is put on a request."""

import base64
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, NoReturn
from urllib.parse import quote, unquote_plus

from proxy_middleware._fields import Field, canonical, clean_values, is_token
from proxy_middleware.models import UpstreamRequest, header_fields

_AUTHORIZATION = frozenset({b"authorization"})

# A name and its value; a signer that gives no value takes away what has the name.
Pair = tuple[str | bytes, str | bytes | None]
Signer = Callable[[UpstreamRequest], Iterable[Pair]]
NeedsBody = bool | Callable[[UpstreamRequest], bool]


@dataclass(frozen=True, slots=True, repr=False)
class Credential:
    """What is injected into the upstream request; made by one of the constructors below.

    Secrets are masked in `repr`, and pickling is refused. Two credentials are equal if they inject the same.

    Attributes:
        expires_at: When it expires, in Unix seconds; None if that is not known. Not part of equality.
        needs_body: Whether a signer wants the whole body, so that it is collected before it is sent.
    """

    expires_at: float | None = field(default=None, compare=False, kw_only=True)
    needs_body: NeedsBody = field(default=False, kw_only=True)
    _fields: tuple[Field, ...] = field(default=(), kw_only=True)
    _query: tuple[tuple[str, str], ...] = field(default=(), kw_only=True)
    _cookies: tuple[tuple[bytes, bytes], ...] = field(default=(), kw_only=True)
    _signers: tuple[Signer, ...] = field(default=(), kw_only=True)
    names: frozenset[bytes] = field(init=False, compare=False)
    signs: bool = field(init=False, compare=False)  # There is a signer.
    plain: bool = field(init=False, compare=False)  # It is an Authorization field, and nothing else but signers.

    def __post_init__(self) -> None:
        names = frozenset(canonical(name) for name, _ in self._fields)
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "signs", bool(self._signers))
        object.__setattr__(self, "plain", names == _AUTHORIZATION and not (self._query or self._cookies))

    @classmethod
    def bearer(cls, token: str, *, expires_at: float | None = None) -> "Credential":
        """`Authorization: Bearer {token}` (RFC 6750 section 2.1)."""
        return cls.header("authorization", f"Bearer {token}", expires_at=expires_at)

    @classmethod
    def basic(cls, user: str, password: str, *, expires_at: float | None = None) -> "Credential":
        """`Authorization: Basic ...` with UTF-8 (RFC 7617). A user with a colon is a ValueError."""
        if ":" in user:
            raise ValueError("Credential.basic: a user name cannot contain a colon")
        value = base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
        return cls.header("authorization", f"Basic {value}", expires_at=expires_at)

    @classmethod
    def header(cls, name: str, value: str, *, expires_at: float | None = None) -> "Credential":
        """A header field, which replaces the caller's of the same name, whatever the case."""
        return cls(expires_at=expires_at, _fields=_secret_fields(((name, value),)))

    @classmethod
    def query(cls, name: str, value: str, *, expires_at: float | None = None) -> "Credential":
        """A query parameter, which replaces the caller's of the same decoded name."""
        return cls(expires_at=expires_at, _query=((name, value),))

    @classmethod
    def cookie(cls, name: str, value: str, *, expires_at: float | None = None) -> "Credential":
        """A cookie, which replaces the pair of its name where cookies are forwarded (RFC 6265 section 4.2)."""
        if not (name.isascii() and value.isascii()):
            raise ValueError("Credential.cookie: name and value are ASCII")
        pair = (name.encode(), value.encode())
        if not is_token(pair[0]) or not clean_values((pair,)) or pair[1].translate(None, b' ",;\\\t') != pair[1]:
            raise ValueError("Credential.cookie: a name or value has a character that cookies cannot carry")
        return cls(expires_at=expires_at, _cookies=(pair,))

    @classmethod
    def combine(cls, *credentials: "Credential", expires_at: float | None = None) -> "Credential":
        """All of these together. Expires with the first of them, unless `expires_at` is given."""
        if expires_at is None:
            expires_at = min((c.expires_at for c in credentials if c.expires_at is not None), default=None)
        return cls(
            expires_at=expires_at,
            needs_body=_any_needs_body([c.needs_body for c in credentials if c.needs_body]),
            _fields=tuple(pair for c in credentials for pair in c._fields),
            _query=tuple(pair for c in credentials for pair in c._query),
            _cookies=tuple(pair for c in credentials for pair in c._cookies),
            _signers=tuple(sign for c in credentials for sign in c._signers),
        )

    @classmethod
    def signed(cls, sign: Signer, needs_body: NeedsBody = False, *, expires_at: float | None = None) -> "Credential":
        """Fields that depend on the request. `sign` runs last, sees the final request, and must not block.

        Args:
            sign: Called with an `UpstreamRequest`; returns pairs of name and value, each replacing what has its name;
                with None for a value, what has the name is taken away.
            needs_body: Hand `sign` the whole body, which then may be no longer than the replay limits; or a function
                that says so for one request, which it sees before the credential is on it, and without its body.
            expires_at: Unix seconds.
        """
        return cls(expires_at=expires_at, needs_body=needs_body, _signers=(sign,))

    @classmethod
    def from_httpx_auth(cls, auth: Any, *, expires_at: float | None = None) -> "Credential":
        """What an `auth` for httpx or httpx2 puts on; see `proxy_middleware.credentials.httpx_auth`.

        Args:
            auth: A (user, password) pair, a function from request to request, or an object with an `auth_flow` whose
                first step is the request itself with header fields added, changed or removed. It must not block.
            expires_at: Unix seconds.

        Raises:
            TypeError: It is none of these, or needs a response first, as digest authentication does.
        """
        # It builds on this class, and loads httpx, which others are spared.
        module = import_module("proxy_middleware.credentials.httpx_auth")
        credential: Credential = module.from_httpx_auth(auth, expires_at=expires_at)
        return credential

    def put_on(self, fields: list[Field], target: bytes, stripped: bool = False) -> tuple[list[Field], bytes]:
        """Fields (a new list) and request target with the credential on; what has the same name is replaced.

        Args:
            fields: The request's, so far.
            target: The request target, so far.
            stripped: There is no Authorization among the fields.
        """
        if stripped and self.plain:
            return [*fields, *self._fields], target
        names = self.names
        fields = [pair for pair in fields if canonical(pair[0]) not in names]
        fields += self._fields
        if self._query:
            target = _with_parameters(target, self._query)
        if self._cookies:
            fields = _with_cookies(fields, self._cookies)
        return fields, target

    def wants_body(self, method: str, url: str, fields: list[Field]) -> bool:
        """Whether a signer wants the whole body of this request."""
        if callable(self.needs_body):
            return bool(self.needs_body(UpstreamRequest(method, url, tuple(fields))))
        return self.needs_body

    def sign(self, method: str, url: str, fields: list[Field], body: bytes | None) -> list[Field]:
        """Fields with those of the signers, each of which sees what the one before it added."""
        for sign in self._signers:
            request = UpstreamRequest(method, url, tuple(fields), body if self.needs_body else None)
            pairs = list(sign(request))
            added = _secret_fields((name, value) for name, value in pairs if value is not None)
            removed = _secret_fields((name, b"") for name, value in pairs if value is None)
            names = {canonical(name) for name, _ in (*added, *removed)}
            fields = [pair for pair in fields if canonical(pair[0]) not in names] + list(added)
        return fields

    def __repr__(self) -> str:
        kinds = [name.decode() for name, _ in self._fields]
        kinds += [f"query {name}" for name, _ in self._query]
        kinds += [f"cookie {name.decode()}" for name, _ in self._cookies]
        kinds += ["signed"] * len(self._signers)
        return f"<Credential {', '.join(kinds) or 'empty'}: ***, expires_at={self.expires_at}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Credential cannot be pickled")


def _any_needs_body(needs: list[NeedsBody]) -> NeedsBody:
    if len(needs) < 2:
        return needs[0] if needs else False
    return lambda request: any(need(request) if callable(need) else need for need in needs)


def _secret_fields(pairs: Iterable[tuple[str | bytes, str | bytes]]) -> tuple[Field, ...]:
    try:
        return header_fields("Credential", pairs)
    except UnicodeEncodeError:
        # That error's own message holds the value.
        raise ValueError("Credential: a name or value is not ISO-8859-1") from None


def _with_parameters(target: bytes, parameters: Iterable[tuple[str, str]]) -> bytes:
    """The target with these parameters instead of its own of the same decoded name; all else stays byte for byte."""
    path, _, query = target.partition(b"?")
    names = {name for name, _ in parameters}
    kept = [part for part in query.split(b"&") if _parameter_name(part) not in names] if query else []
    kept += [f"{quote(name, safe='')}={quote(value, safe='')}".encode("ascii") for name, value in parameters]
    return path + b"?" + b"&".join(kept)


def _parameter_name(part: bytes) -> str:
    return unquote_plus(part.partition(b"=")[0].decode("latin-1"), encoding="utf-8", errors="replace")


def _with_cookies(fields: list[Field], cookies: tuple[tuple[bytes, bytes], ...]) -> list[Field]:
    names = {name for name, _ in cookies}
    pairs = [
        pair.strip()
        for name, value in fields
        if canonical(name) == b"cookie"
        for pair in value.split(b";")
        if pair.strip() and pair.partition(b"=")[0].strip() not in names
    ]
    pairs += [name + b"=" + value for name, value in cookies]
    return [pair for pair in fields if canonical(pair[0]) != b"cookie"] + [(b"cookie", b"; ".join(pairs))]
