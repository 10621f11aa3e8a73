"""HDF5 files that are published whole, and sealed with the digest of their bytes."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Iterator
from typing import BinaryIO

import h5py

from .errors import DamagedFile
from .files import publish

_SEAL_BYTES = 512  # the user block of an HDF5 file: the smallest that the format allows


@contextlib.contextmanager
def write_hdf5(path: str | os.PathLike) -> Iterator[h5py.File]:
    """Write an HDF5 file that is published whole and sealed with the digest of its bytes.

    The seal is a line `sha256 <hex>` in the file's user block, over all that follows the block.
    It is checked before HDF5 sees the file: on damaged structures the HDF5 library itself can
    hang or crash.

    Parameters
    ----------
    path : path
        Where the file is to appear.

    Yields
    ------
    h5py.File
        The file, open for writing. The same content gives the same bytes.

    Raises
    ------
    UserError
        When the directory or the disk does not take the file.
    """
    with publish(path) as temporary, open(temporary, "w+b", buffering=0) as raw:
        disk = _Disk(raw)
        try:
            with h5py.File(disk, "w", libver="latest", userblock_size=_SEAL_BYTES) as file:
                yield file
        finally:
            if disk.failure:
                raise disk.failure
        seal = _seal_of(raw)
        raw.seek(0)
        raw.write(seal)


class _Disk:
    """The file that HDF5 writes to, piece by piece; a failure to write is kept, not raised.

    Where the disk is full HDF5 may end the process, or leave a file that it cannot close: so it
    is not told.
    """

    def __init__(self, raw: io.FileIO):
        self._raw = raw
        self.failure: OSError | None = None
        # What HDF5 asks for besides, which fails of no full disk.
        self.seek, self.tell, self.read, self.readinto = (
            raw.seek, raw.tell, raw.read, raw.readinto)

    def write(self, content: memoryview) -> int:
        if self.failure is None:
            try:
                done = 0
                while done < len(content):  # the system takes 2 GiB at a time at most
                    done += self._raw.write(content[done:])
            except OSError as error:
                self.failure = error
        if self.failure is not None:
            self._raw.seek(len(content), os.SEEK_CUR)
        return len(content)

    def truncate(self, size: int) -> None:
        try:
            self._raw.truncate(size)
        except OSError as error:
            self.failure = self.failure or error

    def flush(self) -> None:
        """`publish` brings everything to the disk."""


@contextlib.contextmanager
def open_hdf5(path: str | os.PathLike) -> Iterator[h5py.File]:
    """Check the seal of a file written by `write_hdf5` and open it for reading.

    Raises
    ------
    DamagedFile
        When it is not such a file, or any of its bytes differs from what was written.
    FileNotFoundError
        When there is no such file.
    """
    check_hdf5(path)
    # Without HDF5's own locks, which not all file systems have: nobody writes to a sealed file.
    with h5py.File(path, "r", locking=False) as file:
        yield file


def check_hdf5(path: str | os.PathLike) -> None:
    """Check the seal of a file written by `write_hdf5`; raises as `open_hdf5` does."""
    with open(path, "rb") as raw:
        seal = raw.read(_SEAL_BYTES)
        if not seal.startswith(b"sha256 "):
            raise DamagedFile(path, "it does not begin with the seal of a finished file")
        if seal != _seal_of(raw):
            raise DamagedFile(path, "its bytes do not match its seal")


def _seal_of(raw: BinaryIO | io.FileIO) -> bytes:
    """The user block for an open HDF5 file."""
    digest = hashlib.sha256()
    raw.seek(_SEAL_BYTES)
    while block := raw.read(1 << 20):
        digest.update(block)
    return _seal(digest)


def _seal(digest: hashlib._Hash) -> bytes:
    return f"sha256 {digest.hexdigest()}\n".encode().ljust(_SEAL_BYTES, b"\0")
