"""From a file of any kind to its sentences: blocks of whole lines, each checked and cleaned."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from model.data.text_files import read_text
from model.data.tokenization import clean, counts_empty_lines
from model.system.errors import BadInput, UserError
from model.system.files import open_beginning
from model.system.terminal import one_line

_BLOCK_BYTES = 4 << 20  # text is read in blocks of this size: large enough for fast whole-block
# operations, small enough to forget
_REST_SECONDS = 1.0  # between two writings to one line

ARCHIVED = "*-sentences.txt"  # the file that is read of an archive, as the Leipzig corpora come
_MARK = b"\xef\xbb\xbf"  # the byte-order mark in UTF-8
_ASCII_WHITE_SPACE = b"\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f "  # of Python's str
_LEIPZIG_LINE = re.compile(rb"[0-9]+\t")
_CARRIAGE_RETURNS = ("do its lines end with CR alone? Bring them to LF, as with tr '\\r' '\\n' "
                     "<OLD >NEW")


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

    def row(self) -> str:
        """A line of a table: the raw bytes escaped as in Python, tabs between."""
        return (f"{one_line(self.file)}\t{self.line}\t{self.offset}\t{self.reason}\t"
                f"{repr(self.raw)[2:-1]}\n")


class SentenceReader:
    r"""Reads the sentences of one file in blocks, in bounded memory.

    Only ``\n`` and ``\r\n`` end a line. A sentence is a line as `model.data.tokenization.clean`
    gives it; empty ones are skipped where they do not count.

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
    tokens : {"words", "spaces"}
        The rule by which the text will be split into tokens: ``split`` of
        `model.data.tokenization.tokenize`.
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
        tokens: str = "words",
        on_bad_line: Callable[[RejectedLine], None],
        counts: dict[str, int],
        progress: Callable[[int], None] | None = None,
    ):
        self._path = path
        self._leipzig = {"auto": None, "plain": False, "leipzig": True}[format]
        self._max_line_bytes = max_line_bytes
        self._tokens = tokens
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
        how = bool(self._leipzig), self._max_line_bytes, self._tokens
        sentences = None if b"\0" in text else _good_lines(lines, *how)
        bad = 0
        if sentences is None:
            sentences = []
            place = offset
            for number, line in enumerate(lines, self._line_number):
                try:
                    sentences.append(_sentence(line, *how))
                except _Unusable as fault:
                    self._on_bad_line(RejectedLine(
                        self._path, number, place + fault.offset, str(fault),
                        line[:self._max_line_bytes]))
                    bad += 1
                place += len(line) + 1
        if not counts_empty_lines(self._tokens):
            sentences = [sentence for sentence in sentences if sentence]
        self._line_number += len(lines)
        self._counts["lines"] += len(lines)
        self._counts["sentences"] += len(sentences)
        self._counts["set_aside"] += bad
        self._counts["empty"] += len(lines) - bad - len(sentences)
        return sentences


def digest_text(path: Path, size: int, most_bytes: int | None = None) -> bytes:
    """The SHA-256 of a file's text, decompressed, or of no more than its first bytes.

    Parameters
    ----------
    path, size
        See `SentenceReader`.
    most_bytes : int, optional

    Raises
    ------
    UserError
        When the file cannot be read or its compressed data are damaged.
    """
    digest = hashlib.sha256()
    left = most_bytes
    with _open(path, size) as raw:
        for piece in read_text(raw, path, most_bytes or _BLOCK_BYTES, ARCHIVED):
            digest.update(piece[:left])
            if left is not None:
                left -= len(piece)
                if left <= 0:
                    break
    return digest.digest()


class _Unusable(Exception):
    """A line that cannot be used; `offset` is the fault's place within the line."""

    def __init__(self, reason: str, offset: int = 0):
        super().__init__(reason)
        self.offset = offset


def _sentence(line: bytes, leipzig: bool, max_line_bytes: int, tokens: str) -> bytes:
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
    try:
        return clean(text, tokens).encode()
    except ValueError as error:
        raise _Unusable(str(error)) from None


def _good_lines(
    lines: list[bytes], leipzig: bool, max_line_bytes: int, tokens: str
) -> list[bytes] | None:
    """The sentences of lines without NUL, as of `_sentence` but faster; None if one may be bad."""
    if max(map(len, lines)) > max_line_bytes:
        return None
    if leipzig:
        fields = [line.partition(b"\t") for line in lines if line.strip()]
        if not all(tab and identifier.strip().isdigit() for identifier, tab, _ in fields):
            return None
        lines = [text for _, _, text in fields]
    try:
        if tokens != "words":
            return [clean(line.decode(), tokens).encode() for line in lines]
        # Most lines are ASCII, and so in NFC, and begin and end with no border of a sentence.
        stripped = [line.strip(_ASCII_WHITE_SPACE) for line in lines]
        return [line if line.isascii() and line[:1] != b"<" and line[-1:] != b">"
                else clean(line.decode()).encode() for line in stripped]
    except ValueError:  # not UTF-8, or what `clean` refuses
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
        for piece in itertools.chain(read_text(raw, path, _BLOCK_BYTES, ARCHIVED), [None]):
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
