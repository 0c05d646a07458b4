"""A text as it is, and with its encodings undone, so that a secret is found under any of them."""

import base64
import html
import re
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

__all__ = ["how_found"]

_BASE64_RUN = re.compile(rb"[A-Za-z0-9+/_-]{6,}")
_JSON_ESCAPE = re.compile(rb"\\(?:u([0-9A-Fa-f]{4})|(.))", re.DOTALL)
_STANDARD = bytes.maketrans(b"-_", b"+/")


def how_found(secret: bytes, data: bytes) -> str | None:
    """In which form the secret is in the data, such as "as it is" or "in base64"; None if it is not there."""
    for form, text in _decoded(data):
        if secret in text:
            return form
    for _, text in _decoded(data):
        if any(secret in plain for plain in _from_base64(text)):
            return "in base64"
    return None


def _decoded(data: bytes) -> Iterator[tuple[str, bytes]]:
    yield "as it is", data
    if b"+" in data:
        yield "form-encoded", unquote_to_bytes(data.replace(b"+", b" "))
    encoded = data
    for _ in range(3):  # Once more by each who passes it on.
        if b"%" not in encoded:
            break
        encoded = unquote_to_bytes(encoded)
        yield "percent-encoded", encoded
    if b"\\" in data:
        yield "escaped", _JSON_ESCAPE.sub(_unescaped, data)
    if b"&" in data:
        yield "escaped", html.unescape(data.decode("utf-8", "surrogateescape")).encode("utf-8", "replace")


def _unescaped(escape: re.Match[bytes]) -> bytes:
    return chr(int(escape[1], 16)).encode("utf-8", "replace") if escape[1] else bytes(escape[2])


def _from_base64(text: bytes) -> Iterator[bytes]:
    """What every run of the alphabet stands for; it may begin anywhere in one, and be broken into lines."""
    for run in {*_BASE64_RUN.findall(text), *_BASE64_RUN.findall(text.translate(None, b"\r\n \t"))}:
        standard = run.translate(_STANDARD)
        for start in range(4):
            whole = standard[start : start + (len(standard) - start) // 4 * 4]
            rest = standard[start + len(whole) :]
            yield base64.b64decode(whole + (rest + b"=" * (4 - len(rest)) if len(rest) > 1 else b""))
