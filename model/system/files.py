"""Files that are either whole or absent: published atomically. Digests and JSON."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import UserError
from .processes import has_ended, host_name

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
_LONGEST_NAME = 255  # bytes, on the file systems that there are
_TEMPORARY = re.compile(r"\..+\.([A-Za-z0-9-]+)\.(\d+)\.lstm-batch-pipeline\.tmp$")
# Longer than any program takes between two writes to a file. Of another host's processes nothing
# else can be known.
_ABANDONED_SECONDS = 24 * 3600


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


def temporary_beside(path: Path) -> Path:
    """The name of a file of this process alone, among all hosts: `sweep_temporaries` knows it."""
    end = f".{host_name()}.{os.getpid()}.lstm-batch-pipeline.tmp"
    # Both have to be no longer than a name may be.
    begin = os.fsencode(path.name)[:_LONGEST_NAME - len(end) - 1].decode(errors="ignore")
    return path.parent / f".{begin}{end}"


def look_anew(folder: Path, base: Path) -> None:
    """Forget that there was no such file in a folder, where a network file system remembers it.

    For half a minute it may say so although another host has made the file since. It asks the
    server for a folder that is opened, and then for the names in it (nfs(5), close-to-open).

    Parameters
    ----------
    folder : path
    base : path
        One above it, which has long been there: of those between, each may have been missing.
    """
    for each in [*reversed([above for above in folder.parents if base in (above, *above.parents)]),
                 folder]:
        with contextlib.suppress(OSError):
            os.close(os.open(each, os.O_RDONLY | os.O_DIRECTORY))


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
    temporary = temporary_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary)
        _replace(temporary, path)
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

    Only those of `temporary_beside` are looked at. Those of a process of this host that is still
    alive stay, and of another host's those that were written to within a day.

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
        if match is None:
            continue
        host, number = match[1], int(match[2])
        with contextlib.suppress(OSError):
            if (number == os.getpid() or has_ended(number)) if host == host_name() else (
                    temporary.stat().st_mtime + _ABANDONED_SECONDS < _now_in(temporary.parent)):
                temporary.unlink()
                removed.append(temporary)
    return removed


def _now_in(folder: Path) -> float:
    """The time by the clock that sets a folder's times: not always this host's."""
    probe = temporary_beside(folder / "clock")
    try:
        probe.touch()
        return probe.stat().st_mtime
    finally:
        probe.unlink()


def _replace(temporary: Path, path: Path) -> None:
    """Rename a file; see to it that it has failed where the system says so.

    Where a server is asked twice, because its first answer was lost, the second answer is that
    there is no such file (rename(2), bugs).
    """
    before = os.stat(temporary)
    try:
        os.replace(temporary, path)
    except FileNotFoundError:
        if not os.path.samestat(os.stat(path), before):
            raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
