"""Inputs made out of others: bytes flipped, cut, repeated and spliced, lines moved, words of HTTP put in."""

from collections.abc import Callable, Sequence
from random import Random

MAX_SIZE = 2048
_BYTES = [bytes([value]) for value in range(256)]


class Mutator:
    """An endless source of inputs, the same ones for the same seed.

    Args:
        seeds: Well-formed and nearly well-formed inputs to start from.
        words: What is put in.
        line: What separates the lines of an input.
        seed: Decides about everything.
    """

    def __init__(self, seeds: Sequence[bytes], words: Sequence[bytes], line: bytes, seed: int) -> None:
        self._corpus = list(seeds)
        self._words = words
        self._line = line
        self._random = Random(seed).random
        self._ways: Sequence[Callable[[bytes], bytes]] = (
            self._change_byte,
            self._put_word_in,
            self._put_word_in,
            self._put_word_for_bytes,
            self._take_bytes_out,
            self._repeat_bytes,
            self._truncate,
            self._splice,
            self._move_line,
            self._move_line,
            self._put_line_in,
            self._put_line_in,
        )

    def keep(self, data: bytes) -> None:
        """Takes this input, which led to something new, for a further seed."""
        self._corpus.append(data)

    def next(self) -> bytes:
        """The next input: one of the corpus, changed up to five times."""
        random, ways = self._random, self._ways
        data = self._corpus[int(random() * len(self._corpus))]
        for _ in range(int(random() * random() * 6)):
            data = ways[int(random() * len(ways))](data)
        return data[:MAX_SIZE]

    def _at(self, data: bytes) -> int:
        return int(self._random() * (len(data) + 1))

    def _span(self, data: bytes) -> tuple[int, int]:
        start = self._at(data)
        return start, start + 1 + int(self._random() ** 3 * 40)

    def _word(self) -> bytes:
        return self._words[int(self._random() * len(self._words))]

    def _change_byte(self, data: bytes) -> bytes:
        at = self._at(data)
        return data[:at] + _BYTES[int(self._random() * 256)] + data[at + 1 :]

    def _put_word_in(self, data: bytes) -> bytes:
        at = self._at(data)
        return data[:at] + self._word() + data[at:]

    def _put_word_for_bytes(self, data: bytes) -> bytes:
        start, end = self._span(data)
        return data[:start] + self._word() + data[end:]

    def _take_bytes_out(self, data: bytes) -> bytes:
        start, end = self._span(data)
        return data[:start] + data[end:]

    def _repeat_bytes(self, data: bytes) -> bytes:
        start, end = self._span(data)
        return data[:end] + data[start:end] * int(1 + self._random() ** 8 * 200) + data[end:]

    def _truncate(self, data: bytes) -> bytes:
        return data[: self._at(data)]

    def _splice(self, data: bytes) -> bytes:
        other = self._corpus[int(self._random() * len(self._corpus))]
        return data[: self._at(data)] + other[self._at(other) :]

    def _move_line(self, data: bytes) -> bytes:
        lines = data.split(self._line)
        taken = lines[int(self._random() * len(lines))]
        lines[int(self._random() * len(lines))] = taken
        return self._line.join(lines)

    def _put_line_in(self, data: bytes) -> bytes:
        lines = data.split(self._line)
        lines.insert(int(self._random() * (len(lines) + 1)), self._word())
        return self._line.join(lines)
