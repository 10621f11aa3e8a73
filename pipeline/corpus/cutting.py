"""Where a part ends and the next begins: at borders that depend on the sentences themselves."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pipeline.corpus.hashing import mix
from pipeline.corpus.parts import Part, part_digest

_BORDER_SALT = 0xD1B54A32D192ED03
_LARGEST_PART_BYTES = 32 << 20  # a part is tokenized in memory, whatever its lines are like


class PartCutter:
    """Cuts a stream of sentences into parts at borders that depend on the sentences themselves.

    A border follows each sentence whose hash is a multiple of `sentences_per_part`, so that parts
    have about that size and an edit anywhere moves no later border. Safety valves for corpora such
    as one line repeated a million times: parts below 1/64 of that size are not ended, and at 8
    times that size or 32 MiB a part ends wherever that is.

    Parameters
    ----------
    sentences_per_part : int
        At least 1.

    References
    ----------
    A. Muthitacharoen, B. Chen, D. Mazieres: A low-bandwidth network file system. SOSP 2001
    (borders that depend on the content).
    """

    def __init__(self, sentences_per_part: int):
        self._sentences_per_part = np.uint64(sentences_per_part)
        self._least = max(1, sentences_per_part // 64)
        self._most = 8 * sentences_per_part
        self._pending: list[bytes] = []
        self._pending_bytes = 0

    def add(self, sentences: list[bytes], hashes: np.ndarray) -> Iterator[Part]:
        """Take more sentences (with their hashes), and yield the parts that are complete."""
        borders = np.flatnonzero(mix(hashes, _BORDER_SALT) % self._sentences_per_part == 0) + 1
        sizes = np.fromiter(map(len, sentences), dtype=np.int64, count=len(sentences)) + 1
        ends = np.concatenate([[0], np.cumsum(sizes)])  # byte ends of the sentences in this call
        start = 0
        while start < len(sentences):
            earliest = start + max(1, self._least - len(self._pending))
            found = np.searchsorted(borders, earliest)
            full = np.searchsorted(
                ends, ends[start] + _LARGEST_PART_BYTES - self._pending_bytes, side="left"
            )
            stop = min(
                int(borders[found]) if found < len(borders) else len(sentences) + 1,
                start + self._most - len(self._pending),
                max(int(full), start + 1),
            )
            self._pending += sentences[start:stop]
            self._pending_bytes += int(ends[min(stop, len(sentences))] - ends[start])
            if stop <= len(sentences):
                yield from self.finish()
            start = stop

    def is_empty(self) -> bool:
        """Whether nothing is left over: a part has just ended, or there was no sentence yet."""
        return not self._pending

    def finish(self) -> Iterator[Part]:
        """Yield the last part, if any sentence is left."""
        if self._pending:
            text = b"\n".join(self._pending) + b"\n"
            part = Part(text, part_digest(text), len(self._pending))
            self._pending, self._pending_bytes = [], 0
            yield part
