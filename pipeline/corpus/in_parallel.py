"""Files of a corpus read side by side, and cut as if they had been read one after the other.

Each process cuts a run of files as if the corpus began with it. Where it does not, only the
beginning can be wrong: as borders depend on the sentences alone, the cuts agree from the first
place on where both have one (`join`).
"""

from __future__ import annotations

import collections
import contextlib
import mmap
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, TimeoutError
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from model.system.errors import UserError
from model.system.files import temporary_beside
from model.system.processes import end_with_parent
from pipeline.corpus.cutting import PartCutter
from pipeline.corpus.files import CorpusFile
from pipeline.corpus.hashing import hash_sentences
from pipeline.corpus.parts import Part, part_sentences, publish_part
from pipeline.corpus.reading import RejectedLine, SentenceReader
from pipeline.corpus.splits import SPLITS, divide

COUNTED = ("bytes", "lines", "empty", "set_aside", "sentences")

# Stored bytes of the files that one process reads at a time: seconds, beside which starting it is
# nothing.
_RUN_BYTES = 64 << 20
# Results that are waited for, for each process: they hold beginnings and ends of runs in memory.
_AHEAD = 2
_SECONDS_BETWEEN_LOOKS = 0.5


@dataclass(frozen=True)
class How:
    """How files are read and cut: see `pipeline.corpus.publishing.split_corpus`."""

    parts_folder: Path
    rejected_lines_file: Path | None
    format: str
    max_line_bytes: int
    tokens: str
    drawn_shares: tuple[float, float]
    sentences_per_part: int


class Entry(NamedTuple):
    """A part as the manifest has it."""

    digest: str
    sentences: int
    bytes: int

    @classmethod
    def of(cls, part: Part) -> Entry:
        """The entry of a part."""
        return cls(part.digest, part.sentences, len(part.text))


@dataclass
class Pieces:
    """What a run of files gives for one split: sentences before the first cut, parts, the rest."""

    head: list[bytes] = field(default_factory=list)
    parts: list[Entry] = field(default_factory=list)
    tail: list[bytes] = field(default_factory=list)


class Read(NamedTuple):
    """What was read of a run of files: counts by file, pieces by split, a table of bad lines."""

    counts: list[tuple[CorpusFile, dict[str, int]]]
    pieces: dict[str, Pieces]
    rejected: Path | None


def read_files(files: Sequence[CorpusFile], how: How, processes: int,
               stop: Callable[[RejectedLine], None],
               progress: Callable[[int], None]) -> Iterator[Read]:
    """Read files in their order, several runs of them side by side where there are some.

    Parameters
    ----------
    files : sequence of CorpusFile
    how : How
    processes : int
        As many at most.
    stop : function
        Called with a bad line where these are not set aside; raises.
    progress : function
        Called with the number of bytes, as stored, that have been read of all files together.

    Yields
    ------
    Read
        Of each run, in order.

    Raises
    ------
    UserError
        As `SentenceReader`, and when a process was killed. Of several the first one's, in order.
    """
    runs = _runs(files)
    shared = mmap.mmap(-1, 8 * max(1, len(runs)))
    done = np.frombuffer(shared, np.int64)
    if len(runs) <= 1 or processes == 1:
        for number, run in enumerate(runs):
            yield _read_run(run, how, stop, done, number, lambda: progress(int(done.sum())))
        return
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(processes, context, _begin, (os.getpid(), done)) as pool:
        waiting: collections.deque[Future[Read]] = collections.deque()
        try:
            for number, run in enumerate(runs):
                waiting.append(pool.submit(_read_in_process, run, how, stop, number))
                if len(waiting) > _AHEAD * processes:
                    yield _result(waiting.popleft(), lambda: progress(int(done.sum())))
            while waiting:
                yield _result(waiting.popleft(), lambda: progress(int(done.sum())))
        finally:
            for each in waiting:
                each.cancel()


def _runs(files: Sequence[CorpusFile]) -> list[list[CorpusFile]]:
    runs: list[list[CorpusFile]] = []
    size = _RUN_BYTES
    for file in files:
        if size >= _RUN_BYTES:
            runs.append([])
            size = 0
        runs[-1].append(file)
        size += file.identity.size
    return runs


