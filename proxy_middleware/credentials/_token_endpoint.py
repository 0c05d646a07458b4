"""One call to a token endpoint: a POST that follows nothing, bounded in time and size, and what its answer means.

Answers are values rather than exceptions, since the frames of an exception would hold what was sent. Sources: RFC 6749
sections 3.2, 5.1 and 5.2; RFC 9700.
"""

import json
import math
import re
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from proxy_middleware.errors import AddressRefused
from proxy_middleware.models import EgressPolicy
from proxy_middleware.upstream.dial import default_ssl_context
from proxy_middleware.upstream.httpx_egress import answer_of, one_call_transport
from proxy_middleware.upstream.httpx_library import bound_method, library_of, own_library

__all__ = ["Granted", "Outage", "Refused", "TokenEndpoint"]

MAX_BODY = 1024 * 1024
# Seconds after the deadline in which a given transport's answer still counts, if only to be stored.
LATE = 10.0

_FIELDS = {
    "accept": "application/json",
    "accept-encoding": "identity",
    "content-type": "application/x-www-form-urlencoded",
    "user-agent": "proxy_middleware",
}
# All that RFC 6749 section 5.2 and the known endpoints define; too narrow for a token that an endpoint may echo.
_ERROR_CODE = re.compile(r"[a-z_]{1,40}")
# Slack names who its token is for where the type should be; each is sent as a bearer token.
_BEARER = frozenset({"bearer", "bot", "user"})


@dataclass(frozen=True, slots=True)
class Granted:
    """New tokens (RFC 6749 section 5.1).

    Attributes:
        access_token: Can go into a header field.
        refresh_token: None if the old one stays.
        expires_at: Unix seconds; None if that is not known.
        scope: As granted; None if it is the one that was asked for.
        members: The whole response.
    """

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    expires_at: float | None
    scope: str | None
    members: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """The endpoint's own refusal (RFC 6749 section 5.2); `code` is fit to be logged."""

    code: str
    status: int


@dataclass(frozen=True, slots=True)
class Outage:
    """No answer, or none that can be understood; `reason` is fit to be logged."""

    reason: str


class TokenEndpoint:
    """A token endpoint.

    Args:
        url: Where it is.
        egress: Which addresses may be dialled; None is the policy of the proxy, and the default one until it is told.
        ssl_context: None verifies against the system's authorities.
        transport: Is used instead of one made of these two.

    Raises:
        TypeError: The transport is none, or comes beside what it would decide itself.
        ValueError: The URL is not absolute, not http(s), or has user information or a fragment.
    """

    def __init__(
        self,
        url: str,
        egress: EgressPolicy | None,
        ssl_context: ssl.SSLContext | None,
        transport: Any,
    ) -> None:
        if transport is not None and bound_method(transport, "handle_request") is None:
            raise TypeError("OAuth2: transport is a blocking transport of httpx or httpx2, such as HTTPTransport()")
        if transport is not None and (egress is not None or ssl_context is not None):
            raise TypeError(
                "OAuth2: a transport decides itself on addresses and TLS: egress and ssl_context are not used"
            )
        self.url = url
        self.host = _host(url)
        self._egress = egress
        self._decided = egress is not None or transport is not None
        self._context = ssl_context
        self._transport = transport
        self._library = own_library() if transport is None else library_of(transport)

    def use_egress(self, policy: EgressPolicy) -> None:
        """The policy of a proxy, for where neither a policy nor a transport was given.

        Raises:
            ValueError: Another proxy has said otherwise.
        """
        if self._decided:
            return
        if self._egress is not None and _networks(self._egress) != _networks(policy):
            raise ValueError(
                "OAuth2: proxies with different egress policies share it; say which one holds for the token endpoint, "
                "with egress=EgressPolicy(...)"
            )
        self._egress = policy

    def ask(self, headers: Mapping[str, str], form: str, deadline: float) -> Granted | Refused | Outage:
        """Sends a form and reads the answer; raises nothing.

        Args:
            headers: Those of the client authentication.
            form: Encoded.
            deadline: By `time.monotonic()`. A given transport that sits on one response head may outlast it.
        """
        asked = time.time()
        try:
            status, body = self._post(headers, form, deadline)
        except AddressRefused:
            return Outage("the egress policy refuses its address")
        except Exception as error:
            return Outage(f"no answer ({type(error).__name__})")
        return _TOO_LONG if body is None else read_answer(status, body, asked)

    def _post(self, headers: Mapping[str, str], form: str, deadline: float) -> tuple[int, bytes | None]:
        left = max(deadline - time.monotonic(), 0.001)
        request = self._library.httpx.Request(
            "POST",
            self.url,
            headers={**_FIELDS, **headers},
            content=form.encode("ascii"),
            extensions={"timeout": dict.fromkeys(("connect", "read", "write", "pool"), left)},
        )
        if self._transport is not None:
            return answer_of(self._library, self._transport, request, MAX_BODY, deadline + LATE)
        egress = self._egress or EgressPolicy()
        with one_call_transport(self._library, egress, self._ssl_context(), deadline) as transport:
            return answer_of(self._library, transport, request, MAX_BODY, deadline)

    def _ssl_context(self) -> ssl.SSLContext:
        # No cached_property: up to Python 3.11 that has a lock, which a fork may leave locked.
        if self._context is None:
            self._context = default_ssl_context()
        return self._context


