"""What calls give: a response of httpx, or of httpx2, whose names they share."""

from collections.abc import AsyncIterator, Iterator
from typing import Any, Protocol, overload

__all__ = ["Headers", "Response"]


class Headers(Protocol):
    """The fields of a response, by name, whatever the case."""

    def __getitem__(self, key: str, /) -> str: ...

    def __contains__(self, key: Any, /) -> bool: ...

    def __iter__(self) -> Iterator[Any]: ...

    @overload
    def get(self, key: str, /) -> str | None: ...

    @overload
    def get(self, key: str, default: Any, /) -> Any: ...

    def get_list(self, key: str, /) -> list[str]:
        """The values of all fields of this name."""

    def multi_items(self) -> list[tuple[str, str]]:
        """All fields, in order."""


class Response(Protocol):
    """A response of the library that makes the calls, with all that this has; here is what is mostly used.

    Attributes:
        status_code: The status.
    """

    status_code: int

    @property
    def reason_phrase(self) -> str:
        """What came with the status, or what usually does."""

    @property
    def headers(self) -> Headers:
        """Its fields."""

    @property
    def content(self) -> bytes:
        """The body, content codings undone; only where it has been read."""

    @property
    def text(self) -> str:
        """The same, decoded."""

    @property
    def is_success(self) -> bool:
        """Whether the status is a 2xx."""

    def json(self, **options: Any) -> Any:
        """The body as JSON."""

    def raise_for_status(self) -> "Response":
        """Raises the library's `HTTPStatusError` unless the status is a 2xx."""

    def iter_bytes(self, chunk_size: int | None = None) -> Iterator[bytes]:
        """The body while it comes, of a `ProxyClient`'s stream."""

    def iter_lines(self) -> Iterator[str]:
        """The same, line by line."""

    def read(self) -> bytes:
        """All that is left of it."""

    def close(self) -> None:
        """Gives it up."""

    def aiter_bytes(self, chunk_size: int | None = None) -> AsyncIterator[bytes]:
        """The body while it comes, of an `AsyncProxyClient`'s stream."""

    def aiter_lines(self) -> AsyncIterator[str]:
        """The same, line by line."""

    async def aread(self) -> bytes:
        """All that is left of it."""

    async def aclose(self) -> None:
        """Gives it up."""