def _result(future: Future[Read], look: Callable[[], None]) -> Read:
    while True:
        look()
        try:
            return future.result(_SECONDS_BETWEEN_LOOKS)
        except TimeoutError:
            continue
        except BrokenProcessPool as error:
            raise UserError("a process that read the corpus was killed, perhaps for want of memory "
                            "(the kernel's log tells: dmesg)") from error


_done: np.ndarray  # in the processes of the pool, how many bytes each run has read


def _begin(parent: int, done: np.ndarray) -> None:
    global _done
    end_with_parent(parent, signal.SIGKILL)
    _done = done


def _read_in_process(run: Sequence[CorpusFile], how: How, stop: Callable[[RejectedLine], None],
                     number: int) -> Read:
    return _read_run(run, how, stop, _done, number, lambda: None)


def _read_run(run: Sequence[CorpusFile], how: How, stop: Callable[[RejectedLine], None],
              done: np.ndarray, number: int, look: Callable[[], None]) -> Read:
    pieces = {split: Pieces() for split in SPLITS}
    cutters = {split: PartCutter(how.sentences_per_part) for split in SPLITS}
    counts = []
    rejected = None
    with contextlib.ExitStack() as stack:
        if how.rejected_lines_file:
            rejected = temporary_beside(how.rejected_lines_file.with_suffix(f".{number}.tsv"))
            rejected.parent.mkdir(parents=True, exist_ok=True)
            table = stack.enter_context(_table(rejected))

        def handle(bad: RejectedLine) -> None:
            if rejected is None:
                stop(bad)
            table.write(bad.row())

        def advance(count: int) -> None:
            done[number] += count
            look()

        for file in run:
            of_file = dict.fromkeys(COUNTED, 0)
            reader = SentenceReader(
                file.path, size=file.identity.size, format=how.format,
                max_line_bytes=how.max_line_bytes, tokens=how.tokens, on_bad_line=handle,
                counts=of_file, progress=advance)
            drawn = file.split == "train" and how.drawn_shares != (0.0, 0.0)
            for sentences in iter(reader.block, None):
                hashes = hash_sentences(sentences)
                divided = (divide(sentences, hashes, *how.drawn_shares) if drawn else
                           [(file.split, sentences, hashes)])
                for split, own, own_hashes in divided:
                    for part in cutters[split].add(own, own_hashes):
                        _keep(pieces[split], part, how.parts_folder)
            counts.append((file, of_file))
    for split in SPLITS:
        for part in cutters[split].finish():
            sentences = part.text.split(b"\n")[:-1]
            if pieces[split].head:
                pieces[split].tail = sentences
            else:
                pieces[split].head = sentences
    return Read(counts, pieces, rejected)


@contextlib.contextmanager
def _table(path: Path) -> Iterator[TextIO]:
    """A file to write to, which is removed where reading fails."""
    try:
        with open(path, "w", encoding="utf-8", newline="\n") as table:
            yield table
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _keep(pieces: Pieces, part: Part, folder: Path) -> None:
    """The first part may not be one where the run is not the corpus's first: see `join`."""
    if not pieces.head:
        pieces.head = part.text.split(b"\n")[:-1]
    else:
        publish_part(part, folder)
        pieces.parts.append(Entry.of(part))


def join(cutter: PartCutter, pieces: Pieces, folder: Path) -> Iterator[Entry]:
    """Go on with a cut where another run of files follows.

    Parameters
    ----------
    cutter : PartCutter
        With what is left of the runs before.
    pieces : Pieces
    folder : pathlib.Path
        Where parts are published.

    Yields
    ------
    Entry
        The parts that are complete; published.
    """
    def add(sentences: list[bytes]) -> Iterator[Entry]:
        for part in cutter.add(sentences, hash_sentences(sentences)):
            publish_part(part, folder)
            yield Entry.of(part)

    yield from add(pieces.head)
    for entry in pieces.parts:
        # From where nothing is left over, both cut at the same places.
        if cutter.is_empty():
            yield entry
        else:
            yield from add(part_sentences(folder, entry.digest))
    yield from add(pieces.tail)
