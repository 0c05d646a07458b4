"""What flows through a transport: the client's body as a server would hand it over, and the response's as a stream."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

from proxy_middleware import asgi_body, wsgi_body
from proxy_middleware._loops import OneTask, asyncio_loop
from proxy_middleware.errors import CallerLeft, ProxyError, ReadTimeout, ResponseTruncated
from proxy_middleware.upstream.httpx_library import Library

Body = asgi_body.RequestBody | wsgi_body.RequestBody


class _Announced:
    """What the two kinds of sources have in common.

    Args:
        length: Bytes that are announced; None where only the end tells.

    Attributes:
        failure: What the client's stream has raised.
    """

    failure: BaseException | None = None

    def __init__(self, length: int | None) -> None:
        self._due = length

    def _take(self, data: bytes | memoryview) -> bool:
        """Whether these are the last bytes that are due, so that the stream's end should follow."""
        if self._due is None:
            return False
        self._due -= len(data)
        return self._due <= 0


class Source(_Announced):
    """A blocking stream as a server's input."""

    def __init__(self, stream: Any, length: int | None) -> None:
        super().__init__(length)
        self._pieces: Iterator[bytes] = iter(stream)
        self._left = memoryview(b"")

    def read(self, size: int) -> bytes:
        """At most so many bytes; nothing at the end."""
        try:
            while not self._left:
                self._left = memoryview(next(self._pieces))
            data, self._left = self._left[:size], self._left[size:]
            longer = self._take(data) and (bool(self._left) or any(self._pieces))
        except StopIteration:
            return b""
        except Exception as error:
            self.failure = error
            raise
        if longer:
            raise CallerLeft
        return bytes(data)


class AsyncSource(_Announced):
    """An asynchronous stream as ASGI has it; one that is bytes is read at once."""

    def __init__(self, stream: Any, length: int | None, *, whole: bool) -> None:
        super().__init__(length)
        self._whole = b"".join(stream) if whole else None
        self._pieces: AsyncIterator[bytes] | None = None if whole else aiter(stream)
        self._reader = OneTask(self._pieces) if self._pieces is not None and asyncio_loop() is not None else None

    async def receive(self) -> dict[str, Any]:
        """The next piece; a stream that fails, or is longer than announced, is a caller that leaves."""
        if self._pieces is None:
            return {"type": "http.request", "body": self._whole}
        piece = await self._next()
        longer = piece is not None and self._take(piece) and await self._any()
        if longer or self.failure is not None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    async def _next(self) -> bytes | None:
        """The next piece; None at the end, and where the stream has failed."""
        assert self._pieces is not None
        if self._reader is not None:
            piece, self.failure = await self._reader.next()
            return piece
        try:
            return await anext(self._pieces, None)
        except Exception as error:
            self.failure = error
            return None

    async def _any(self) -> bool:
        while (piece := await self._next()) is not None:
            if piece:
                return True
        return False

    async def aclose(self) -> None:
        """Nobody reads on. Trio complains of generators that are left suspended; asyncio ends them itself."""
        if self._reader is not None:
            self._reader.cancel()
            return
        end = getattr(self._pieces, "aclose", None)
        if end is not None:
            await end()


class _Relayed:
    """What the two kinds of streams have in common."""

    def __init__(self, response: Any, body: Body, source: Any, library: Library, request: Any) -> None:
        self._response = response
        self._body = body
        self._source = source
        self._httpx = library.httpx
        self._request = request

    def _broken(self, error: Exception) -> BaseException:
        """What the client is told where a response breaks off."""
        self._body.failed(ResponseTruncated(str(error)))
        if self._source.failure is not None:
            return self._source.failure  # type: ignore[no-any-return]
        kind = self._httpx.ReadTimeout if isinstance(error, ReadTimeout) else self._httpx.RemoteProtocolError
        return kind(str(error) or "The response broke off", request=self._request)  # type: ignore[no-any-return]

    def _end(self) -> None:
        if not self._response.at_end:
            self._body.failed(CallerLeft())
        self._body.close()


class Stream(_Relayed):
    """A response's body as a client reads it, never decoded."""

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        response = self._response
        try:
            while not response.at_end:
                if data := response.read():
                    return bytes(data)
        except (ProxyError, ResponseTruncated, CallerLeft) as error:
            broken = self._broken(error)
        else:
            self._end()
            raise StopIteration
        raise broken from None

    def close(self) -> None:
        """Gives up what has not been read; the upstream's connection is closed then."""
        self._end()
        self._response.abort()


class AsyncStream(_Relayed):
    """The same, asynchronous."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        response = self._response
        try:
            while not response.at_end:
                if data := await response.read():
                    return bytes(data)
        except (ProxyError, ResponseTruncated, CallerLeft) as error:
            broken = self._broken(error)
        else:
            self._end()
            raise StopAsyncIteration
        raise broken from None

    async def aclose(self) -> None:
        """Gives up what has not been read; the upstream's connection is closed then."""
        self._end()
        try:
            await self._response.aclose()
        finally:
            await self._source.aclose()
