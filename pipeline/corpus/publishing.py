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
import functools
import hashlib
import io
import itertools
import re
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from model.data.text_files import read_text
from model.data.tokenization import clean
from model.system.errors import BadInput, DamagedFile, UserError
from model.system.files import open_beginning, publish
from model.system.terminal import one_line
from pipeline.artifacts import DIGEST_DIGITS
from pipeline.corpus.files import SPLITS, Corpus, CorpusFile, claim

_BLOCK_BYTES = 4 << 20  # text is read in blocks of this size: large enough for fast whole-block
# operations, small enough to forget
_BEGINNING_BYTES = 1024  # of a file: what the order of files depends on, and few edits change
_REST_SECONDS = 1.0  # between two writings to one line
_LARGEST_PART_BYTES = 32 << 20  # a part is tokenized in memory, whatever its lines are like

_ARCHIVED = "*-sentences.txt"  # the file that is read of an archive, as the Leipzig corpora come
_MARK = b"\xef\xbb\xbf"  # the byte-order mark in UTF-8
_ASCII_WHITE_SPACE = b"\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f "  # of Python's str
_DIGEST = re.compile(f"[0-9a-f]{{{DIGEST_DIGITS}}}")
_LEIPZIG_LINE = re.compile(rb"[0-9]+\t")


class RejectedLine(NamedTuple):
    """A line that cannot be used.

    `line` counts from 1; `offset` counts bytes of the (decompressed) file from 0 and points at the
    fault where it has a place within the line, else at the line's first byte; `raw` are the line's
    bytes, of an over-long line only the first `max_line_bytes`.
    """

    file: Path
    line: int
    offset: int
    reason: str
    raw: bytes


class Part(NamedTuple):
    """A part: its text, a sentence and a line end each; see `part_digest`."""

    text: bytes
    digest: str
    sentences: int


class SentenceReader:
    r"""Reads the sentences of one file in blocks, in bounded memory.

    Only ``\n`` and ``\r\n`` end a line. A sentence is a line in NFC, stripped of white space at
    its ends; empty ones are skipped.

    Parameters
    ----------
    path : pathlib.Path
        Plain text or, as `model.data.text_files.read_text` sees, compressed; or an archive as the
        Leipzig corpora come, of which the sentences are read.
    size : int, optional
        How many bytes of the file are read, where it may be growing: then its last line is left
        out unless it is whole.
    format : {"auto", "plain", "leipzig"}
        "leipzig": lines are ``id<TAB>sentence``. "auto": so they are if the first line that is
        not empty begins with digits and a tab.
    max_line_bytes : int
        A longer line is a bad one.
    on_bad_line : callable
        Called with a `RejectedLine`; may raise.
    counts : dict
        Its entries "bytes" (decompressed), "lines", "empty", "set_aside" and "sentences" are
        increased as the file is read.
    progress : callable, optional
        Called with the number of bytes of the file, as stored, that were read since its last call.
    """

    def __init__(
        self,
        path: Path,
        *,
        size: int | None = None,
        format: str = "auto",
        max_line_bytes: int = 32768,
        on_bad_line: Callable[[RejectedLine], None],
        counts: dict[str, int],
        progress: Callable[[int], None] | None = None,
    ):
        self._path = path
        self._leipzig = {"auto": None, "plain": False, "leipzig": True}[format]
        self._max_line_bytes = max_line_bytes
        self._on_bad_line = on_bad_line
        self._counts = counts
        chunks = _chunks(path, size, counts, progress)
        self._blocks = _whole_lines(chunks, max_line_bytes, lambda: _has_grown(path, size))
        self._line_number = 1

    def block(self) -> list[bytes] | None:
        """The next sentences, in UTF-8; None at the end.

        Raises
        ------
        UserError
            When the file cannot be read or its compressed data are damaged.
        """
        following = next(self._blocks, None)
        if following is None:
            return None
        offset, text = following
        if self._line_number == 1 and b"\r" in text.rstrip(b"\r") and b"\n" not in text and (
                len(text) <= self._max_line_bytes):  # or else it is too long, and may be cut
            raise BadInput(f"{one_line(self._path)} is all one line: {_CARRIAGE_RETURNS}.")
        lines = text.split(b"\n")
        if not lines[-1]:
            lines.pop()
        if self._leipzig is None:
            self._leipzig = _begins_as_leipzig(lines)
        sentences = (None if b"\0" in text
                     else _good_lines(lines, bool(self._leipzig), self._max_line_bytes))
        bad = 0
        if sentences is None:
            sentences = []
            place = offset
            for number, line in enumerate(lines, self._line_number):
                try:
                    sentences.append(_sentence(line, bool(self._leipzig), self._max_line_bytes))
                except _Unusable as fault:
                    self._on_bad_line(RejectedLine(
                        self._path, number, place + fault.offset, str(fault),
                        line[:self._max_line_bytes]))
                    bad += 1
                place += len(line) + 1
        sentences = [sentence for sentence in sentences if sentence]
        self._line_number += len(lines)
        self._counts["lines"] += len(lines)
        self._counts["sentences"] += len(sentences)
        self._counts["set_aside"] += bad
        self._counts["empty"] += len(lines) - bad - len(sentences)
        return sentences


