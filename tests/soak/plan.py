"""What happens in one exchange. Caller, upstream and judge derive the same plan from a seed and a number."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from tests.host_plugins import CALLER_TOKEN
from tests.wire import Framing, chunked

Door = Literal["asgi", "wsgi"]

KIB = 1024
# What the host application may keep of a request for its replay: some in memory, some on the disk.
REPLAY_MEMORY = 64 * KIB
REPLAY_DISK = 1024 * KIB
IDEMPOTENT = frozenset({"GET", "HEAD", "PUT"})
_TAG = b"<soak %d %b>"
# A tag stands in every block of this size, so that any piece of a body tells whose it is.
_BLOCK = KIB


@dataclass(frozen=True)
class Plan:
    """One exchange.

    Attributes:
        seed: Of the whole soak.
        number: Which of its exchanges; stands in the URL.
        door: Through which door the caller comes.
        method: Of the request.
        selector: The connection that is called.
        token: Whether the caller's token is the right one.
        upload: Bytes of the request's body; None is no body.
        upload_chunked: Whether it is sent chunked.
        status: Of the upstream's answer.
        size: Bytes of the answer's body.
        framing: How the answer's body is delimited.
        events: Whether it is an event stream.
        interim: How many interim responses come before.
        pieces: In how many pieces the answer is written, with pauses between.
        closes: Whether the upstream says `Connection: close`.
        keeps: Whether the caller keeps its connection.
        version: The caller's HTTP version.
        pipelined: Whether the caller sends a request to the host right behind.
        fault: What goes wrong.
        cut: Where, as a part of the whole.
        abrupt: Whether a connection ends by a reset.
    """

    seed: int
    number: int
    door: Door
    method: str = "GET"
    selector: str = "bearer"
    token: bool = True
    upload: int | None = None
    upload_chunked: bool = False
    status: int = 200
    size: int = 0
    framing: Framing = "length"
    events: bool = False
    interim: int = 0
    pieces: int = 1
    closes: bool = False
    keeps: bool = True
    version: str = "1.1"
    pipelined: bool = False
    fault: str | None = None
    cut: float = 0.0
    abrupt: bool = False

    @property
    def path(self) -> str:
        """What the upstream is asked for."""
        return f"/soak/{self.number}"

    @property
    def idempotent(self) -> bool:
        """Whether the request may be sent again."""
        return self.method in IDEMPOTENT

    @property
    def replayable(self) -> bool:
        """Whether the proxy keeps the whole body for a second time."""
        return (self.upload or 0) <= REPLAY_MEMORY + REPLAY_DISK

    @property
    def refused(self) -> int | None:
        """The status by which the proxy refuses it unasked."""
        if not self.token:
            return 401
        return 404 if self.selector == "unknown" else None

    @property
    def bodiless(self) -> bool:
        """Whether the answer has no body, whatever its fields say."""
        return self.method == "HEAD" or self.status in (204, 304)

    @cached_property
    def request_body(self) -> bytes:
        """The body that the caller sends."""
        return body_of(self, b"request", self.upload or 0)

    @cached_property
    def answer_body(self) -> bytes:
        """The body that the upstream answers with."""
        return body_of(self, b"answer", self.size)

    def describe(self) -> str:
        """What to say about it, so that it can be repeated."""
        changed = {name: value for name, value in vars(self).items() if name in _DEFAULTS and value != _DEFAULTS[name]}
        told = " ".join(f"{name}={value}" for name, value in changed.items())
        return f"--seed {self.seed} --door {self.door} --only {self.number}: {self.method} {told}"


_DEFAULTS: dict[str, Any] = {
    name: field.default
    for name, field in Plan.__dataclass_fields__.items()
    if name not in ("seed", "number", "door", "method")
}


def body_of(plan: Plan, direction: bytes, size: int) -> bytes:
    """A body that no other exchange has any block of."""
    tag = _TAG % (plan.number, direction)
    noise = hashlib.shake_128(b"%d %b" % (plan.seed, tag)).digest(size)
    return b"".join((tag + noise[at : at + _BLOCK])[:_BLOCK] for at in range(0, size, _BLOCK))[:size]


def request_bytes(plan: Plan) -> tuple[bytes, bytes]:
    """Head and body of the caller's request, as they are on the wire."""
    token = CALLER_TOKEN if plan.token else "another-token"
    lines = [
        f"{plan.method} /connections/{plan.selector}/proxy{plan.path} HTTP/{plan.version}",
        "Host: host.test",
        f"Authorization: Bearer {token}",
        f"X-Soak: {plan.number}",
    ]
    body = plan.request_body
    if plan.upload is not None and plan.upload_chunked:
        lines.append("Transfer-Encoding: chunked")
        body = chunked(*_split(body, 1 + plan.number % 7))
    elif plan.upload is not None:
        lines.append(f"Content-Length: {plan.upload}")
    if not plan.keeps:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode(), body


def _split(body: bytes, count: int) -> list[bytes]:
    step = len(body) // count + 1
    return [body[at : at + step] for at in range(0, len(body), step)]
