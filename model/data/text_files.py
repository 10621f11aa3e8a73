"""The bytes of text files, decompressed where they are compressed, and files that are no text."""

from __future__ import annotations

import bz2
import fnmatch
import gzip
import io
import itertools
import lzma
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from model.system.errors import BadInput, UserError
from model.system.terminal import one_line

if TYPE_CHECKING:
    from typing_extensions import Buffer

_ZSTANDARD_INPUT_BYTES = 4096  # zstandard inflates all that it is given at once, at most some
# 32,000-fold (one character repeated): so one step gives 128 MiB at most
_PIECE_BYTES = 1 << 16  # of a text that is read line by line
_LARGEST_HEADER_BYTES = 1 << 20  # of an archive, and any honest one is far smaller
_BEGINNING_BYTES = 512  # what tells the kind of a file lies within


def read_text(
    raw: io.BufferedReader, name: str | os.PathLike, size: int, member: str | None = None
) -> Iterator[bytes]:
    """The bytes of a text, decompressed.

    Whether it is compressed, as by gzip, bzip2, xz or zstd, is seen from its first bytes; its
    name may not say otherwise.

    Parameters
    ----------
    raw : buffered binary file
        At its beginning.
    name : path
        What errors call it.
    size : int
        How many bytes to read, or to decompress, at a time, about.
    member : str, optional
        Of a tar archive the one file is read whose name, without folders, fits this pattern;
        without a pattern an archive is an error.

    Yields
    ------
    bytes

    Raises
    ------
    UserError
        When it cannot be read, when its compressed data are damaged, when it begins as something
        that is no text, such as an archive, and when an archive has no such member, or several.
    """
    try:
        beginning = raw.peek(_BEGINNING_BYTES)
        kind = next((kind for kind, pattern in _COMPRESSED.items()
                     if pattern.match(beginning)), None)  # fmt: skip
        suffix = Path(name).suffix.lower()
        if suffix in _COMPRESSED and kind != suffix:
            if not beginning:
                raise EOFError
            raise OSError(f"it is not compressed as {suffix} files are")
        pieces = _DECOMPRESSORS[kind](raw, size) if kind else _plain(raw, size)
        yield from _checked(pieces, name, size, member)
    except EOFError:
        raise BadInput(
            f"{one_line(name)} is truncated: its compressed data end too early. Copy or compress "
            "it again."
        ) from None
    except (OSError, zlib.error, lzma.LZMAError, tarfile.TarError) as error:
        raise UserError(
            f"cannot read {one_line(name)}: {error}. Check that it is there, whole, readable, and "
            "of the kind that its suffix says."
        ) from error


def is_plain(raw: io.BufferedReader) -> bool:
    """Whether a file at its beginning is neither compressed nor an archive, as `read_text` sees."""
    beginning = raw.peek(_BEGINNING_BYTES)
    return not any(pattern.match(beginning) for pattern in (*_COMPRESSED.values(), _TAR))


def open_text(raw: io.BufferedReader, name: str | os.PathLike) -> io.BufferedReader:
    """A text as a file of decompressed bytes; reading it raises as `read_text` does."""
    return io.BufferedReader(_Joined(read_text(raw, name, _PIECE_BYTES)))


class _Joined(io.RawIOBase):
    """Pieces as a file."""

    def __init__(self, pieces: Iterator[bytes]):
        self._pieces = pieces
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        into = memoryview(buffer)
        count = min(len(into), len(self._rest))
        into[:count], self._rest = self._rest[:count], self._rest[count:]
        return count


def _checked(
    pieces: Iterator[bytes], name: str | os.PathLike, size: int, member: str | None
) -> Iterator[bytes]:
    """The pieces of a text, or of the member of an archive; UserError if it is something else."""
    beginning = b""
    while len(beginning) < _BEGINNING_BYTES and (piece := next(pieces, b"")):
        beginning += piece
    pieces = itertools.chain([beginning], pieces)
    if member is not None and _TAR.match(beginning):
        yield from _checked(_member(pieces, name, size, member), name, size, None)
        return
    for pattern, what, advice in _NO_TEXT:
        if pattern.match(beginning):
            raise BadInput(f"{one_line(name)} is {what}: {advice}.")
    yield from pieces


