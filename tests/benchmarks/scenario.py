"""What every target is asked and what it has to answer, on whichever side of the proxy."""

import json
import os
import random
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

CALLER_TOKEN = "caller-token"
UPSTREAM_TOKEN = "upstream-token"

PROXY_PREFIX = "/connections/c0/proxy"
BARE_PREFIX = "/bare"

SETTINGS_VARIABLE = "BENCHMARK_SETTINGS"
"""The environment variable that tells a target where its settings are."""

JSON = b'{"data":"' + b"x" * 1013 + b'"}'
BLOCK = random.Random(0).randbytes(2**20)
"""Larger bodies are repetitions of this one, so that no program has to hold one of them."""
BODIES = {"/json": (JSON, 1), "/100k": (BLOCK[: 100 * 1024], 1), "/100m": (BLOCK, 100)}
"""The piece that each path answers, and how often."""

SLOW_SECONDS = 0.2
EVENT_SECONDS = 0.05
"""How long the upstream waits before an answer, and between two events of a stream."""
EVENT_PADDING = b"x" * 120

_TWICE = BLOCK * 2


@dataclass(frozen=True, slots=True)
class Settings:
    """What a target is told.

    Attributes:
        connections: The base URL of each connection, by its id: `c0`, `c1`, and so on.
        authority: The file with the certificate authority of an upstream on https.
    """

    connections: Mapping[str, str]
    authority: str

    def save(self, path: Path) -> None:
        """Write them where `load` finds them."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        return cls(**json.loads(path.read_text()))


def own_settings() -> Settings:
    """Return the settings of the target in which this runs."""
    return Settings.load(Path(os.environ[SETTINGS_VARIABLE]))


class Comparison:
    """Compares a body with `BLOCK`, repeated for ever, while it comes."""

    def __init__(self) -> None:
        self.length = 0
        self.equal = True

    def feed(self, piece: bytes) -> None:
        """Take the next piece, which is no longer than `BLOCK`."""
        self.equal = self.equal and _TWICE.startswith(piece, self.length % len(BLOCK))
        self.length += len(piece)

    def answer(self) -> bytes:
        """Return what an upload is answered with; `uploaded` is what it should be."""
        return uploaded(self.length if self.equal else -1)


def uploaded(length: int) -> bytes:
    """Return the answer to an upload that arrived as it was sent."""
    return b'{"bytes":%d}' % length


def body(length: int) -> bytes:
    """Return a request body."""
    return BLOCK * (length // len(BLOCK)) + BLOCK[: length % len(BLOCK)]


def event(number: int) -> bytes:
    """Return an event that says when it was sent, on a clock that all processes share."""
    return b"data: %d %d %s\n\n" % (number, time.monotonic_ns(), EVENT_PADDING)
