"""Which files the corpus is: by name, folder or glob, each on one side and met once."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from model.files import UserError
from pipeline.artifacts import digest_file

SIDES = ("train", "valid", "test")

_PURPOSES = {"train": "training", "valid": "validation", "test": "the test"}


class Identity(NamedTuple):
    """What changes when a file is written to or another one takes its name."""

    size: int
    mtime_ns: int
    ctime_ns: int  # also where a program gives size and mtime back to a file it has rewritten
    device: int
    inode: int


class CorpusFile(NamedTuple):
    """A file of the corpus.

    Attributes
    ----------
    side : str
        That of its sentences, before any is drawn.
    path : pathlib.Path
    identity : Identity
    digest : str
        Of its bytes as stored.
    """

    side: str
    path: Path
    identity: Identity
    digest: str


def corpus_files(pattern: str) -> list[Path]:
    """The files that a file name, a folder or a glob pattern stands for.

    Parameters
    ----------
    pattern : str
        A file; a folder, for all files below it but hidden ones; or a glob pattern (`**` crosses
        folders). `~` is the home folder.

    Returns
    -------
    list of pathlib.Path
        Regular files in sorted order.

    Raises
    ------
    UserError
        When there is no such file, or none that fits.
    """
    path = Path(pattern).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        files = _files_below(path)
        if not files:
            raise UserError(f"the corpus folder {path} holds no files: put text files there.")
        return files
    files = sorted(
        Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file()
    )
    if files:
        return files
    if path.exists():
        raise UserError(f"the corpus {path} is neither a regular file nor a folder.")
    raise UserError(
        f"there is no corpus {pattern!r}: give an existing text file, a folder, or a glob pattern "
        "that fits some files (a relative one starts from the folder the job was started in: "
        f"{Path.cwd()})."
    )


def _files_below(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise UserError(f"cannot read the corpus folder {folder}: {error}.")

    files = []
    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = [Path(parent, name) for name in names if not name.startswith(".")]
        files += [path for path in paths if path.is_file()]
    return sorted(files)


@dataclass(frozen=True)
class Corpus:
    """The files of a corpus, as they were when they were looked at.

    Attributes
    ----------
    patterns : dict
        For each side what `corpus_files` takes; None for a side that is drawn from the first.
    files : list of CorpusFile
        By side, then sorted by path.
    """

    patterns: dict[str, str | None]
    files: list[CorpusFile]

    def check_unchanged(self) -> None:
        """Verify that the files are still the same.

        Raises
        ------
        UserError
            When one was changed, added or removed.
        """
        before = {(file.side, file.path): file.identity for file in self.files}
        now = {(side, path): identity for side, path, identity in _look(self.patterns)}
        for key in {**before, **now}:
            if before.get(key) != now.get(key):
                raise UserError(
                    f"{key[1]} changed while the corpus was read. Run again when nothing writes "
                    "to it."
                )


def find_corpus(
    train: str,
    valid: str | None = None,
    test: str | None = None,
    digest: Callable[[Path], str] = digest_file,
) -> Corpus:
    """Find the files of a corpus.

    Parameters
    ----------
    train, valid, test : str
        What `corpus_files` takes; none for a side that is drawn from the first.
    digest : function
        From a file to the digest of its bytes.

    Returns
    -------
    Corpus

    Raises
    ------
    UserError
        When a side has no file, when a file cannot be read, and when one file, under whatever
        names, is on two sides, or two files of the same content are.
    """
    patterns = dict(zip(SIDES, (train, valid, test), strict=True))
    found = _look(patterns)
    by_inode: dict[tuple[int, int], tuple[str, Path]] = {}
    for side, path, identity in found:
        _claim(by_inode, (identity.device, identity.inode), side, path, "are one file")
    files = []
    by_digest: dict[str, tuple[str, Path]] = {}
    for side, path, identity in found:
        try:
            files.append(CorpusFile(side, path, identity, digest(path)))
        except OSError as error:
            raise UserError(f"cannot read {path}: {error}.") from error
        if identity.size:
            _claim(by_digest, files[-1].digest, side, path, "have the same content")
    return Corpus(patterns, files)


def _look(patterns: dict[str, str | None]) -> list[tuple[str, Path, Identity]]:
    found = []
    for side, pattern in patterns.items():
        for path in corpus_files(pattern) if pattern else []:
            try:
                status = os.stat(path)
            except OSError as error:
                raise UserError(f"cannot read {path}: {error}.") from error
            found.append((side, path, Identity(status.st_size, status.st_mtime_ns,
                                               status.st_ctime_ns, status.st_dev, status.st_ino)))
    return found


def _claim(owners: dict, key: object, side: str, path: Path, fault: str) -> None:
    """Note whose side it is that something is on, or refuse it where it is on another already."""
    owner, other = owners.setdefault(key, (side, path))
    if owner != side:
        what = f"{path} is" if other == path else f"{other} and {path} {fault}, and are"
        raise UserError(
            f"{what} given for {_PURPOSES[owner]} and for {_PURPOSES[side]} both: a perplexity on "
            "text that the model has seen says nothing. Give each files of its own (CORPUS, "
            "VALID, TEST); without VALID or TEST sentences are drawn for it."
        )
