"""The bytes that the upstream answers with: as they should be, and as they should not."""

import random

from tests.soak.plan import Plan, body_of
from tests.upstreams import response
from tests.wire import chunked

# Seconds to wait, then bytes to send.
Step = tuple[float, bytes]

INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n"
REJECTED = 120


def rejection(plan: Plan) -> bytes:
    """What says that the credential has expired."""
    whole = response(401, ((b"X-Soak", b"%d" % plan.number),), rejected_body(plan), reason=b"Unauthorized")
    return whole.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if plan.method == "HEAD" else whole


def rejected_body(plan: Plan) -> bytes:
    """The body of that."""
    return body_of(plan, b"rejected", REJECTED)


def head_of(plan: Plan) -> bytes:
    """The head of the answer."""
    lines = [b"HTTP/1.1 %d Fine" % plan.status, b"X-Soak: %d" % plan.number]
    if plan.events:
        lines.append(b"Content-Type: text/event-stream")
    if plan.status not in (204, 304):
        if plan.framing == "length":
            lines.append(b"Content-Length: %d" % plan.size)
        elif plan.framing == "chunked":
            lines.append(b"Transfer-Encoding: chunked")
    if plan.closes or plan.framing == "close":
        lines.append(b"Connection: close")
    return b"\r\n".join([*lines, b"", b""])


def _framed(plan: Plan) -> bytes:
    if plan.bodiless:
        return b""
    if plan.framing != "chunked":
        return plan.answer_body
    body, step = plan.answer_body, plan.size // (1 + plan.number % 5) + 1
    return chunked(*(body[at : at + step] for at in range(0, plan.size, step)))


def answer_steps(plan: Plan) -> list[Step]:
    """A proper answer, in as many pieces as the plan has."""
    wire = INTERIM * plan.interim + head_of(plan) + _framed(plan)
    if plan.fault == "extra-bytes":
        wire += b"HTTP/1.1 200 OK\r\nX-Soak: 0\r\nContent-Length: 4\r\n\r\nevil"
    wait = 0.02 + plan.cut * 0.15 if plan.fault == "leave-waiting" else 0.0
    step = len(wire) // plan.pieces + 1
    pieces = [wire[at : at + step] for at in range(0, len(wire), step)]
    return [(0.002 + plan.cut * 0.02 if index else wait, piece) for index, piece in enumerate(pieces)]


def broken_steps(plan: Plan) -> list[Step] | None:
    """An answer that breaks off or lies; None where the plan has none."""
    head, body = head_of(plan), _framed(plan)
    first, rest = head.split(b"\r\n", 1)
    size = b"Content-Length: %d\r\n" % plan.size
    match plan.fault:
        case "reset-before" | "close-before" | "hang-before":
            return []
        case "cut-head" | "hang-head":
            return [(0.0, head[: 1 + int(plan.cut * (len(head) - 2))])]
        case "cut-body" | "hang-body":
            return [(0.0, head), (0.003, body[: int(plan.cut * len(body))])]
        case "bad-chunk":
            return [(0.0, head + body[: body.rindex(b"0\r\n\r\n")] + b"zz\r\nevil\r\n0\r\n\r\n")]
        case "both-framings":
            return [(0.0, first + b"\r\n" + size + rest + body)]
        case "two-lengths":
            return [(0.0, first + b"\r\nContent-Length: %d\r\n" % (plan.size + 1) + rest + body)]
        case "garbage":
            return [(0.0, b"\x16" + random.Random(plan.number).randbytes(200))]
        case "large-head":
            return [(0.0, first + b"\r\nX-Large: " + b"x" * 70 * 1024 + b"\r\n" + rest + body)]
        case "bad-field":
            return [(0.0, first + b"\r\nX-Bad: a\x00b\r\n" + rest + body)]
        case "endless-interim":
            return [(0.0, INTERIM * 9 + head + body)]
        case "switch":
            return [(0.0, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nevil")]
    return None
