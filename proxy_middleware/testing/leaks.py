"""Whether a credential has got out: into what the application logs, or into what it answers."""

import logging
import traceback
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from proxy_middleware._credential import Credential
from proxy_middleware.testing._secrets import SHORTEST, Secret, known, secrets_of
from proxy_middleware.testing._views import how_found

if TYPE_CHECKING:
    import pytest

__all__ = ["assert_no_credentials"]

_PHASES: tuple[Literal["setup", "call", "teardown"], ...] = ("setup", "call", "teardown")

Place = tuple[str, bytes]


def assert_no_credentials(
    caplog: "pytest.LogCaptureFixture | Iterable[logging.LogRecord]",
    *responses: Any,
    secrets: Iterable[str | bytes | Credential] = (),
) -> None:
    """Fails if a secret is in the log or in a response: as it is, percent-encoded, escaped, or in base64.

    It knows the secrets of the kit's own objects that the test still holds: the tokens that `ExpiringCredentials` have
    issued, and what a `FakeUpstream` demands in a header field. All others are given as `secrets`. In the log it looks
    at message, arguments, exceptions and extra attributes of each record; in a response at status line, header fields
    and body, and at those of the redirects before it. It sees what was captured: `caplog.set_level("DEBUG")`, at the
    start of a test, has all records captured.

    Args:
        caplog: pytest's fixture, or records.
        responses: Of httpx, requests, or the test clients of Flask, Django or Starlette; anything else with `headers`
            and one of `content`, `data` and `body`; or bytes or text.
        secrets: Further ones, each a text of at least four characters, or a Credential with whatever it injects.

    Raises:
        AssertionError: A secret was found; the message says which and where, and does not show it.
        ValueError: There is no secret to look for, or one is too short to be told from other text.
        TypeError: A response is of an unknown kind.
    """
    __tracebackhide__ = True
    wanted = _wanted(secrets)
    places = [*in_log(caplog)]
    for number, response in enumerate(responses, 1):
        places += _in_response(f"response {number}" if len(responses) > 1 else "the response", response)
    if found := where_found(wanted, places):
        raise AssertionError("\n  ".join(["credentials got out:", *found]))


def where_found(secrets: Iterable[Secret], places: Iterable[Place]) -> list[str]:
    """Which secrets are in which places, in which form; one line for each, without the secret."""
    found = (
        f"{secret.label} is in {where}, {form}"
        for where, data in places
        for secret in secrets
        if (form := how_found(secret.value, data))
    )
    return list(dict.fromkeys(found))


def _wanted(secrets: Iterable[str | bytes | Credential]) -> list[Secret]:
    wanted = known()
    for number, source in enumerate(secrets):
        wanted += secrets_of(f"secrets[{number}]", source)
    if not wanted:
        raise ValueError("assert_no_credentials knows no secret to look for: give it some with secrets=[...]")
    for secret in wanted:
        if len(secret.value) < SHORTEST:
            raise ValueError(f"{secret.label} is shorter than {SHORTEST} characters, which are found anywhere")
    return wanted


# In the log.


def in_log(caplog: "pytest.LogCaptureFixture | Iterable[logging.LogRecord]") -> Iterator[Place]:
    """What the records hold."""
    if hasattr(caplog, "get_records"):
        records = [record for phase in _PHASES for record in caplog.get_records(phase)]
    else:
        records = list(caplog)
    for record in records:
        where = f"the log ({record.name}, {record.levelname}, {record.filename}:{record.lineno})"
        for what, value in _parts_of(record):
            yield f"{where}: {what}", b"\n".join(_texts(value))


def _parts_of(record: logging.LogRecord) -> Iterator[tuple[str, object]]:
    for name, value in vars(record).items():
        if name != "exc_info":
            yield {"msg": "message", "args": "arguments", "exc_text": "exception"}.get(name, name), value
    try:
        yield "message", record.getMessage()
    except (TypeError, ValueError, KeyError):
        """Arguments that do not fit their message were looked at on their own."""
    if record.exc_info and not isinstance(record.exc_info, bool):
        yield "exception", "".join(traceback.format_exception(*record.exc_info))


def _texts(value: object) -> Iterator[bytes]:
    """The value in all ways in which it may be printed."""
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, Mapping):
        for pair in value.items():
            yield from _texts(pair)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _texts(item)
    yield f"{value}\n{value!r}".encode("utf-8", "surrogateescape")


# In a response.


def _in_response(what: str, response: Any) -> Iterator[Place]:
    if isinstance(response, bytes | bytearray | str):
        yield what, b"\n".join(_texts(bytes(response) if isinstance(response, bytearray) else response))
        return
    for number, earlier in enumerate(getattr(response, "history", ()), 1):
        yield from _in_response(f"redirect {number} before {what}", earlier)
    for name in ("reason", "reason_phrase", "status"):
        yield f"{what}: status line", b"\n".join(_texts(getattr(response, name, "")))
    for name, value in _fields(what, response):
        yield f"{what}: field {_text(name)!r}", b"\n".join([*_texts(name), *_texts(value)])
    yield f"{what}: body", b"\n".join(_texts(_body(what, response)))


def _fields(what: str, response: Any) -> Iterable[tuple[Any, Any]]:
    headers = getattr(response, "headers", None)
    if headers is None:
        raise TypeError(f"{what} is a {type(response).__name__}, without `headers`: give its bytes")
    pairs = headers.items() if hasattr(headers, "items") else headers
    # Django keeps cookies elsewhere until it sends them.
    return [*pairs, *(("set-cookie", cookie) for cookie in _cookies(response))]


def _cookies(response: Any) -> list[Any]:
    cookies = vars(response).get("cookies") if hasattr(response, "__dict__") else None
    return list(cookies.values()) if isinstance(cookies, Mapping) else []


def _body(what: str, response: Any) -> bytes | str:
    for name in ("content", "data", "body"):
        body = getattr(response, name, None)
        if isinstance(body, bytes | str):
            return body
    raise TypeError(f"{what} is a {type(response).__name__}, without a body in `content`, `data` or `body`")


def _text(name: str | bytes) -> str:
    return name.decode("latin-1") if isinstance(name, bytes) else name
