"""Files that are either whole or absent: atomic publishing and sealed HDF5 files."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import math
import os
import re
import shlex
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO

import h5py

if TYPE_CHECKING:
    from typing_extensions import Buffer


class UserError(Exception):
    """A failure explained to the person who runs the job; shown without a traceback."""


class BadInput(UserError):
    """A failure that comes again until a person changes what the job was given."""


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


def digest_file(path: str | os.PathLike, size: int | None = None) -> str:
    """SHA-256 of a file's bytes, of all or of the first ones, in hexadecimal."""
    digest = hashlib.sha256()
    with open_beginning(path, size) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def open_beginning(path: str | os.PathLike, size: int | None) -> io.BufferedReader:
    """Open a file to be read as if it ended after so many bytes: it may be growing."""
    return open(path, "rb") if size is None else io.BufferedReader(_Beginning(path, size))


class _Beginning(io.RawIOBase):
    def __init__(self, path: str | os.PathLike, size: int):
        self._file = io.FileIO(path)
        self._size = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        return self._file.readinto(memoryview(buffer)[: max(0, self._size - self.tell())]) or 0

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
        super().close()


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


def publish_link(source: str | os.PathLike, path: str | os.PathLike) -> None:
    """Publish a file under another name too, without writing it again.

    Neither name is ever written to, only replaced, so that each keeps its content. Where the file
    system knows no such links the file is copied.

    Parameters
    ----------
    source : path
        A published file.
    path : path
        In the same file system.

    Raises
    ------
    UserError
        When the directory or the disk does not take the file.
    """
    with publish(path) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


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


def check_programs(folder: str | os.PathLike) -> None:
    """Refuse a folder that the system loads no programs from: Theano's are compiled into it.

    Parameters
    ----------
    folder : path
        May be missing: then the folder that it would be made in counts.

    Raises
    ------
    UserError
        When the file system is mounted with the option noexec.
    """
    folder = Path(folder).absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if os.statvfs(there).f_flag & os.ST_NOEXEC:
        raise UserError(f"the file system of {folder} is mounted with noexec, and Theano compiles "
                        "programs into it: choose a working folder elsewhere")


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
