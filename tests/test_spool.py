"""Bytes that are kept in memory, then on disk."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_middleware import Replay
from proxy_middleware._spool import Spool

PIECES = st.lists(st.binary(max_size=12), max_size=8)


def everything(spool: Spool, size: int = 5) -> bytes:
    """All that the spool holds, read in small steps."""
    content = b""
    while piece := spool.read(len(content), size):
        assert len(piece) <= size
        content += piece
    return content


@given(PIECES, st.integers(0, 30), st.integers(0, 30))
def test_whatever_fits_can_be_read_again(pieces: list[bytes], memory: int, disk: int) -> None:
    """What fits comes back byte for byte, as often as asked; what does not is known not to be whole."""
    spool = Spool(Replay(memory=memory, disk=disk))
    try:
        for piece in pieces:
            spool.add(piece)
        content = b"".join(pieces)
        assert spool.overflown is (len(content) > memory + disk)
        if not spool.overflown:
            assert spool.size == len(content)
            assert everything(spool) == everything(spool) == content
    finally:
        spool.close()


@given(PIECES, st.integers(0, 96))
def test_reading_and_adding_take_turns(pieces: list[bytes], offset: int) -> None:
    """Reading in between does not disturb what is added later."""
    spool = Spool(Replay(memory=10, disk=1000))
    try:
        content = b""
        for piece in pieces:
            spool.read(offset)
            spool.add(piece)
            content += piece
            assert everything(spool) == content
    finally:
        spool.close()


def test_limit_is_exact() -> None:
    """Exactly as much as allowed fits; one byte more does not, and stays not fitting."""
    spool = Spool(Replay(memory=4, disk=4))
    spool.add(b"12345678")
    assert not spool.overflown
    spool.add(b"")
    assert not spool.overflown
    spool.add(b"9")
    assert spool.overflown
    spool.add(b"")
    assert spool.overflown
    spool.close()


def test_disk_is_touched_only_beyond_memory() -> None:
    """What fits into memory needs no disk, so that no thread is needed for it."""
    spool = Spool(Replay(memory=4, disk=4))
    assert not spool.uses_disk(4)
    assert spool.uses_disk(5)
    spool.add(b"1234")
    assert not spool.uses_disk()
    assert spool.uses_disk(1)
    spool.add(b"5")
    assert spool.uses_disk()
    spool.add(b"6789")
    assert spool.overflown
    assert not spool.uses_disk(1)
    spool.close()


@pytest.mark.parametrize("content", [b"", b"ab", b"abcdef"])
def test_closed_spool_is_empty(content: bytes) -> None:
    """Closing forgets everything, and may be done twice."""
    spool = Spool(Replay(memory=3, disk=10))
    spool.add(content)
    spool.close()
    spool.close()
    assert spool.read(0) == b""
