"""Distinct n-grams and how often each occurs, in memory that does not grow with the text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from model.scattered import Scattered

# N-grams that are sorted at a time: 170 MB where they are five words of two bytes.
SORTED_AT_A_TIME = 1 << 24
# Sets of n-grams that are counted to tell where to cut: by first word, and part of the second.
_SETS = 1 << 22
# Those that a set is divided into which is too large by itself, by its next words.
_SETS_OF_A_SET = 1 << 16


def word_type(size: int) -> np.dtype:
    """Of words of a vocabulary, the more significant byte first: rows are in their bytes' order."""
    return np.dtype(">u2" if size <= 1 << 16 else ">u4")


def keys_of(rows: np.ndarray) -> np.ndarray:
    """Rows of words as one value each, which numpy sorts and compares by its bytes."""
    rows = np.ascontiguousarray(rows)
    return rows.view(f"S{rows.dtype.itemsize * rows.shape[1]}").ravel()


def rows_of(keys: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The rows of `keys_of`."""
    return keys.view(dtype).reshape(len(keys), -1)


def count_rows(blocks: Callable[[], Iterator[np.ndarray]], size: int, order: int,
               scratch: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Distinct rows in ascending order and how often each is there, some at a time.

    Parameters
    ----------
    blocks : function
        Gives all rows, anew each time; it is called twice, and more often where a few first words
        begin more rows than can be sorted at a time.
    size : int
        Of the vocabulary.
    order : int
        Words of a row.
    scratch : path
        A file of this name is written, under a temporary name, where the rows are too many to be
        sorted at a time; it is removed.
    """
    dtype = word_type(size)
    sets = _Sets(size, order, _SETS)
    while sets.have_uncounted():
        for rows in blocks():
            sets.count(rows)
        sets.divide()
    ranges = list(sets.number_ranges())
    # Ranges of one n-gram are not sorted: it is enough to meet it.
    repeated: dict[int, np.ndarray] = {}
    sizes = [0 if alone else count for count, alone in ranges]
    are_alone = np.array([alone for _, alone in ranges], bool)
    with Scattered(sizes, np.dtype(f"S{dtype.itemsize * order}"), scratch) as scattered:
        for rows in blocks():
            keys, numbers = keys_of(rows), sets.numbers(rows)
            alone = are_alone[numbers]
            for number in np.unique(numbers[alone]).tolist():
                repeated[number] = keys[np.flatnonzero(numbers == number)[:1]]
            if alone.any():
                keys, numbers = keys[~alone], numbers[~alone]
            scattered.add(keys, numbers)
        for number, (count, _) in enumerate(ranges):
            if number in repeated:
                yield rows_of(repeated[number], dtype), np.array([count])
                continue
            keys = scattered.take(number)
            keys.sort()
            first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
            yield rows_of(keys[first], dtype), np.diff(first, append=len(keys))


class _Sets:
    """Sets of rows with the same first words, and ranges of such sets that can be sorted at a time.

    A set that is too large for that is divided in the same way, by its next words.

    Parameters
    ----------
    size : int
        Of the vocabulary.
    columns : int
        Words of a row.
    most : int
        Sets, about.
    """

    def __init__(self, size: int, columns: int, most: int):
        self._size = size
        self._parts = 1 if columns == 1 else max(1, min(size, most // size))
        # Words that the rows of a set share.
        self._shared = 2 if columns > 1 and self._parts == size else 1
        self._columns = columns
        self._in_sets = np.zeros(size * self._parts, "int64")
        self._ranges: list[tuple[int, int]] | None = None
        self._divided: dict[int, _Sets] = {}

    def have_uncounted(self) -> bool:
        """Whether there are sets, however deep, whose rows are to be counted."""
        return self._ranges is None or any(
            sets.have_uncounted() for sets in self._divided.values())

    def count(self, rows: np.ndarray) -> None:
        """Count rows, if they have not been counted yet."""
        if self._ranges is None:
            self._in_sets += np.bincount(self._sets(rows), minlength=len(self._in_sets))
        else:
            for sets, here in self._below(rows):
                sets.count(rows[here, self._shared:])

    def divide(self) -> None:
        """When all rows have been counted: cut into ranges, and divide what is too large."""
        if self._ranges is None:
            self._ranges = list(_ranges(self._in_sets))
            if self._shared < self._columns:
                self._divided = {
                    low: _Sets(self._size, self._columns - self._shared, _SETS_OF_A_SET)
                    for low, high in self._ranges
                    if self._in_sets[low:high].sum() > SORTED_AT_A_TIME}
        else:
            for sets in self._divided.values():
                sets.divide()

    def number_ranges(self, first: int = 0) -> Iterator[tuple[int, bool]]:
        """Number the ranges in ascending order; of each its rows, and if it is of one n-gram."""
        assert self._ranges is not None
        self._numbers = np.full(len(self._in_sets), -1, "int32")
        for low, high in self._ranges:
            if low in self._divided:
                for each in self._divided[low].number_ranges(first):
                    yield each
                    first += 1
            else:
                self._numbers[low:high] = first
                count = int(self._in_sets[low:high].sum())
                yield count, count > SORTED_AT_A_TIME
                first += 1

    def numbers(self, rows: np.ndarray) -> np.ndarray:
        """The number of each row's range."""
        found = self._numbers[self._sets(rows)]
        for sets, here in self._below(rows):
            found[here] = sets.numbers(rows[here, self._shared:])
        return found

    def _sets(self, rows: np.ndarray) -> np.ndarray:
        found = rows[:, 0].astype("int64") * self._parts
        if self._parts > 1:
            found += rows[:, 1].astype("int64") * self._parts // self._size
        return found

    def _below(self, rows: np.ndarray) -> Iterator[tuple[_Sets, np.ndarray]]:
        """The divided sets, and which rows are in each."""
        if self._divided:
            of_rows = self._sets(rows)
            for place, sets in self._divided.items():
                yield sets, np.flatnonzero(of_rows == place)


def _ranges(in_sets: np.ndarray) -> Iterator[tuple[int, int]]:
    """Ranges of sets, each of as many rows as can be sorted at a time, or of one set."""
    ends = np.cumsum(in_sets)
    low, done = 0, 0
    while done < ends[-1]:
        high = max(low + 1, int(np.searchsorted(ends, done + SORTED_AT_A_TIME, "right")))
        if ends[high - 1] > done:
            yield low, high
        low, done = high, ends[high - 1]
