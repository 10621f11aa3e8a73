"""Files that are either whole or absent: atomic publishing and sealed HDF5 files."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import re
import shlex
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

import h5py


class UserError(Exception):
    """A failure explained to the person who runs the job; shown without a traceback."""


class DamagedFile(UserError):
    """A file that is not what was once published under its name.

    Parameters
    ----------
    path : path
        The file.
    reason : str
        What is wrong with it.
    """

    def __init__(self, path: str | os.PathLike, reason: str):
        self.path = Path(path)
        self.reason = reason
        super().__init__(f"{path} is damaged: {reason}. It is made again by the next run.")


def to_json(value: object, **options: Any) -> str:
    """JSON as its specification has it: a number that is not finite becomes null (RFC 8259, 6).

    Parameters
    ----------
    value : dict, list, str, number or None
    **options
        As for `json.dumps`.
    """
    return json.dumps(_finite(value), allow_nan=False, **options)


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# The project's name marks what may be swept: others name their temporary files alike.
_TEMPORARY = re.compile(r"\..+\.(\d+)\.lstm-batch-pipeline\.tmp$")


@contextlib.contextmanager
def publish(path: str | os.PathLike) -> Iterator[Path]:
    """Write a file so that it appears under its name whole, or not at all.

    The block writes and closes the temporary file it is given, which lies in the same directory;
    then it is synced, renamed over `path`, and the directory is synced. If the block fails, the
    temporary file is removed and what stood under `path` before still stands.

    Parameters
    ----------
    path : path
        Where the file is to appear. Missing parent directories are made.

    Yields
    ------
    pathlib.Path
        The temporary file to write.

    Raises
    ------
    UserError
        When the directory or the disk does not take the file.
    """
    path = Path(path)
    temporary = path.parent / f".{path.name}.{os.getpid()}.lstm-batch-pipeline.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error}. Nothing was published; check the free space and the "
            "permissions of its folder."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def sweep_temporaries(folder: str | os.PathLike) -> list[Path]:
    """Remove the temporary files that killed processes left anywhere below a folder.

    Only those of `publish` are looked at, and files of a process that is still alive stay.

    Parameters
    ----------
    folder : path
        Where to look, recursively.

    Returns
    -------
    list of pathlib.Path
        What was removed.
    """
    removed = []
    for temporary in Path(folder).rglob(".*.lstm-batch-pipeline.tmp"):
        match = _TEMPORARY.match(temporary.name)
        if match and not _is_alive(int(match.group(1))):
            with contextlib.suppress(OSError):
                temporary.unlink()
                removed.append(temporary)
    return removed


_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def try_lock(file: IO) -> bool:
    """Take an exclusive lock on an open file; False when another process holds it.

    Where the file system has no locks (some network file systems) a warning is printed, and it
    goes on without.
    """
    return _lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def wait_for_lock(file: IO) -> None:
    """Take an exclusive lock on an open file, when another process gives it back at the latest."""
    _lock(file, fcntl.LOCK_EX)


def _lock(file: IO, operation: int) -> bool:
    try:
        fcntl.flock(file, operation)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
        print(f"warning: the file system of {file.name} has no locks ({error.strerror}): see to it "
              "that no two runs are at work there", file=sys.stderr)
    return True


def check_owner(folder: str | os.PathLike) -> None:
    """Refuse a folder in which others can put files under the names that the job will load.

    Theano's compile cache holds pickles and libraries, and loading one can execute anything.

    Parameters
    ----------
    folder : path
        May be missing.

    Raises
    ------
    UserError
        When it belongs to neither this user nor root, or all may write to it and remove what is
        not theirs.
    """
    try:
        status = os.stat(folder)
    except FileNotFoundError:
        return
    if status.st_uid not in (os.geteuid(), 0):
        raise UserError(
            f"the working folder {folder} belongs to another user ({status.st_uid}), who could put "
            "programs in it that would run as you: choose a working folder of your own")
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        raise UserError(
            f"all users may write to the working folder {folder}, and could put programs in it "
            f"that would run as you: chmod o-w {shlex.quote(str(folder))}")


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process != os.getpid()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_SEAL_BYTES = 512  # the user block of an HDF5 file: the smallest that the format allows
_GROWTH_BYTES = 1 << 20  # a file in memory grows by so much at a time


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
    # HDF5 writes into memory: where the disk is full it may end the process, or leave a file that
    # it cannot close.
    with h5py.File(f"{path}", "w", driver="core", backing_store=False, block_size=_GROWTH_BYTES,
                   libver="latest", userblock_size=_SEAL_BYTES) as file:
        yield file
        file.flush()
        content = file.id.get_file_image()  # without the user block
    with publish(path) as temporary, open(temporary, "wb") as raw:
        raw.write(_seal(hashlib.sha256(content)))
        raw.write(content)


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


def _seal_of(raw: BinaryIO) -> bytes:
    """The user block for an open HDF5 file."""
    digest = hashlib.sha256()
    raw.seek(_SEAL_BYTES)
    while block := raw.read(1 << 20):
        digest.update(block)
    return _seal(digest)


def _seal(digest: hashlib._Hash) -> bytes:
    return f"sha256 {digest.hexdigest()}\n".encode().ljust(_SEAL_BYTES, b"\0")