_TOO_LONG = Outage(f"the answer is longer than {MAX_BODY} bytes")


def _networks(policy: EgressPolicy) -> tuple[set[Any], set[Any]]:
    return set(policy.allowed), set(policy.denied)


def _host(url: str) -> str:
    httpx = own_library().httpx
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError):
        raise ValueError("OAuth2: token_url is no URL") from None
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.userinfo or parsed.fragment:
        raise ValueError("OAuth2: token_url is an absolute http or https URL without user information and fragment")
    host: str = parsed.host
    return host


def read_answer(status: int, body: bytes, asked: float) -> Granted | Refused | Outage:
    """What an answer means.

    Args:
        status: Of the response.
        body: Of the response.
        asked: When the request was sent, in Unix seconds; `expires_in` counts from there.
    """
    if not (200 <= status < 300 or 400 <= status < 500) or status == 429:
        return Outage(f"status {status}")
    members = _json_object(body)
    if members is None:
        return Outage(f"status {status} without a JSON object")
    # GitHub and Slack refuse with status 200.
    if error := members.get("error"):
        known = isinstance(error, str) and _ERROR_CODE.fullmatch(error)
        return Refused(error if known else "unreadable", status)
    if status >= 400:
        return Outage(f"status {status} without an error code")
    return _granted(members, asked)


def _json_object(body: bytes) -> Mapping[str, Any] | None:
    try:
        # What is no JSON could not be stored, and with it the rest.
        members = json.loads(body, parse_float=_finite, parse_constant=lambda constant: None)
    except (ValueError, RecursionError):
        return None
    return members if isinstance(members, dict) else None


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _granted(members: Mapping[str, Any], asked: float) -> Granted | Outage:
    token_type = members.get("token_type") or "bearer"
    if not isinstance(token_type, str) or token_type.lower() not in _BEARER:
        # RFC 6749 section 7.1: a token of a type that is not understood must not be used.
        return Outage("a token type other than bearer, which is not supported")
    access = _text(members.get("access_token"))
    if access is None or not (access.isascii() and access.isprintable()):
        return Outage("an answer without a usable access token")
    lifetime = _lifetime(members.get("expires_in"))
    return Granted(
        access,
        _text(members.get("refresh_token")),
        None if lifetime is None else asked + lifetime,
        _text(members.get("scope")),
        members,
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _lifetime(value: object) -> float | None:
    """Seconds; None for what is no positive number, for by then the old refresh token may be used up."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    return seconds if 0 < seconds < math.inf else None
