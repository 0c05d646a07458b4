"""The upstream of the soak: does what the plan says, and notes what it sees."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from tests.soak.answers import Step, answer_steps, broken_steps, rejection
from tests.soak.ledger import Arrivals, Ledger, credential_of
from tests.soak.plan import Plan
from tests.soak.streams import hang_up, read_body, read_head
from tests.wire import Message, framing_of, parse_head

# Seconds after which a hanging upstream gives up by itself.
HANG = 8.0
READ_LIMIT = 256 * 1024


class Upstream:
    """Two origins: one that keeps its connections, and one that closes them when they are idle.

    Args:
        plan_of: The plan of an exchange by its number.
        ledger: Where to note what comes.

    Attributes:
        open: How many connections there are.
        errors: What failed in here.
    """

    def __init__(self, plan_of: Callable[[int], Plan], ledger: Ledger) -> None:
        self._plan_of = plan_of
        self._ledger = ledger
        self.open = 0
        self.errors: list[BaseException] = []
        self._servers: list[asyncio.Server] = []

    async def start(self) -> list[str]:
        """Listen; the URLs of both origins."""
        self._servers = [
            await asyncio.start_server(self._converse, "127.0.0.1", 0, limit=READ_LIMIT, backlog=512) for _ in range(2)
        ]
        return [f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}" for server in self._servers]

    async def stop(self) -> None:
        """Listen no more, and see the last connections out, whose other ends are gone."""
        for server in self._servers:
            server.close()
        async with asyncio.timeout(HANG):
            while self.open:  # noqa: ASYNC110 -- many may end at once
                await asyncio.sleep(0.01)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            while (head := await read_head(reader)).endswith(b"\r\n\r\n"):
                if not await self._exchange(head, reader, writer):
                    break
        except ConnectionError:
            pass  # The proxy let go of it, as it should where its caller has left.
        except Exception as error:
            self.errors.append(error)
        finally:
            self.open -= 1
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _exchange(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answers one request; whether another may follow."""
        line, fields = parse_head(head)
        number = line.split(b" ")[1].partition(b"?")[0].rpartition(b"/")[2]
        if not number.isdigit():
            self._ledger.unplanned.append(repr(line))
            return False
        plan, message = self._plan_of(int(number)), Message(fields=fields)
        entry = self._ledger.begin(plan, head)
        limit = (plan.upload or 0) // 2 if plan.fault == "reset-upload" else None
        framing, length = framing_of(message, "none")
        body = await read_body(reader, framing, length, limit=limit)
        self._ledger.end(plan, body)
        if plan.fault == "reset-upload" or not body.complete:
            hang_up(writer, abrupt=True)
            return False
        return await self._answer(plan, entry, message, reader, writer)

    async def _answer(
        self,
        plan: Plan,
        entry: Arrivals,
        message: Message,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        if plan.selector == "expiring" and entry.rejected is None:
            entry.rejected = credential_of(message)
            writer.write(rejection(plan))
            return True
        if plan.fault == "reset-once" and entry.heads == 1:
            hang_up(writer, abrupt=True)
            return False
        broken = broken_steps(plan)
        await _play(writer, answer_steps(plan) if broken is None else broken)
        if plan.fault in ("hang-before", "hang-head", "hang-body"):
            with suppress(TimeoutError):
                await asyncio.wait_for(reader.read(1), HANG)
        if broken is not None:
            hang_up(writer, abrupt=_abrupt(plan))
            return False
        if plan.fault == "idle-close":
            await asyncio.sleep(plan.cut * 0.02)
            hang_up(writer, abrupt=plan.abrupt)
            return False
        return not plan.closes and plan.framing != "close" and plan.fault != "extra-bytes"


def _abrupt(plan: Plan) -> bool:
    if plan.fault == "reset-before":
        return True
    if plan.fault == "close-before":
        return False
    # The plain end of a body that is delimited by it would make it a whole one.
    return plan.abrupt or (plan.framing == "close" and plan.fault in ("cut-body", "hang-body"))


async def _play(writer: asyncio.StreamWriter, steps: list[Step]) -> None:
    for pause, data in steps:
        if pause:
            await asyncio.sleep(pause)
        writer.write(data)
        await writer.drain()
