"""One caller on a raw connection: sends what the plan says, leaves where it says so, and keeps what came."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field

from tests.host_plugins import CALLER_TOKEN
from tests.soak.plan import Plan, request_bytes
from tests.soak.planning import CALLER_FAULTS
from tests.soak.streams import Pace, hang_up, read_body, read_head
from tests.wire import Address, Fields, Framing, Message, framing_of, parse_head

PATIENCE = 25.0
SLOW = Pace(pause=0.01, piece=8 * 1024)
_HOST_REQUEST = b"GET /host HTTP/1.1\r\nHost: host.test\r\n\r\n"
HOST_ANSWER = b"GET /host\n"
_AUTHORIZATION = f"Authorization: Bearer {CALLER_TOKEN}\r\n".encode()
_LINES = b"%b /connections/bearer/proxy%b HTTP/1.1\r\nHost: host.test\r\n" + _AUTHORIZATION.replace(b"%", b"%%")


@dataclass(frozen=True, kw_only=True)
class Answer(Message):
    """What came back: the status is 0 where no whole head did."""

    status: int = 0
    head: bytes = b""
    fields: Fields = ()
    body: bytes = b""
    complete: bool = False
    late: bool = False
    next: bytes | None = None


@dataclass
class Caller:
    """A caller with a connection of its own, which it keeps where it may."""

    address: Address
    reconnected: int = 0
    _link: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = field(default=None, repr=False)

    async def perform(self, plan: Plan) -> Answer:
        """The exchange, from the caller's side."""
        reused = self._link is not None and plan.fault not in CALLER_FAULTS
        if plan.fault in CALLER_FAULTS:
            self.leave()
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await self._exchange(plan)
                if reused and not answer.head:
                    # The server had closed it; nothing of the request arrived, as the ledger will tell.
                    self.reconnected += 1
                    self.leave()
                    answer = await self._exchange(plan)
        except TimeoutError:
            self.leave()
            return Answer(late=True)
        if not plan.keeps or plan.fault or plan.pipelined or not answer.complete or _closes(answer):
            self.leave()
        return answer

    def leave(self) -> None:
        """Close the connection."""
        if self._link is not None:
            self._link[1].close()
            self._link = None

    async def _exchange(self, plan: Plan) -> Answer:
        if self._link is None:
            # Whoever is slow takes little ahead.
            limit = SLOW.piece if plan.fault == "slow-caller" else 64 * 1024
            self._link = await asyncio.open_connection(*self.address, limit=limit)
        reader, writer = self._link
        wire = _to_send(plan)
        sending = asyncio.create_task(_send(writer, wire, ends=plan.fault == "short-upload"))
        try:
            if plan.fault in ("leave-request", "leave-waiting"):
                await sending
                await asyncio.sleep(plan.cut * 0.03)
                hang_up(writer, abrupt=plan.abrupt)
                return Answer()
            return await self._read(plan, reader, writer)
        finally:
            sending.cancel()
            with suppress(asyncio.CancelledError):
                await sending

    async def _read(self, plan: Plan, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Answer:
        head = await read_head(reader)
        if not head.endswith(b"\r\n\r\n"):
            return Answer(head=head)
        line, fields = parse_head(head)
        status = int(line.split(b" ")[1])
        if plan.fault == "leave-response":
            body = await read_body(reader, *_framing(plan, status, fields), Pace(stop=int(plan.cut * plan.size)))
            hang_up(writer, abrupt=plan.abrupt)
        else:
            pace = SLOW if plan.fault == "slow-caller" else None
            body = await read_body(reader, *_framing(plan, status, fields), pace)
        answer = Answer(status=status, head=head, fields=fields, body=bytes(body.data), complete=body.complete)
        if plan.pipelined and plan.door == "asgi" and answer.complete and not _closes(answer):
            return Answer(**{**vars(answer), "next": await _host_answer(reader)})
        return answer


def _framing(plan: Plan, status: int, fields: Fields) -> tuple[Framing, int]:
    if plan.method == "HEAD" or status in (204, 304):
        return "none", 0
    return framing_of(Message(fields=fields), "close")


def _closes(answer: Answer) -> bool:
    return b"close" in b",".join(answer.values(b"connection")).lower()


async def _host_answer(reader: asyncio.StreamReader) -> bytes:
    head = await read_head(reader)
    length = Message(fields=parse_head(head)[1]).header(b"content-length")
    return bytes((await read_body(reader, "length", int(length or 0))).data)


def _to_send(plan: Plan) -> bytes:
    """What is sent of the request: all of it, or what the fault leaves of it, or what it makes of it."""
    if plan.fault == "malformed":
        return _malformed(plan)
    head, body = request_bytes(plan)
    whole = head + body
    if plan.fault == "leave-request":
        # The last eight bytes may be framing only: then all of the body would be there.
        return whole[: 1 + int(plan.cut * (len(whole) - 9))]
    if plan.fault == "short-upload":
        return head + body[: int(plan.cut * len(body))]
    return whole + (_HOST_REQUEST if plan.pipelined else b"")


def _malformed(plan: Plan) -> bytes:
    path = plan.path.encode()
    head, tag = _LINES % (b"POST", path), b"X-Soak: %d\r\n" % plan.number
    chunks = b"Transfer-Encoding: chunked\r\n"
    variants = (
        head + tag + b"Content-Length: 4\r\n" + chunks + b"\r\n0\r\n\r\n",
        head + tag + b"Content-Length: four\r\n\r\nfour",
        head + tag + chunks + b"\r\n4\r\nfour\r\nzz\r\nfour\r\n0\r\n\r\n",
        _LINES % (b"GET", b"/a/../.." + path) + tag + b"\r\n",
        head + b"X-Soak : %d\r\n\r\n" % plan.number,
        _LINES % (b"GET", path) + tag + b"X-Bad: a\x00b\r\n\r\n",
        b"\x16\x03\x01" + head + b"\r\n",
        head + tag + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    )
    return variants[int(plan.cut * len(variants))]


async def _send(writer: asyncio.StreamWriter, wire: bytes, *, ends: bool) -> None:
    with suppress(ConnectionError):  # Whoever answers early need not take the rest; the answer tells.
        writer.write(wire)
        await writer.drain()
        if ends:
            writer.write_eof()
