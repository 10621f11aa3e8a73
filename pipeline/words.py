"""The words of many parts and their counts, added up in a tree: in bounded memory, however many."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from model.system.errors import UserError
from model.system.files import temporary_beside
from pipeline.tokens import Types

if TYPE_CHECKING:
    import polars

_FAN_IN = 16  # what is added up at a time, at each level of the tree
_MOST_IN_MEMORY = 1 << 22  # words: about 200 MB, and twice as much more while they are added up
_BLOCK = 1 << 16  # words that are read from the disk at a time


def add_up(parts: Iterable[Types], scratch: Path) -> Iterator[Types]:
    """The distinct words of all parts, with their counts in all of them together.

    Counts are added up as in a tree, some of a level to one of the next, as long as what comes of
    it can be kept in memory. Else it goes to the disk, sorted, and at the end all that is there is
    merged, range of words by range.

    Parameters
    ----------
    parts : iterable of Types
        Gone through once.
    scratch : path
        A file of this name is written, under a temporary name, where memory is too small; it is
        removed.

    Yields
    ------
    Types
        Blocks of words in the order of their code points, each word once; counts are int64.

    Raises
    ------
    UserError
        When the disk does not take the words.
    """
    levels: list[list[polars.DataFrame]] = []
    with contextlib.ExitStack() as stack:
        runs: _Runs | None = None
        for part in parts:
            _put(levels, 0, _frame(part))
            if sum(len(frame) for level in levels for frame in level) > _MOST_IN_MEMORY:
                runs = runs or stack.enter_context(_Runs(scratch))
                runs.write(_sum([frame for level in levels for frame in level]))
                levels.clear()
        rest = [frame for level in levels for frame in level]
        if runs is None:
            yield from _in_blocks(_sum(rest)) if rest else ()
            return
        if rest:
            runs.write(_sum(rest))
        levels.clear()
        del rest
        for frames in runs.ranges():
            yield from _in_blocks(_sum(frames))


def _in_blocks(frame: polars.DataFrame) -> Iterator[Types]:
    for start in range(0, len(frame), _BLOCK):
        yield _types(frame[start:start + _BLOCK])


def _put(levels: list[list[polars.DataFrame]], level: int, frame: polars.DataFrame) -> None:
    if level == len(levels):
        levels.append([])
    levels[level].append(frame)
    if len(levels[level]) == _FAN_IN:
        whole, levels[level] = _sum(levels[level]), []
        _put(levels, level + 1, whole)


def _frame(types: Types) -> polars.DataFrame:
    # Imported here: see model.data.tokenization.
    import polars

    words = polars.Series([types.lines.decode()] if types.lines else [], dtype=polars.String)
    return polars.DataFrame({"word": words.str.split("\n").explode() if types.lines else words,
                             "count": types.counts.astype(np.int64)})


def _sum(frames: list[polars.DataFrame]) -> polars.DataFrame:
    """Each word once, in order."""
    import polars

    return polars.concat(frames).group_by("word").agg(polars.col("count").sum()).sort("word")


def _types(frame: polars.DataFrame) -> Types:
    lines = frame["word"].str.join("\n").item() if len(frame) else ""
    return Types(lines.encode(), np.array(frame["count"]))


class _Block(NamedTuple):
    """Where some words of a run lie in the file, in order, and the first and the last of them."""

    first: str
    last: str
    offset: int
    lines: int
    words: int


class _Runs:
    """Sorted words on the disk, in runs; a context manager that removes the file."""

    def __init__(self, path: Path):
        self._path = temporary_beside(path)
        self._blocks: list[_Block] = []

    def __enter__(self) -> _Runs:
        with self._telling():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Without a buffer, which a full disk would keep from being emptied.
            self._file = open(self._path, "w+b", buffering=0)  # noqa: SIM115
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def write(self, run: polars.DataFrame) -> None:
        """Add a run, as of `_sum`."""
        for types in _in_blocks(run):
            words = types.words()
            self._blocks.append(_Block(
                words[0], words[-1], self._file.tell(), len(types.lines), len(words)))
            for content in (types.lines, types.counts.tobytes()):
                done = 0
                with self._telling():
                    while done < len(content):
                        done += self._file.write(content[done:])

    def ranges(self) -> Iterator[list[polars.DataFrame]]:
        """All words, those of one range of words after the other: few enough at a time."""
        import polars

        starts = sorted(block.first.encode() for block in self._blocks)
        blocks = max(1, _MOST_IN_MEMORY // (2 * _BLOCK))
        cuts = [*dict.fromkeys(starts[::blocks])]
        for low, high in zip(cuts, [*cuts[1:], None]):
            word, frames = polars.col("word"), []
            for block in self._blocks:
                if block.last.encode() >= low and (high is None or block.first.encode() < high):
                    inside = word >= low.decode()
                    if high is not None:
                        inside &= word < high.decode()
                    frames.append(self._read(block).filter(inside))
            yield frames

    def _read(self, block: _Block) -> polars.DataFrame:
        self._file.seek(block.offset)
        content = self._file.read(block.lines + 8 * block.words)
        return _frame(Types(content[:block.lines],
                            np.frombuffer(content, np.int64, block.words, block.lines)))

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f"cannot write {self._path}: {error}") from error