def hash_sentences(sentences: list[bytes]) -> np.ndarray:
    """A hash of each sentence's text, its CRC-32: the same on every machine, for ever.

    Parameters
    ----------
    sentences : list of bytes

    Returns
    -------
    uint64 array (sentences,)
    """
    return np.fromiter(map(zlib.crc32, sentences), dtype=np.uint64, count=len(sentences))


def choose_splits(hashes: np.ndarray, valid_share: float, test_share: float) -> np.ndarray:
    """Choose the split of each sentence by its hash alone.

    The validation split is the low end of the range of hashes and the test split the high end, so
    that changing one share leaves the other split as it is.

    Parameters
    ----------
    hashes : uint64 array (sentences,)
        From `hash_sentences`.
    valid_share, test_share : float
        The expected share of the distinct sentences on these splits.

    Returns
    -------
    uint8 array (sentences,)
        Positions in `SPLITS`.
    """
    # 53 bits, so that the hash as a float is exact and every share has its exact border.
    place = (_mix(hashes, _SPLIT_SALT) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return (place < valid_share) + np.uint8(2) * (place >= 1 - test_share)


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
        borders = np.flatnonzero(_mix(hashes, _BORDER_SALT) % self._sentences_per_part == 0) + 1
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

    def finish(self) -> Iterator[Part]:
        """Yield the last part, if any sentence is left."""
        if self._pending:
            text = b"\n".join(self._pending) + b"\n"
            part = Part(text, part_digest(text), len(self._pending))
            self._pending, self._pending_bytes = [], 0
            yield part


def part_digest(text: bytes) -> str:
    """The name of a part: the beginning of the SHA-256 of its text, in hexadecimal."""
    return hashlib.sha256(text).hexdigest()[:DIGEST_DIGITS]


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
    progress: Callable[[int], None] | None = None,
) -> dict:
    """Read a corpus and publish its parts.

    Parameters
    ----------
    corpus : Corpus
        Where it gives no files for validation or test, these splits are drawn from the rest by
        `choose_splits`; all sentences of a given one belong to its split.
    parts_folder : pathlib.Path
        Parts are published here as `<part_digest>.txt`, a sentence and a line end each;
        those already there are left as they are.
    rejected_lines_file : pathlib.Path
        Where bad lines go: a table of file, line, byte offset, reason and raw bytes (escaped as in
        Python), tabs between. Written only with ``on_bad_line="set_aside"``.
    format : {"auto", "plain", "leipzig"}
        See `SentenceReader`.
    on_bad_line : {"stop", "set_aside"}
        What to do with a line that is not valid UTF-8, holds a NUL byte, is too long, or lacks the
        Leipzig corpora's id.
    valid_share, test_share : float
        Shares of the splits that are drawn.
    sentences_per_part : int
        The expected size of a part.
    max_line_bytes : int
        A longer line is a bad one.
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
    counts = {"bytes": 0, "lines": 0, "empty": 0, "set_aside": 0, "sentences": 0}
    file_counts = {}
    read_bytes = 0

    def advance(number: int) -> None:
        nonlocal read_bytes
        read_bytes += number
        if progress:
            progress(read_bytes)

    def keep(split: str, part: Part) -> None:
        _publish_part(part, parts_folder)
        parts[split].append(
            {"digest": part.digest, "sentences": part.sentences, "bytes": len(part.text)}
        )

    beginnings = _beginnings(corpus.files)
    with contextlib.ExitStack() as stack:
        handle_bad_line: Callable[[RejectedLine], None] = _stop
        if on_bad_line == "set_aside":
            handle_bad_line = stack.enter_context(_reject_lines(rejected_lines_file))
        for file in sorted(corpus.files, key=lambda file: (beginnings[file], file.digest)):
            before = dict(counts)
            reader = SentenceReader(
                file.path,
                size=file.identity.size,
                format=format,
                max_line_bytes=max_line_bytes,
                on_bad_line=handle_bad_line,
                counts=counts,
                progress=advance,
            )
            drawn = file.split == "train" and drawn_shares != (0.0, 0.0)
            for sentences in iter(reader.block, None):
                hashes = hash_sentences(sentences)
                if not drawn:
                    for part in cutters[file.split].add(sentences, hashes):
                        keep(file.split, part)
                    continue
                chosen = choose_splits(hashes, *drawn_shares)
                for position, split in enumerate(SPLITS):
                    places = np.flatnonzero(chosen == position)
                    own = [sentences[place] for place in places.tolist()]
                    for part in cutters[split].add(own, hashes[places]):
                        keep(split, part)
            file_counts[file] = {
                "side": file.split,
                "path": one_line(file.path),
                "sentences": counts["sentences"] - before["sentences"],
                "bytes": counts["bytes"] - before["bytes"],
            }
        for split in SPLITS:
            for part in cutters[split].finish():
                keep(split, part)
        if 2 * counts["set_aside"] > counts["lines"] - counts["empty"]:
            raise BadInput(
                f"more than half of the lines of the corpus, {counts['set_aside']:,} of "
                f"{counts['lines'] - counts['empty']:,}, are not valid, so what is left is hardly "
                "what was meant. With on_bad_line=stop the first is told with its place."
            )
        _check_splits(parts, corpus.patterns, counts, drawn_shares, parts_folder)
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
    found = {}
    for file in files:
        beginning = b""
        with _open(file.path, file.identity.size) as raw:
            for piece in read_text(raw, file.path, _BEGINNING_BYTES, _ARCHIVED):
                beginning += piece
                if len(beginning) >= _BEGINNING_BYTES:
                    break
        found[file] = hashlib.sha256(beginning[:_BEGINNING_BYTES]).digest()
    return found


def _compare_contents(
    counts: dict[CorpusFile, dict], beginnings: dict[CorpusFile, bytes]
) -> list[str]:
    """Refuse equal texts, however compressed, on two splits, and tell of those on one."""
    alike: dict[tuple, list[CorpusFile]] = {}
    for file, of_file in counts.items():
        if of_file["sentences"]:
            key = (beginnings[file], of_file["bytes"], of_file["sentences"])
            alike.setdefault(key, []).append(file)
    owners: dict[str, tuple[str, Path]] = {}
    repeated = []
    for files in alike.values():
        for file in files if len(files) > 1 else []:
            digest = hashlib.sha256()
            with _open(file.path, file.identity.size) as raw:
                for piece in read_text(raw, file.path, _BLOCK_BYTES, _ARCHIVED):
                    digest.update(piece)
            first = claim(owners, digest.hexdigest(), file.split, file.path, "hold the same text")
            if first != file.path:
                repeated.append(f"{one_line(file.path)} repeats the text of {one_line(first)}")
    if not repeated:
        return []
    more = f"; and {len(repeated) - 1:,} more files do so" if len(repeated) > 1 else ""
    return [f"{repeated[0]}{more}: it counts as often as it is there"]


def _check_splits(
    parts: dict[str, list],
    patterns: dict[str, str | None],
    counts: dict,
    drawn_shares: tuple[float, float],
    folder: Path,
) -> None:
    """Refuse a corpus that leaves a split without sentences."""
    for split, share in zip(SPLITS, (None, *drawn_shares)):
        if parts[split]:
            continue
        if patterns[split]:
            raise BadInput(
                f"the corpus {patterns[split]} leaves no sentence for the {split} side (of all "
                f"files together {counts['lines']:,} lines were read, {counts['empty']:,} of them "
                f"empty and {counts['set_aside']:,} set aside). Give a text with one sentence a "
                "line."
            )
        different = len({sentence for split_parts in parts.values() for part in split_parts
                         for sentence in _part_sentences(folder, part["digest"])} if share else ())
        why = (f"{patterns['train']} holds so few different sentences ({different:,}; repeated "
               "ones lie on one side) that none was drawn for" if share else
               f"{split}_share is 0, and there is no other text for")
        raise BadInput(f"{why} the {split} side. Give a text for it ({split.upper()}=file), or "
                       f"raise {split}_share.")


def part_file(folder: Path, digest: str) -> Path:
    """Where a part's text lies."""
    return folder / f"{digest}.txt"


