"""The request under WSGI: fields out of the environ, and the body out of `wsgi.input`, counted and kept if need be."""

import socket
from collections.abc import Mapping
from typing import Any

from proxy_middleware._fields import Field
from proxy_middleware._spool import Spool
from proxy_middleware._trail import Ending
from proxy_middleware._unframed import is_granian
from proxy_middleware.errors import CallerLeft, InvalidRequest, LengthRequired, PayloadTooLarge
from proxy_middleware.models import Replay

Environ = dict[str, Any]

READ_SIZE = 64 * 1024


class _Names(dict[str, bytes]):
    """`HTTP_X_NAME` -> `x-name`; remembers what it has seen, up to a bound that no caller can exceed."""

    def __missing__(self, key: str) -> bytes:
        name = key[5:].replace("_", "-").lower().encode("latin-1")
        if len(self) < 2048 and len(key) <= 64:
            self[key] = name
        return name


_names = _Names()


def read_fields(environ: Mapping[str, Any]) -> list[Field]:
    """The header fields of a request, as far as CGI variables tell.

    Raises:
        InvalidRequest: A name or value is not ISO-8859-1.
    """
    names = _names
    try:
        fields = [(names[key], value.encode("latin-1")) for key, value in environ.items() if key[:5] == "HTTP_"]
    except UnicodeEncodeError:
        raise InvalidRequest("A header field is not ISO-8859-1") from None
    # wsgiref sets both, empty, where the caller sent neither.
    if value := environ.get("CONTENT_TYPE"):
        fields.append((b"content-type", value.encode("latin-1")))
    if value := environ.get("CONTENT_LENGTH"):
        fields.append((b"content-length", value.encode("latin-1")))
    return fields


def check_framing(environ: Mapping[str, Any]) -> None:
    """Refuses a chunked body whose end the server does not show.

    Raises:
        LengthRequired: The server does not promise `wsgi.input_terminated`; or it is Granian, whose input ends in the
            same way whether the body is whole or cut.
    """
    if "HTTP_TRANSFER_ENCODING" in environ and (not environ.get("wsgi.input_terminated") or is_granian(environ)):
        raise LengthRequired


class RequestBody(Ending):
    """A request body as the engine reads it.

    Attributes:
        at_end: Whether everything has been read.
        caller: The caller's own socket, where the server shows it.
    """

    __slots__ = (
        "_ended",
        "_input",
        "_length",
        "_limit",
        "_position",
        "_pushed_back",
        "_replay",
        "_size",
        "_spool",
        "_terminated",
        "at_end",
        "caller",
    )

    def __init__(self, environ: Mapping[str, Any], limit: int | None, replay: Replay) -> None:
        self.at_end = False
        self.caller: socket.socket | None = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
        self._input = environ["wsgi.input"]
        self._terminated = bool(environ.get("wsgi.input_terminated"))
        self._limit = limit
        self._replay = replay
        self._length: int | None = None
        self._ended = False
        self._size = 0
        self._spool: Spool | None = None
        self._position: int | None = None  # Where in the spool to read on, while replaying.
        self._pushed_back: bytes | None = None

    def expect(self, length: int | None) -> None:
        """So many bytes will come; None where only the end tells."""
        self._length = length
        if length is None and not self._terminated:
            self._length = 0
        self.at_end = self._ended = self._length == 0

    def keep(self) -> None:
        """From the start, keep what is read, so that it can be sent again."""
        if self._spool is None:
            self._spool = Spool(self._replay, self._length)
            self._spool.add(self._pushed_back or b"")

    @property
    def replayable(self) -> bool:
        """Whether the body can be read again from its start."""
        return self._spool is not None and not self._spool.overflown

    def rewind(self) -> None:
        """Starts over; only where it is replayable."""
        self._position = 0
        self._pushed_back = None
        self.at_end = self._ended and not self._size

    def probe(self) -> bool:
        """Whether there is a body at all."""
        data = b"" if self.at_end else self.read()
        if data:
            self._pushed_back, self.at_end = data, False
        return bool(data)

    def collect(self, limit: int) -> bytes:
        """The whole body; raises PayloadTooLarge if it is longer than `limit` bytes."""
        self.keep()
        if self._size and self._pushed_back is None:
            self.rewind()
        pieces = []
        while not self.at_end:
            pieces.append(self.read())
            if self._size > limit:
                raise PayloadTooLarge("The request body is too large to be signed")
        whole = b"".join(pieces)
        if self._spool is not None and self._spool.overflown:
            self._spool.close()
            self._spool = Spool.holding(whole)  # The disk is full, or not there; what is signed is sent whole.
        return whole

    def read(self) -> bytes:
        """The next piece, waiting for it; nothing only at the end.

        Raises:
            CallerLeft: The body ended before the length that was announced.
            PayloadTooLarge: More came than is allowed.
        """
        if self._pushed_back is not None:
            data, self._pushed_back = self._pushed_back, None
        elif self._position is not None and self._spool is not None and self._position < self._spool.size:
            data = self._spool.read(self._position)
            self._position += len(data)
            if self._position == self._spool.size:
                self._position = None
        else:
            self._position = None
            data = self._pull()
        self.at_end = self._ended and self._position is None
        return data

    def _pull(self) -> bytes:
        wanted = READ_SIZE if self._length is None else min(READ_SIZE, self._length - self._size)
        try:
            data: bytes = self._input.read(wanted) if wanted else b""
        except Exception:
            # Each server has its own errors for a body that breaks off, some derived from nothing in common.
            raise CallerLeft from None
        self._size += len(data)
        if self._limit is not None and self._size > self._limit:
            raise PayloadTooLarge
        if not data and self._length is not None and self._size < self._length:
            raise CallerLeft
        self._ended = not data or self._size == self._length
        if self._spool is not None:
            self._spool.add(data)
        return data

    def close(self) -> None:
        """Forgets the body: the request is over."""
        self.over(self._size)
        if self._spool is not None:
            self._spool.close()
