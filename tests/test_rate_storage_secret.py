"""A password in `Limits.rate_storage` is shown to nobody."""

import pytest

from proxy_middleware import Limits, Proxy, StaticCredentials, StaticResolver, anyone


def test_repr_masks_the_storage() -> None:
    """The repr of the limits does not have the storage's URL."""
    assert "hunter2" not in repr(Limits(rate="1/minute", rate_storage="redis://user:hunter2@host/0"))


def test_error_masks_the_storage() -> None:
    """A storage that cannot be understood is an error without its URL."""
    limits = Limits(rate="1/minute", rate_storage="nope://user:hunter2@host")
    with pytest.raises(ValueError, match=r"rate_storage") as caught:
        Proxy(resolver=StaticResolver([]), credentials=StaticCredentials({}), authenticate=anyone, limits=limits)
    assert "hunter2" not in str(caught.value)