def sentences_also_in_training(folder: Path,
                               parts: dict[str, list[str]]) -> dict[str, dict[bytes, int]]:
    """The sentences of each other split that occur, as the same text, in training too.

    Parameters
    ----------
    folder : pathlib.Path
        Where parts are published.
    parts : dict
        The digests of each split's parts.

    Returns
    -------
    dict
        For "valid" and "test" the sentences, each with how often it occurs on that split.

    Raises
    ------
    DamagedFile
        When a part's text is not the one that its name tells.
    UserError
        When a part cannot be read.
    """
    sentences = functools.partial(_part_sentences, folder)
    others = {split: Counter(itertools.chain.from_iterable(map(sentences, parts[split])))
              for split in ("valid", "test")}
    wanted = {*others["valid"], *others["test"]}
    found: set[bytes] = set()
    for digest in parts["train"]:
        found |= wanted.intersection(sentences(digest))
    return {split: {sentence: counts[sentence] for sentence in found if sentence in counts}
            for split, counts in others.items()}


def _part_sentences(folder: Path, digest: str) -> list[bytes]:
    return read_part(part_file(folder, digest)).split(b"\n")[:-1]


def read_part(path: Path) -> bytes:
    """The text of a part, a sentence and a line end each.

    Raises
    ------
    DamagedFile
        When it is not the one that the file's name tells, if that is a digest.
    UserError
        When it cannot be read.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the part {path}: {error}.") from error
    if _DIGEST.fullmatch(path.stem) and part_digest(text) != path.stem:
        raise DamagedFile(path, "its bytes do not match the digest in its name")
    return text


def _publish_part(part: Part, folder: Path) -> None:
    path = part_file(folder, part.digest)
    # A part that is there is compared whole: cheap beside reading the corpus, and a damaged one
    # is repaired.
    try:
        there = path.read_bytes() == part.text
    except OSError:  # most often there is no such part; other failures recur when it is written
        there = False
    if not there:
        with publish(path) as temporary:
            temporary.write_bytes(part.text)


def _stop(bad: RejectedLine) -> None:
    raise BadInput(
        f"{one_line(bad.file)}, line {bad.line}, byte offset {bad.offset}: {bad.reason}. Correct "
        "the line, or set on_bad_line=set_aside to go on without such lines."
    )


@contextlib.contextmanager
def _reject_lines(path: Path) -> Iterator[Callable[[RejectedLine], None]]:
    with (
        publish(path) as temporary,
        open(temporary, "w", encoding="utf-8", newline="\n") as table,
    ):
        table.write("file\tline\toffset\treason\traw\n")

        def write(bad: RejectedLine) -> None:
            raw = repr(bad.raw)[2:-1]
            table.write(f"{one_line(bad.file)}\t{bad.line}\t{bad.offset}\t{bad.reason}\t{raw}\n")

        yield write


# Reading


_CARRIAGE_RETURNS = ("do its lines end with CR alone? Bring them to LF, as with tr '\\r' '\\n' "
                     "<OLD >NEW")


class _Unusable(Exception):
    """A line that cannot be used; `offset` is the fault's place within the line."""

    def __init__(self, reason: str, offset: int = 0):
        super().__init__(reason)
        self.offset = offset


