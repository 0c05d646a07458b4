"""What is measured: which requests, from how many callers, and who takes part."""

from dataclasses import dataclass
from typing import Literal

Upstreams = Literal["plain", "tls", "service", "addresses"]
Load = Literal["requests", "streams", "transfers"]
Kind = Literal["proxy", "observed", "bare", "reference", "peer"]

FORWARDERS: frozenset[Kind] = frozenset({"proxy", "reference"})
CEILING: frozenset[Kind] = FORWARDERS | {"bare"}
ALL: frozenset[Kind] = CEILING | {"peer"}

UNITS = {"requests": "req/s", "streams": "events/s", "transfers": "MiB/s"}


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of load.

    Attributes:
        callers: How many ask at the same time, each with one request under way.
        kinds: Which targets take part.
        upstream: What the connections of the resolver lead to.
        size: Length of each request body in bytes; 0 is none.
        connections: How many the resolver knows.
        selected: How many of them are called, evenly spread, one after the other.
        threads: Whether targets take part that need a thread for each request.
        delay: Seconds that the upstream takes; the table says what the target adds.
    """

    name: str
    title: str
    path: str
    callers: int
    kinds: frozenset[Kind]
    load: Load = "requests"
    upstream: Upstreams = "plain"
    size: int = 0
    connections: int = 1
    selected: int = 1
    threads: bool = True
    delay: float = 0.0

    @property
    def unit(self) -> str:
        """What the rate counts."""
        return UNITS[self.load]


WORKLOADS = (
    Workload("json-1", "1 KB of JSON, 1 caller", "/json", 1, CEILING),
    Workload("json-32", "1 KB of JSON, 32 callers", "/json", 32, ALL | {"observed"}),
    Workload("json-256", "1 KB of JSON, 256 callers", "/json", 256, ALL),
    Workload("json-1000", "1 KB of JSON, 1,000 callers", "/json", 1000, CEILING),
    Workload("post-10k", "POST of 10 KB, kept for a second try, 32 callers", "/json", 32, CEILING, size=10_000),
    Workload("get-100k", "100 KB, 32 callers", "/100k", 32, CEILING),
    Workload("download-100m", "Download of 100 MiB, 4 callers", "/100m", 4, CEILING, load="transfers"),
    Workload(
        "upload-100m",
        "Upload of 100 MiB, 4 callers",
        "/upload",
        4,
        CEILING,
        load="transfers",
        upstream="service",
        size=100 * 2**20,
    ),
    Workload(
        "events-500",
        "500 open streams of 20 events a second each",
        "/events",
        500,
        CEILING,
        load="streams",
        upstream="service",
        threads=False,
    ),
    Workload(
        "slow-1000",
        "An upstream that takes 200 ms, 1,000 callers",
        "/slow",
        1000,
        FORWARDERS,
        upstream="service",
        threads=False,
        delay=0.2,
    ),
    Workload("tls-32", "1 KB of JSON over TLS, 32 callers", "/json", 32, FORWARDERS, upstream="tls"),
    Workload(
        "origins-1000",
        "1 KB of JSON from 1,000 origins in turn, 32 callers",
        "/json",
        32,
        FORWARDERS,
        upstream="addresses",
        connections=1000,
        selected=1000,
    ),
    Workload(
        "connections-100k",
        "1 KB of JSON, 100,000 connections in the resolver, 1,000 of them in turn, 32 callers",
        "/json",
        32,
        frozenset({"proxy"}),
        connections=100_000,
        selected=1000,
    ),
)
