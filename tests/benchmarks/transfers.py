"""Large bodies, down or up, every byte compared. A program of its own that prints what it saw as JSON.

`python -m tests.benchmarks.transfers PORT PATH CALLERS BYTES_UP SECONDS`
"""

import http.client
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median, quantiles

from tests.benchmarks.scenario import BLOCK, BODIES, CALLER_TOKEN, Comparison, body, uploaded

READ_SIZE = 2**18
TIMEOUT = 60
MIB = 2**20


def transfer(connection: http.client.HTTPConnection, path: str, sent: bytes | None) -> int:
    """Send or fetch one body; returns how many bytes were transferred, which is 0 if one of them was wrong."""
    fields = {"Authorization": f"Bearer {CALLER_TOKEN}"}
    connection.request("GET" if sent is None else "POST", path, sent, fields)
    response = connection.getresponse()
    if sent is not None:
        return len(sent) if response.read() == uploaded(len(sent)) else 0
    received = Comparison()
    while piece := response.read(READ_SIZE):
        received.feed(piece)
    length = len(BLOCK) * BODIES["/100m"][1]
    return length if received.equal and received.length == length and response.status == 200 else 0


def caller(port: int, path: str, sent: bytes | None, seconds: float) -> list[tuple[int, float]]:
    """Transfer bodies one after the other until the time is over; returns bytes and seconds of each."""
    seen: list[tuple[int, float]] = []
    end = time.perf_counter() + seconds
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    while not seen or time.perf_counter() < end:
        start = time.perf_counter()
        try:
            transferred = transfer(connection, path, sent)
        except (OSError, http.client.HTTPException) as error:
            print(repr(error), file=sys.stderr)
            connection.close()
            transferred = 0
        seen.append((transferred, time.perf_counter() - start))
    connection.close()
    return seen


def main(port: int, path: str, callers: int, size: int, seconds: int) -> None:
    """Run all callers, a thread each, and print the rate."""
    sent = body(size) if size else None
    start = time.perf_counter()
    with ThreadPoolExecutor(callers) as threads:
        futures = [threads.submit(caller, port, path, sent, seconds) for _ in range(callers)]
        seen = [one for future in futures for one in future.result()]
    elapsed = time.perf_counter() - start
    times = [duration * 1000 for _, duration in seen]
    report = {
        "rate": sum(transferred for transferred, _ in seen) / MIB / elapsed,
        "p50": median(times),
        "p99": quantiles(times, n=100, method="inclusive")[98],
        "failures": sum(not transferred for transferred, _ in seen),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:6]))