def _sentence(line: bytes, leipzig: bool, max_line_bytes: int) -> bytes:
    """The sentence of one line (without its line end), or _Unusable."""
    line = line.removesuffix(b"\r")
    if len(line) > max_line_bytes:
        hint = f" ({_CARRIAGE_RETURNS})" if b"\r" in line else ""
        raise _Unusable(f"the line is longer than max_line_bytes ({max_line_bytes:,}){hint}")
    nul = line.find(b"\0")
    if nul >= 0:
        hint = " (is it UTF-16? bring it to UTF-8)" if line.count(b"\0") * 4 > len(line) else ""
        raise _Unusable(f"a NUL byte{hint}", nul)
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _Unusable(
            f"not valid UTF-8: {error.reason} (byte 0x{line[error.start]:02x})", error.start
        ) from None
    if leipzig and text.strip():
        identifier, tab, text = text.partition("\t")
        if not (tab and _is_identifier(identifier)):
            raise _Unusable("no id and tab before the sentence, as in the Leipzig corpora, one of "
                            "which the first line makes of this file (for plain text set format = "
                            "plain)")
    return clean(text).encode()


def _good_lines(lines: list[bytes], leipzig: bool, max_line_bytes: int) -> list[bytes] | None:
    """The sentences of lines without NUL, as of `_sentence` but faster; None if one may be bad."""
    if max(map(len, lines)) > max_line_bytes:
        return None
    if leipzig:
        fields = [line.partition(b"\t") for line in lines if line.strip()]
        if not all(tab and identifier.strip().isdigit() for identifier, tab, _ in fields):
            return None
        lines = [text for _, _, text in fields]
    try:
        # Most lines are ASCII, and so in NFC, and begin and end with no border of a sentence.
        stripped = [line.strip(_ASCII_WHITE_SPACE) for line in lines]
        return [line if line.isascii() and line[:1] != b"<" and line[-1:] != b">"
                else clean(line.decode()).encode() for line in stripped]
    except UnicodeDecodeError:
        return None


