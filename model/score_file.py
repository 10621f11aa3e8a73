"""Scores of a text that are read several times, in memory that does not grow with the text."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .system.errors import UserError


class ScoreFile:
    """Arrays of scores in a file without a name, which is gone when this process is.

    Iterated, it gives the arrays in the order in which they were appended, always from the first.

    Parameters
    ----------
    folder : path
        On whose disk the file is.
    """

    def __init__(self, folder: str | os.PathLike):
        self._folder = Path(folder)
        self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
        self._arrays: list[tuple[np.dtype, tuple[int, ...]]] = []

    def append(self, scores: np.ndarray) -> None:
        """Keep an array as it is.

        Raises
        ------
        UserError
            When the disk does not take it.
        """
        try:
            self._file.seek(0, os.SEEK_END)
            self._file.write(np.ascontiguousarray(scores).data)
            self._file.flush()
        except OSError as error:
            raise UserError(f"the scores cannot be kept in {self._folder}: {error}. Nothing was "
                            "published; check the free space.") from error
        self._arrays.append((scores.dtype, scores.shape))

    def __iter__(self) -> Iterator[np.ndarray]:
        begin = 0
        for dtype, shape in self._arrays:
            # Other readers of this file may have been elsewhere in it.
            self._file.seek(begin)
            scores = np.empty(shape, dtype)
            self._file.readinto(scores.data)
            begin += scores.nbytes
            yield scores
