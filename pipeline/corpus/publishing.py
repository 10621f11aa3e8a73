"""Stage 1: from text files to parts, each a text of one sentence a line under its own digest.

A sentence's split (train, valid or test) and the borders between parts depend on hashes of the
sentences' own texts and on nothing else. So a sentence never changes split when others come or go,
repeated sentences lie on one split, and an edit anywhere changes the part it lies in and at most
one neighbour. Files are read in an order that depends on how each begins, so a file's name does not
matter; an edit at the beginning of one of several files can move it, which changes the parts at the
places where it was and where it comes.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Hashable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from model.system.errors import BadInput
from model.system.files import publish
from model.system.terminal import one_line
from pipeline.corpus.cutting import PartCutter
from pipeline.corpus.files import Corpus, CorpusFile, claim
from pipeline.corpus.in_parallel import COUNTED, Entry, How, join, read_files
from pipeline.corpus.parts import publish_part
from pipeline.corpus.reading import RejectedLine, digest_text
from pipeline.corpus.splits import SPLITS, check_splits

_BEGINNING_BYTES = 1024  # of a file: what the order of files depends on, and few edits change


def split_corpus(
    corpus: Corpus,
    parts_folder: Path,
    rejected_lines_file: Path,
    *,
    format: str = "auto",
    on_bad_line: str = "stop",
    valid_share: float = 0.01,
    test_share: float = 0.01,
    sentences_per_part: int = 16000,
    max_line_bytes: int = 32768,
    tokens: str = "words",
    processes: int = 1,
    progress: Callable[[int], None] | None = None,
) -> dict:
    """Read a corpus and publish its parts.

    Parameters
    ----------
    corpus : Corpus
        Where it gives no files for validation or test, these splits are drawn from the rest by
        `pipeline.corpus.splits.choose_splits`; all sentences of a given one belong to its split.
    parts_folder : pathlib.Path
        Parts are published here as `<part_digest>.txt`, a sentence and a line end each;
        those already there are left as they are.
    rejected_lines_file : pathlib.Path
        Where bad lines go: a table of file, line, byte offset, reason and raw bytes (escaped as in
        Python), tabs between. Written only with ``on_bad_line="set_aside"``.
    format, max_line_bytes, tokens
        See `pipeline.corpus.reading.SentenceReader`.
    on_bad_line : {"stop", "set_aside"}
        What to do with a line that is not valid UTF-8, holds a NUL byte, is too long, lacks the
        Leipzig corpora's id, or is tokenized already and holds a border within.
    valid_share, test_share : float
        Shares of the splits that are drawn.
    sentences_per_part : int
        The expected size of a part.
    processes : int
        That read files side by side, where these are many millions of bytes; what comes of it is
        the same.
    progress : callable, optional
        Called with the number of bytes, as stored, that have been read of all files together.

    Returns
    -------
    dict
        The manifest, made of what JSON can hold: "sides", for each split the list of its parts in
        order, each with "digest", "sentences" and "bytes"; "counts" of "files", "bytes", "lines",
        "empty", "set_aside" and "sentences"; "files", for each file of `corpus`
        "side" (of its own sentences before any is drawn), "path", "sentences" and "bytes"
        (decompressed); and "remarks", lines on what may not be meant.

    Raises
    ------
    UserError
        On a corpus that is empty, unreadable, damaged, or changes while it is read; on the first
        bad line, unless they are set aside; on a split without sentences.
    """
    drawn_shares = (0.0 if corpus.patterns["valid"] else valid_share,
                    0.0 if corpus.patterns["test"] else test_share)

    parts: dict[str, list[dict]] = {split: [] for split in SPLITS}
    cutters = {split: PartCutter(sentences_per_part) for split in SPLITS}
    counts = dict.fromkeys(COUNTED, 0)
    file_counts = {}
    beginnings = _beginnings(corpus.files)
    ordered = sorted(corpus.files, key=lambda file: (beginnings[file], file.digest))
    set_aside = on_bad_line == "set_aside"
    how = How(parts_folder, rejected_lines_file if set_aside else None, format, max_line_bytes,
              tokens, drawn_shares, sentences_per_part)
    rejecting = _rejected_table(rejected_lines_file) if set_aside else contextlib.nullcontext(None)
    with rejecting as table:
        for read in read_files(ordered, how, processes, _stop, progress or (lambda done: None)):
            for file, found in read.counts:
                for name, count in found.items():
                    counts[name] += count
                file_counts[file] = {"side": file.split, "path": one_line(file.path),
                                     "sentences": found["sentences"], "bytes": found["bytes"]}
            if read.rejected and table:
                with open(read.rejected, "rb") as rows:
                    shutil.copyfileobj(rows, table)
                read.rejected.unlink()
            for split, pieces in read.pieces.items():
                parts[split] += [entry._asdict() for entry in
                                 join(cutters[split], pieces, parts_folder)]
        for split in SPLITS:
            for part in cutters[split].finish():
                publish_part(part, parts_folder)
                parts[split].append(Entry.of(part)._asdict())
        _check_rejected(counts)
        check_splits(parts, corpus.patterns, counts, drawn_shares, parts_folder)
        in_order = {file: file_counts[file] for file in corpus.files}
        remarks = _compare_contents(in_order, beginnings)
        corpus.check_unchanged()
    return {"sides": parts, "counts": {"files": len(in_order), **counts},
            "files": list(in_order.values()), "remarks": remarks}


def _beginnings(files: Iterable[CorpusFile]) -> dict[CorpusFile, bytes]:
    """Digests of how each file begins.

    They give the order of reading: names are nothing to it, and few edits change it. Parts run
    across files, so another order makes other parts.
    """
    return {file: digest_text(file.path, file.identity.size, _BEGINNING_BYTES) for file in files}


def _check_rejected(counts: dict[str, int]) -> None:
    """Refuse a corpus most of whose lines were rejected."""
    if 2 * counts["set_aside"] > counts["lines"] - counts["empty"]:
        raise BadInput(
            f"more than half of the lines of the corpus, {counts['set_aside']:,} of "
            f"{counts['lines'] - counts['empty']:,}, are not valid, so what is left is hardly "
            "what was meant. With on_bad_line=stop the first is told with its place."
        )


def _compare_contents(
    counts: dict[CorpusFile, dict], beginnings: dict[CorpusFile, bytes]
) -> list[str]:
    """Refuse equal texts, however compressed, on two splits, and tell of those on one."""
    alike: dict[tuple, list[CorpusFile]] = {}
    for file, of_file in counts.items():
        if of_file["sentences"]:
            key = (beginnings[file], of_file["bytes"], of_file["sentences"])
            alike.setdefault(key, []).append(file)
    owners: dict[Hashable, tuple[str, Path]] = {}
    repeated = []
    for files in alike.values():
        for file in files if len(files) > 1 else []:
            digest = digest_text(file.path, file.identity.size)
            first = claim(owners, digest, file.split, file.path, "hold the same text")
            if first != file.path:
                repeated.append(f"{one_line(file.path)} repeats the text of {one_line(first)}")
    if not repeated:
        return []
    more = f"; and {len(repeated) - 1:,} more files do so" if len(repeated) > 1 else ""
    return [f"{repeated[0]}{more}: it counts as often as it is there"]


def _stop(bad: RejectedLine) -> None:
    raise BadInput(
        f"{one_line(bad.file)}, line {bad.line}, byte offset {bad.offset}: {bad.reason}. Correct "
        "the line, or set on_bad_line=set_aside to go on without such lines."
    )


@contextlib.contextmanager
def _rejected_table(path: Path) -> Iterator[BinaryIO]:
    with publish(path) as temporary, open(temporary, "wb") as table:
        table.write(b"file\tline\toffset\treason\traw\n")
        yield table
