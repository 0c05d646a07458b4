"""Which responses say that a credential has expired, for the APIs that do not simply answer 401.

A rule is what a provider has for `is_rejected`. It is pure: it looks at what it is handed, and waits for nothing.
"""

import json as json_module
import re
import zlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from proxy_middleware._exchange import lacks_scope
from proxy_middleware.models import Connection, ResponseHead
from proxy_middleware.protocols import nonblocking

__all__ = ["AWS", "GOOGLE_AI", "SLACK", "ExpiryRule", "expired_when"]

Scalar = str | int | float | bool | None

# Whole documents only: of a stream of documents (NDJSON, JSON text sequences) no one knows when it ends.
_JSON = re.compile(r"(application|text)/((?!stream\+)[\w.-]+\+json|json|x-json|x-amz-json-\d\.\d|(x-)?javascript)")
_CODINGS = frozenset({"identity", "gzip", "x-gzip", "deflate"})
# A short gzip body can hold a long one: no more than this is unpacked.
_UNPACKED_LIMIT = 256 * 1024


def expired_when(
    *,
    status: int | Collection[int] = 401,
    json: Mapping[str, Scalar | Collection[Scalar]] | None = None,
    text: str | Collection[str] | None = None,
    headers: Mapping[str, str | Collection[str]] | None = None,
) -> "ExpiryRule":
    """A rule that holds where all of these do; rules are combined with `|`.

    `error="insufficient_scope"` in WWW-Authenticate is never an expiry (RFC 6750 section 3.1), whatever the rule says.

    Where a rule asks for the body, a response whose head fits is held back until its body's beginning (64 KiB at the
    most) is there. A JSON document that is longer than that, or a body in a content coding other than gzip and deflate,
    counts as not expired.

    Args:
        status: The status, or several.
        json: Member -> its value, or several that will do. `"error.status"` is a member of a member; a list on the way
            stands for each of its items. Only whole JSON documents are looked at, never streams of them.
        text: What is somewhere in the body, spelled exactly so; of several, one will do. Never in an event stream.
        headers: Name -> what is somewhere in the field's value, whatever the case; of several, one will do.

    Raises:
        ValueError: A status is no HTTP status, or a condition has no values.
    """
    condition = _Condition(
        statuses=_statuses(status),
        headers=tuple((name, tuple(text.lower() for text in _several(name, value))) for name, value in _items(headers)),
        members=tuple((tuple(path.split(".")), tuple(_several(path, value))) for path, value in _items(json)),
        texts=tuple(text.encode() for text in _several("text", text)) if text is not None else (),
    )
    return ExpiryRule(condition)


@dataclass(frozen=True, slots=True)
class _Condition:
    statuses: frozenset[int]
    headers: tuple[tuple[str, tuple[Any, ...]], ...]
    members: tuple[tuple[tuple[str, ...], tuple[Scalar, ...]], ...]
    texts: tuple[bytes, ...]

    @property
    def asks_for_body(self) -> bool:
        return bool(self.members or self.texts)

    def fits(self, head: ResponseHead) -> bool:
        """Whether the head is as it should be; if there is more to ask, of a body that can be looked into."""
        return (
            head.status in self.statuses
            and all(_has_field(head, name, values) for name, values in self.headers)
            and (not self.asks_for_body or self._readable(head))
        )

    def holds_in(self, body: bytes) -> bool:
        if self.texts and not any(text in body for text in self.texts):
            return False
        return not self.members or self._document_fits(body)

    def _document_fits(self, body: bytes) -> bool:
        try:
            document = json_module.loads(body)
        except (ValueError, RecursionError):
            return False  # No JSON after all, or cut off.
        return all(
            any(_same(found, value) for found in _find(document, path) for value in values)
            for path, values in self.members
        )

    def _readable(self, head: ResponseHead) -> bool:
        if _coding(head) not in _CODINGS:
            return False
        media_type = (head.header("content-type") or "").partition(";")[0].strip().lower()
        if self.members:
            return not media_type or bool(_JSON.fullmatch(media_type))
        return media_type != "text/event-stream"


