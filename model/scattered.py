"""Keys that are too many to be sorted in memory, put where those of one range can be."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from model.system.errors import UserError
from model.system.files import temporary_beside


class Scattered:
    """Keys by the range that they lie in: in memory where there is one, on the disk where more.

    A context manager that removes the file.

    Parameters
    ----------
    sizes : sequence of int
        How many keys there are in each range.
    dtype : numpy.dtype
        Of the keys.
    scratch : path
        A file of this name is written, under a temporary name, where there is more than one range.

    Raises
    ------
    UserError
        From `add`, when the disk does not take the keys.
    """

    def __init__(self, sizes: Sequence[int], dtype: np.dtype, scratch: Path):
        self._sizes, self._dtype = sizes, dtype
        # Where the next key of each range goes.
        self._places = np.concatenate([[0], np.cumsum(sizes)]).astype("int64")[:-1]
        self._path = temporary_beside(scratch) if len(sizes) > 1 else None
        self._memory = np.empty(sum(sizes) if self._path is None else 0, dtype)

    def __enter__(self) -> Scattered:
        if self._path is not None:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        return self

    def __exit__(self, *_: object) -> None:
        if self._path is not None:
            os.close(self._file)
            self._path.unlink(missing_ok=True)

    def add(self, keys: np.ndarray, ranges: np.ndarray) -> None:
        """Take keys, with the number of the range of each."""
        order = np.argsort(ranges, kind="stable")
        counts = np.bincount(ranges, minlength=len(self._sizes))
        sorted_keys = keys[order]
        done = 0
        for number in np.flatnonzero(counts).tolist():
            some = sorted_keys[done:done + counts[number]]
            self._put(some, int(self._places[number]))
            self._places[number] += len(some)
            done += len(some)

    def _put(self, keys: np.ndarray, place: int) -> None:
        if self._path is None:
            self._memory[place:place + len(keys)] = keys
            return
        content, offset = keys.view("u1").data, place * self._dtype.itemsize
        try:
            while content:
                written = os.pwrite(self._file, content, offset)
                content, offset = content[written:], offset + written
        except OSError as error:
            raise UserError(f"cannot write {self._path}: {error}") from error

    def take(self, number: int) -> np.ndarray:
        """The keys of a range, when all have been added."""
        if self._path is None:
            return self._memory
        size = self._sizes[number]
        start = int(self._places[number]) - size
        return np.fromfile(self._path, self._dtype, size, offset=start * self._dtype.itemsize)
