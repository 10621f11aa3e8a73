"""Files that are either whole or absent: published atomically. Locks, digests and JSON."""

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
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from .errors import UserError

if TYPE_CHECKING:
    from typing_extensions import Buffer


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