def _is_identifier(text: str) -> bool:
    text = text.strip()
    return text.isascii() and text.isdigit()


def _begins_as_leipzig(lines: list[bytes]) -> bool | None:
    """Whether the first line that is not empty begins with an id; None if all are empty."""
    for line in lines:
        if line.strip():
            return _LEIPZIG_LINE.match(line.lstrip()) is not None
    return None


def _has_grown(path: Path, size: int | None) -> bool:
    """Whether a file is longer than it was, or is a moment later if it has just been written to."""
    if size is None:
        return False
    with contextlib.suppress(OSError):  # it is gone: `Corpus.check_unchanged` tells
        status = path.stat()
        if status.st_size == size and 0 <= time.time() - status.st_mtime < _REST_SECONDS:
            time.sleep(_REST_SECONDS)
            status = path.stat()
        return status.st_size > size
    return False


def _whole_lines(
    chunks: Iterator[bytes], max_line_bytes: int, more_to_come: Callable[[], bool]
) -> Iterator[tuple[int, bytes]]:
    """Blocks of whole lines, with their byte offsets.

    The last line need have no end, unless more is to come of it.
    Of a line so long that it would fill the memory only the beginning is given, in a block of its
    own, just long enough to be seen to be too long.
    """
    offset = 0  # of the first byte of `rest`
    rest = b""
    skipping = False
    for chunk in chunks:
        if offset == 0 and not rest and chunk.startswith(_MARK):
            offset, chunk = len(_MARK), chunk[len(_MARK) :]
        if skipping:
            end = chunk.find(b"\n") + 1
            if not end:
                offset += len(chunk)
                continue
            skipping = False
            offset, chunk = offset + end, chunk[end:]
        end = chunk.rfind(b"\n") + 1
        if end:
            block = rest + chunk[:end]
            yield offset, block
            offset += len(block)
            rest = chunk[end:]
        else:
            rest += chunk
        if len(rest) > max_line_bytes + 1:  # 1 for the \r that may end it
            yield offset, rest[: max_line_bytes + 2]
            offset += len(rest)
            rest = b""
            skipping = True
    if rest and not more_to_come():
        yield offset, rest


def _chunks(
    path: Path,
    size: int | None,
    counts: dict[str, int],
    progress: Callable[[int], None] | None,
) -> Iterator[bytes]:
    """The bytes of a file, decompressed, in chunks of _BLOCK_BYTES or a little more."""
    with _open(path, size) as raw:
        reported = 0
        gathered: list[bytes] = []
        length = 0
        for piece in itertools.chain(read_text(raw, path, _BLOCK_BYTES, _ARCHIVED), [None]):
            if piece is not None:
                gathered.append(piece)
                length += len(piece)
            if length >= _BLOCK_BYTES or (piece is None and length):
                counts["bytes"] += length
                if progress:
                    progress(raw.tell() - reported)
                    reported = raw.tell()
                yield b"".join(gathered)
                gathered, length = [], 0


def _open(path: Path, size: int | None) -> io.BufferedReader:
    try:
        return open_beginning(path, size)
    except OSError as error:
        raise UserError(f"cannot read {one_line(path)}: {error}.") from error


# Hashing

_SPLIT_SALT = 0x9E3779B97F4A7C15
_BORDER_SALT = 0xD1B54A32D192ED03


def _mix(hashes: np.ndarray, salt: int) -> np.ndarray:
    """The finalizer of splitmix64, of `hashes` + `salt`: any salt gives another even hash.

    References
    ----------
    Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014.
    """
    mixed = hashes + np.uint64(salt)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
