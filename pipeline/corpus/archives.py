"""What was fetched, as one file of sentences: a text, decompressed, or what an archive holds.

Archives are meant to be as those of the Leipzig Corpora Collection: a .tar.gz with one file of
``id<TAB>sentence`` lines beside lists of words and co-occurrences that are not needed here.
"""

from __future__ import annotations

import contextlib
import fnmatch
import gzip
import os
import re
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from model.data.text_files import read_text
from model.system.errors import BadInput, UserError
from model.system.files import publish

_BLOCK_BYTES = 1 << 16
_WEB_PAGE = re.compile(rb"\s*<(!doctype\s+html|html)\b", re.IGNORECASE)


def is_archive(path: Path) -> bool:
    """Whether a file is a .tar.gz as far as its beginning tells."""
    try:
        with gzip.open(path) as stream:
            tarfile.TarInfo.frombuf(stream.read(tarfile.BLOCKSIZE), "utf-8", "surrogateescape")
    except (OSError, EOFError, zlib.error, tarfile.TarError):
        return False
    return True


def take_text(fetched: Path, target: Path, url: str, *, max_bytes: int = 16 << 30,
              progress: Callable[[float], None] = lambda share: None) -> Path:
    """Publish a fetched text, decompressed where it is compressed.

    Parameters
    ----------
    fetched : path
    target : path
    url : str
        What errors call it.
    max_bytes : int
        Bound on the text.
    progress : function
        Called often with the share that is done, 0 to 1.

    Returns
    -------
    pathlib.Path
        The target.

    Raises
    ------
    UserError
        When it is damaged, no text, or too long, or when the disk does not take it.
    """
    with (open(fetched, "rb") as raw, publish(target) as temporary,
          open(temporary, "wb") as text):
        size = max(1, os.fstat(raw.fileno()).st_size)
        for piece in read_text(raw, url, _BLOCK_BYTES):
            if text.tell() == 0 and _WEB_PAGE.match(piece):
                raise BadInput(f"{url} is a web page: give the address of the text itself")
            text.write(piece)
            if text.tell() > max_bytes:
                raise BadInput(f"{url} is a text of more than {max_bytes:,} bytes")
            progress(raw.tell() / size)
    return target


def unpack(
    archive: str | os.PathLike,
    folder: str | os.PathLike,
    *,
    pattern: str = "*-sentences.txt",
    max_bytes: int = 16 << 30,
    max_files: int = 1000,
    progress: Callable[[float], None] = lambda share: None,
) -> list[Path]:
    """Unpack the wanted files of a .tar.gz archive, after all of it has been found harmless.

    The archive is read twice: first to its end, so that nothing is unpacked from one that is
    damaged or malicious in any place.

    Parameters
    ----------
    archive : path
        The .tar.gz file.
    folder : path
        Where the files appear, each under the name that it has in the archive.
    pattern : str
        The files that are wanted, by their names without folders.
    max_bytes : int
        Bound on the unpacked size of the whole archive.
    max_files : int
        Bound on the number of entries in the archive.
    progress : function
        Called often with the share that is done, 0 to 1.

    Returns
    -------
    list of pathlib.Path
        The unpacked files, in the archive's order.

    Raises
    ------
    UserError
        When the archive is missing, damaged or beyond a bound, when it holds a link, a device or a
        path that leads out of the folder, when no file in it is wanted, or when the disk does not
        take the files.
    """
    archive, folder = Path(archive), Path(folder)
    wanted: dict[Path, str] = {}
    names = []
    with _open_archive(archive, max_bytes, lambda share: progress(share / 2)) as (tar, stream):
        for number, member in enumerate(tar, start=1):
            if number > max_files:
                raise BadInput(f"{archive} holds more than {max_files} entries")
            path = _destination(archive, folder, member)
            names.append(member.name)
            if member.isreg() and fnmatch.fnmatchcase(path.name, pattern):
                if path in wanted:
                    raise BadInput(f"{archive} holds {member.name!r} twice")
                wanted[path] = member.name
        # The end of the compressed stream carries its checksum.
        while stream.read(_BLOCK_BYTES):
            pass
    if not wanted:
        held = ", ".join(names[:10]) or "nothing"
        raise BadInput(f"{archive} holds no {pattern}; it holds {held}")
    with _open_archive(archive, max_bytes, lambda share: progress((1 + share) / 2)) as (tar, _):
        for member in tar:
            path = _destination(archive, folder, member)
            if member.isreg() and path in wanted:
                content = tar.extractfile(member)
                assert content is not None
                with publish(path) as temporary, open(temporary, "wb") as file:
                    shutil.copyfileobj(content, file, _BLOCK_BYTES)
    return list(wanted)


def _destination(archive: Path, folder: Path, member: tarfile.TarInfo) -> Path:
    """Where a member of the archive goes; refuses what is no file or folder inside the folder."""
    # A sparse file is of any length, however small the archive.
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise BadInput(
            f"{archive} holds {member.name!r}, which is neither a plain file nor a folder"
        )
    if member.size < 0:
        raise BadInput(f"{archive} holds {member.name!r} with an impossible size")
    try:
        path = (folder / member.name).resolve()
    except ValueError:
        raise BadInput(f"{archive} holds the impossible name {member.name!r}") from None
    if not path.is_relative_to(folder.resolve()):
        raise BadInput(f"{archive} holds {member.name!r}, which leads out of {folder}")
    return path


class _BoundedReader:
    """A decompressed stream that ends with an error where it exceeds a bound.

    tarfile reads extended headers in one piece, whatever length they claim; that is bounded too.
    """

    def __init__(
        self,
        archive: Path,
        stream: gzip.GzipFile,
        max_bytes: int,
        on_read: Callable[[], None],
    ):
        self._archive, self._stream, self._max_bytes = archive, stream, max_bytes
        self._on_read = on_read

    def read(self, count: int) -> bytes:
        if count > 1 << 20:
            raise BadInput(f"{self._archive} holds a header of {count} bytes")
        self._check(self._stream.tell() + count)
        self._on_read()
        return self._stream.read(count)

    def seek(self, position: int) -> int:
        if position < self._stream.tell():
            raise tarfile.ReadError("a header points back")
        self._check(position)
        while (missing := position - self._stream.tell()) > 0:
            self._on_read()
            if not self._stream.read(min(missing, _BLOCK_BYTES)):
                break
        return self._stream.tell()

    def tell(self) -> int:
        return self._stream.tell()

    def _check(self, position: int) -> None:
        # Reading goes in blocks, so up to a block beyond the end may be asked for.
        if position > self._max_bytes + _BLOCK_BYTES:
            raise BadInput(f"{self._archive} unpacks to more than {self._max_bytes} bytes")


@contextlib.contextmanager
def _open_archive(
    archive: Path, max_bytes: int, progress: Callable[[float], None]
) -> Iterator[tuple[tarfile.TarFile, _BoundedReader]]:
    try:
        with open(archive, "rb") as compressed, gzip.open(compressed) as stream:
            size = os.fstat(compressed.fileno()).st_size
            reader = _BoundedReader(
                archive, stream, max_bytes, lambda: progress(compressed.tell() / max(size, 1))
            )
            with tarfile.open(fileobj=reader, mode="r:") as tar:  # type: ignore[call-overload]
                yield tar, reader
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise UserError(f"cannot read {archive}: {error.strerror}") from error
    except (EOFError, OSError, zlib.error, tarfile.TarError) as error:
        raise UserError(
            f"{archive} is damaged or no .tar.gz file: {error}. The next run fetches it again."
        ) from error
