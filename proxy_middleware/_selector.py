"""Selectors that a program gives, rather than a caller's URL."""

from proxy_middleware._target import _SELECTOR

__all__ = ["checked_selector"]


def checked_selector(selector: str) -> str:
    """The selector.

    Raises:
        ValueError: No connection can be called that.
    """
    if _SELECTOR.fullmatch(selector.encode("utf-8")) is None:
        raise ValueError(f"A selector is 1 to 256 of letters, digits, blanks and _.~:@+-, not {selector!r}")
    return selector