class ExpiryRule:
    """Says whether a response means that the credential has expired; made by `expired_when`, combined with `|`."""

    def __init__(self, *conditions: _Condition) -> None:
        self._conditions = conditions

    @nonblocking
    def __call__(self, connection: Connection, head: ResponseHead) -> bool:
        """Whether the credential has expired. What a body would tell is not the case where `head.body` is None."""
        fitting = self._fitting(head)
        if not all(condition.asks_for_body for condition in fitting):
            return True
        body = _unpacked(head) if fitting else None
        return body is not None and any(condition.holds_in(body) for condition in fitting)

    def needs_body(self, head: ResponseHead) -> bool:
        """Whether it takes the beginning of the body to say."""
        fitting = self._fitting(head)
        return bool(fitting) and all(condition.asks_for_body for condition in fitting)

    def __or__(self, other: "ExpiryRule") -> "ExpiryRule":
        if not isinstance(other, ExpiryRule):
            return NotImplemented
        return ExpiryRule(*self._conditions, *other._conditions)

    def _fitting(self, head: ResponseHead) -> list[_Condition]:
        fitting = [condition for condition in self._conditions if condition.fits(head)]
        return [] if fitting and lacks_scope(head) else fitting


def _has_field(head: ResponseHead, name: str, values: tuple[str, ...]) -> bool:
    given = (head.header(name) or "").lower()
    return any(value in given for value in values)


def _coding(head: ResponseHead) -> str:
    return (head.header("content-encoding") or "identity").strip().lower()


def _unpacked(head: ResponseHead) -> bytes | None:
    if head.body is None or _coding(head) == "identity":
        return head.body
    try:
        # 32: the format is told by its header, since "deflate" has meant either.
        return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(head.body, _UNPACKED_LIMIT)
    except zlib.error:
        return None


def _find(document: Any, path: tuple[str, ...]) -> Iterable[Any]:
    """The values at a path; a list on the way, or at its end, stands for its items."""
    if isinstance(document, list):
        return chain.from_iterable(_find(item, path) for item in document)
    if not path:
        return (document,)
    if isinstance(document, dict) and path[0] in document:
        return _find(document[path[0]], path[1:])
    return ()


def _same(found: Any, value: Scalar) -> bool:
    # In JSON, true is not 1.
    return isinstance(found, bool) is isinstance(value, bool) and bool(found == value)


def _items(mapping: Mapping[str, Any] | None) -> Iterable[tuple[str, Any]]:
    return mapping.items() if mapping else ()


def _several(name: str, value: Any) -> list[Any]:
    values = [value] if value is None or isinstance(value, str | int | float) else list(value)
    if not values:
        raise ValueError(f"expired_when: no values for {name!r}")
    return values


def _statuses(status: int | Collection[int]) -> frozenset[int]:
    statuses = frozenset([status] if isinstance(status, int) else status)
    if not statuses or not all(isinstance(status, int) and 100 <= status <= 599 for status in statuses):
        raise ValueError("expired_when: a status is between 100 and 599")
    return statuses


# Slack answers 200 whatever happens (https://docs.slack.dev/apis/web-api/#responses).
SLACK = expired_when() | expired_when(status=200, json={"ok": False, "error": ["token_expired", "invalid_auth"]})

# S3 and the query services name the error in XML, DynamoDB and its like in JSON, others in a field of its own
# (https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html, .../APIReference/CommonErrors.html).
AWS = (
    expired_when()
    | expired_when(status=(400, 403), headers={"x-amzn-errortype": "ExpiredToken"})
    | expired_when(status=(400, 403), text="ExpiredToken")
)

# An expired API key is an invalid argument here (https://cloud.google.com/apis/design/errors).
GOOGLE_AI = expired_when() | expired_when(status=400, json={"error.details.reason": "API_KEY_INVALID"})