class _Entry(tarfile.TarInfo):
    """An archive's entry whose further headers, which tarfile reads whole, are bounded."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Entry:
        entry = super().frombuf(buf, encoding, errors)
        if entry.size > _LARGEST_HEADER_BYTES and not (entry.isreg() or entry.isdir()):
            raise tarfile.TarError(f"it holds a header of {entry.size:,} bytes")
        return entry


def _member(
    pieces: Iterator[bytes], name: str | os.PathLike, size: int, pattern: str
) -> Iterator[bytes]:
    """The pieces of the member of a tar archive whose name fits a pattern."""
    names, found = [], []
    stream = io.BufferedReader(_Joined(pieces))
    with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Entry) as archive:
        for entry in archive:
            names.append(entry.name)
            if not entry.isreg() or not fnmatch.fnmatchcase(Path(entry.name).name, pattern):
                continue
            found.append(entry.name)
            if len(found) > 1:
                raise BadInput(
                    f"{one_line(name)} is an archive with several files {pattern}, "
                    f"{one_line(found[0])} and {one_line(found[1])}: unpack it, and name the one "
                    "to read."
                )
            content = archive.extractfile(entry)
            assert content is not None
            yield from _plain(content, size)
    while stream.read(size):  # the end of compressed data carries their checksum
        pass
    if not found:
        raise BadInput(
            f"{one_line(name)} is an archive without a file {pattern}: {_UNPACK}. It holds "
            f"{one_line(', '.join(names[:5])) or 'nothing'}{' ...' * (len(names) > 5)}."
        )


def _plain(raw: IO[bytes], size: int) -> Iterator[bytes]:
    while piece := raw.read(size):
        yield piece


def _gzip(raw: IO[bytes], size: int) -> Iterator[bytes]:
    return _plain(gzip.open(raw), size)  # type: ignore[arg-type]


def _bzip2(raw: IO[bytes], size: int) -> Iterator[bytes]:
    return _plain(bz2.open(raw), size)


def _xz(raw: IO[bytes], size: int) -> Iterator[bytes]:
    return _plain(lzma.open(raw), size)


def _zstandard(raw: IO[bytes], size: int) -> Iterator[bytes]:
    import zstandard

    # The package's stream reader takes a truncated file for a finished one; this does not.
    frame = None
    while chunk := raw.read(_ZSTANDARD_INPUT_BYTES):
        while chunk:
            frame = frame or zstandard.ZstdDecompressor().decompressobj()
            try:
                yield frame.decompress(chunk)
            except zstandard.ZstdError as error:
                raise OSError(error) from error
            chunk = frame.unused_data if frame.eof else b""
            if frame.eof:
                frame = None
    if frame:
        raise EOFError


_DECOMPRESSORS: dict[str, Callable[[IO[bytes], int], Iterator[bytes]]] = {
    ".gz": _gzip, ".bz2": _bzip2, ".xz": _xz, ".zst": _zstandard}  # fmt: skip

# The first bytes of compressed files, by the usual suffix.
_COMPRESSED = {
    ".gz": re.compile(rb"\x1f\x8b\x08"),
    ".bz2": re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"),
    ".xz": re.compile(rb"\xfd7zXZ\0"),
    ".zst": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", re.DOTALL),
}

_TAR = re.compile(rb".{257}ustar", re.DOTALL)
_UNPACK = "unpack it, and name the text files"
_NO_TEXT = [(re.compile(pattern, re.DOTALL), what, advice) for pattern, what, advice in (
    (rb"PK\x03\x04|PK\x05\x06", "a zip archive", _UNPACK),
    (rb"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (rb"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (_TAR.pattern, "a tar archive", _UNPACK),
    (rb"\x04\x22\x4d\x18|\x1f\x9d|\x5d\0\0.{2}\xff{8}", "compressed in a way that is not "
     "known here", "decompress it, or use gzip, bzip2, xz or zstd"),
    (rb"%PDF-", "a PDF document", "take the text out, one sentence a line"),
    (rb"\xff\xfe|\xfe\xff", "UTF-16 or UTF-32", "bring it to UTF-8, as with iconv"),
)]  # fmt: skip
