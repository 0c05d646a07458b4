"""Bytes that are kept in memory, then on disk."""

import threading
import time
from collections.abc import Callable
from io import BytesIO, FileIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_middleware import Replay, _spool, asgi_body, wsgi_body
from proxy_middleware._spool import Spool
from tests.upstreams import WAIT

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


def test_known_to_be_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be kept whole never touches the disk; its beginning can be read again, as far as memory goes."""
    monkeypatch.setattr(_spool, "TemporaryFile", missing)
    spool = Spool(Replay(memory=4, disk=100), 105)
    assert not spool.uses_disk(5)
    spool.add(b"1234")
    assert not spool.uses_disk()
    assert not spool.uses_disk(1)
    assert (spool.overflown, everything(spool)) == (False, b"1234")
    spool.add(b"5")
    assert (spool.overflown, everything(spool)) == (True, b"1234")
    spool.close()


@pytest.mark.anyio
@pytest.mark.parametrize(("length", "files"), [(40, 1), (41, 0)])
async def test_bodies_know_their_length(monkeypatch: pytest.MonkeyPatch, length: int, files: int) -> None:
    """A body of either door goes to the disk only if its length allows that all of it is kept."""
    left = [BytesIO(), BytesIO()]
    monkeypatch.setattr(_spool, "TemporaryFile", lambda **_: left.pop())
    replay, content = Replay(memory=10, disk=30), b"x" * length

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": content}

    asgi = asgi_body.RequestBody(receive, None, replay)
    wsgi = wsgi_body.RequestBody({"wsgi.input": BytesIO(content)}, None, replay)
    for body in (asgi, wsgi):
        body.expect(length)
        body.keep()
    assert await asgi.read() == wsgi.read() == content
    assert [asgi.replayable, wsgi.replayable] == [bool(files)] * 2
    assert len(left) == 2 - 2 * files
    asgi.close()
    wsgi.close()


@pytest.mark.parametrize("content", [b"", b"ab", b"abcdef"])
def test_closed_spool_is_empty(content: bytes) -> None:
    """Closing forgets everything, and may be done twice."""
    spool = Spool(Replay(memory=3, disk=10))
    spool.add(content)
    spool.close()
    spool.close()
    assert spool.read(0) == b""


# Two threads


class SlowFile(BytesIO):
    """A file on a slow disk: between seeking and what is done next there is time for another thread."""

    def seek(self, offset: int, whence: int = 0) -> int:
        position = super().seek(offset, whence)
        time.sleep(0.003)
        return position


def test_two_threads_get_the_right_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread reads what is on the disk while the other adds to it: each byte is where it belongs."""
    monkeypatch.setattr(_spool, "TemporaryFile", lambda **_: SlowFile())
    spool, pieces = Spool(Replay(memory=0, disk=10_000)), [b"%d" % number * 100 for number in range(10)]
    spool.add(pieces[0])

    def add_the_rest() -> None:
        for piece in pieces[1:]:
            spool.add(piece)

    adding = threading.Thread(target=add_the_rest)
    adding.start()
    while adding.is_alive():
        seen = everything(spool, 100)
        assert seen == b"".join(pieces)[: len(seen)]
    adding.join()
    assert everything(spool) == b"".join(pieces)
    spool.close()


def test_closing_beside_adding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing while another thread opens the file leaves nothing open."""
    file, making, closed = BytesIO(), threading.Event(), threading.Event()

    def make(**_: Any) -> BytesIO:
        making.set()
        closed.wait(0.1)  # In vain, if closing waits for its turn.
        return file

    monkeypatch.setattr(_spool, "TemporaryFile", make)
    spool = Spool(Replay(memory=0, disk=100))
    adding = threading.Thread(target=spool.add, args=(b"x",))
    adding.start()
    assert making.wait(WAIT)
    spool.close()
    closed.set()
    adding.join()
    assert file.closed


# The disk


class NearlyFull(BytesIO):
    """A file on a disk that has room for one byte."""

    def write(self, data: Any) -> int:
        return super().write(data[:1])


def full(**_: Any) -> FileIO:
    """A file on a full disk."""
    return FileIO("/dev/full", "w+")


def nearly_full(**_: Any) -> BytesIO:
    """A file on such a disk."""
    return NearlyFull()


def missing(**_: Any) -> BytesIO:
    """No file, since there is no directory for it."""
    raise FileNotFoundError(2, "No usable temporary directory found")


@pytest.mark.parametrize("make", [full, nearly_full, missing])
def test_full_disk(monkeypatch: pytest.MonkeyPatch, make: Callable[..., Any]) -> None:
    """What does not fit on the disk cannot be read again; it is no error, and what comes later is not kept, either."""
    monkeypatch.setattr(_spool, "TemporaryFile", make)
    spool = Spool(Replay(memory=4, disk=100))
    spool.add(b"1234")
    assert not spool.overflown
    for _ in range(2):
        spool.add(b"56")
        assert (spool.overflown, spool.size) == (True, 4)
    spool.close()


def test_signed_body_without_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a signer has been given is sent whole under WSGI, too, where the disk is full or not there."""
    monkeypatch.setattr(_spool, "TemporaryFile", missing)
    whole = bytes(range(256)) * 400
    body = wsgi_body.RequestBody({"wsgi.input": BytesIO(whole)}, None, Replay(memory=40_000))
    body.expect(len(whole))
    assert body.collect(len(whole)) == whole
    body.rewind()
    pieces = []
    while not body.at_end:
        pieces.append(body.read())
    assert b"".join(pieces) == whole
    body.close()


def test_short_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a full disk took of a piece that did not fit is not part of what is kept."""
    monkeypatch.setattr(_spool, "TemporaryFile", nearly_full)
    spool = Spool(Replay(memory=4, disk=100))
    for piece in (b"1234", b"5", b"67"):
        spool.add(piece)
    assert (spool.overflown, spool.size) == (True, 5)
    assert everything(spool) == b"12345"
    spool.close()
