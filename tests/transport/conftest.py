"""Fixtures of the transport's tests: the libraries in their colours."""

from tests.client.conftest import colour, each

__all__ = ["colour", "each"]
