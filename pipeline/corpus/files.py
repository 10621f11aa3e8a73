"""Which files the corpus is: by name, folder or glob, each on one split and met once."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
import urllib.parse
import urllib.request
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from model.system.errors import BadInput, UserError
from model.system.files import digest_file
from model.system.terminal import one_line
from pipeline.artifacts import Identity, identify
from pipeline.corpus.splits import SPLITS

_PURPOSES = {"train": "training", "valid": "validation", "test": "the test"}


class CorpusFile(NamedTuple):
    """A file of the corpus.

    Attributes
    ----------
    split : str
        That of its sentences, before any is drawn.
    path : pathlib.Path
    identity : Identity
        Its size is how many bytes are read, even if it grows meanwhile.
    digest : str
        Of these bytes.
    """

    split: str
    path: Path
    identity: Identity
    digest: str


def corpus_files(pattern: str, working_folder: Path | None = None) -> list[Path]:
    """The files that a file name, a folder or a glob pattern stands for.

    Links are followed, and no folder is entered twice. Hidden files and folders, and editors'
    backups (`a~`, `#a#`, `a.bak`), are left out where a pattern does not ask for them.

    Parameters
    ----------
    pattern : str
        A file, also as `file://`; a folder, for all files below it; or a glob pattern (`**`
        crosses folders). `~` is the home folder.
    working_folder : pathlib.Path, optional
        May not be met on the way.

    Returns
    -------
    list of pathlib.Path
        Regular files in sorted order.

    Raises
    ------
    UserError
        When there is no such file, or none that fits; when a folder cannot be read; when a link
        leads nowhere; when the working folder is met.
    """
    path = Path(os.path.expanduser(_without_scheme(pattern)))
    try:
        if path.is_file():
            return [path]
        if path.is_dir():
            files = _matches(path, ("**",), working_folder)
            advice = f"the corpus folder {path} holds no files: put text files there."
        else:
            base = Path(path.anchor)
            files = _matches(base, path.relative_to(base).parts, working_folder)
            advice = (f"there is no corpus {pattern!r}: give an existing text file, a folder, or a "
                      "glob pattern that fits some files (a relative one starts from the folder "
                      f"the job was started in: {Path.cwd()}).")
            if path.exists():
                advice = f"the corpus {path} is neither a regular file nor a folder."
        found = sorted({file for file in files if file.is_file()})
    except OSError as error:
        raise UserError(f"cannot read the corpus {pattern!r}: {error}.") from error
    if not found:
        raise BadInput(advice)
    return found


def _without_scheme(pattern: str) -> str:
    scheme = re.match(r"([a-z][a-z0-9+.-]*)://", pattern, re.IGNORECASE)
    if scheme is None:
        return pattern
    address = urllib.parse.urlsplit(pattern)
    if address.scheme != "file" or address.netloc not in ("", "localhost"):
        raise BadInput(
            f"{pattern!r} is no file: only CORPUS may be an address, of http or https. Fetch the "
            "text, and name the file."
        )
    return urllib.request.url2pathname(address.path)


def _matches(folder: Path, pieces: tuple[str, ...], closed: Path | None) -> Iterator[Path]:
    """What fits the pieces, between slashes, of a glob pattern that starts in a folder."""
    piece, *rest = pieces or ("",)
    if piece == "**":
        for each in _folders_below(folder, closed, set()):
            yield from _matches(each, (*rest,) or ("*",), closed)
        return
    if glob.has_magic(piece):
        paths = [path for path in _entries(folder, closed, _is_left_out(piece))
                 if fnmatch.fnmatchcase(path.name, piece)]
    else:
        paths = [folder / piece] if os.path.lexists(folder / piece) else []
    for path in paths:
        _check_link(path)
        if not rest:
            yield path
        elif path.is_dir():
            yield from _matches(path, (*rest,), closed)


def _folders_below(folder: Path, closed: Path | None, seen: set) -> Iterator[Path]:
    """A folder and all below it, each once, however many links lead there."""
    status = os.stat(folder)
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    yield folder
    for path in _entries(folder, closed):
        _check_link(path)
        if path.is_dir():
            yield from _folders_below(path, closed, seen)


def _entries(folder: Path, closed: Path | None, left_out_too: bool = False) -> list[Path]:
    if closed is not None and closed.exists() and folder.samefile(closed):
        raise BadInput(
            f"the working folder {closed} lies in the corpus, which would then hold what is made "
            "of it: name another working folder (WORK), or only the text files as the corpus."
        )
    return [folder / name for name in sorted(os.listdir(folder))
            if left_out_too or not _is_left_out(name)]


def _is_left_out(name: str) -> bool:
    return (name.startswith(".") or name.endswith(("~", ".bak"))
            or (name.startswith("#") and name.endswith("#")))


def _check_link(path: Path) -> None:
    if path.is_symlink() and not path.exists():
        raise UserError(
            f"{one_line(path)} is a link to {one_line(os.readlink(path))}, which is not there: "
            "bring that back (is a disk not mounted?), or remove the link."
        )


@dataclass(frozen=True)
class Corpus:
    """The files of a corpus, as they were when they were looked at.

    Attributes
    ----------
    patterns : dict
        For each split what `corpus_files` takes; None for a split that is drawn from the first.
    files : list of CorpusFile
        By split, then sorted by path; of a file of several names the first.
    """

    patterns: dict[str, str | None]
    files: list[CorpusFile]

    def check_unchanged(self) -> None:
        """Verify that the files still begin with the bytes that their digests are of.

        What was written to their ends meanwhile, and new files, are for the next run.

        Raises
        ------
        UserError
            When one was changed or removed.
        """
        for file in self.files:
            try:
                unchanged = identify(file.path) == file.identity or (
                    digest_file(file.path, file.identity.size) == file.digest)
            except OSError:
                unchanged = False
            if not unchanged:
                raise UserError(
                    f"{one_line(file.path)} changed while the corpus was read. Run again when "
                    "nothing but its end is written to."
                )


def find_corpus(
    train: str,
    valid: str | None = None,
    test: str | None = None,
    digest: Callable[[Path, int], str] = digest_file,
    working_folder: Path | None = None,
) -> Corpus:
    """Find the files of a corpus.

    Parameters
    ----------
    train, valid, test : str
        What `corpus_files` takes; none for a split that is drawn from the first.
    digest : function
        From a file and a number to the digest of so many bytes.
    working_folder : pathlib.Path, optional
        See `corpus_files`.

    Returns
    -------
    Corpus

    Raises
    ------
    UserError
        As `corpus_files`; and when a file cannot be read, when one file, under whatever names, is
        on two splits, or two files of the same content are.
    """
    patterns = dict(zip(SPLITS, (train, valid, test), strict=True))
    found = _look(patterns, working_folder)
    by_inode: dict[Hashable, tuple[str, Path]] = {}
    for split, path, identity in found:
        # Not by the rest of the identity: it may be growing.
        claim(by_inode, (identity.device, identity.inode), split, path, "are one file")
    files = []
    by_digest: dict[str, tuple[str, Path]] = {}
    for split, path, identity in found:
        try:
            files.append(CorpusFile(split, path, identity, digest(path, identity.size)))
        except OSError as error:
            raise UserError(f"cannot read {one_line(path)}: {error}.") from error
        if identity.size:
            claim(by_digest, files[-1].digest, split, path, "have the same content")
    return Corpus(patterns, files)


def _look(
    patterns: dict[str, str | None], working_folder: Path | None
) -> list[tuple[str, Path, Identity]]:
    found: dict[tuple[str, Identity], Path] = {}
    for split, pattern in patterns.items():
        for path in corpus_files(pattern, working_folder) if pattern else []:
            try:
                identity = identify(path)
            except OSError as error:
                raise UserError(f"cannot read {one_line(path)}: {error}.") from error
            found.setdefault((split, identity), path)
    return [(split, path, identity) for (split, identity), path in found.items()]


def claim(owners: dict, key: Hashable, split: str, path: Path, fault: str) -> Path:
    """Note that what a key stands for is on a split.

    Parameters
    ----------
    owners : dict
        What was noted before.
    key : hashable
    split : str
    path : pathlib.Path
    fault : str
        What two files have in common where their keys are equal.

    Returns
    -------
    pathlib.Path
        Of the file with this key that was noted first.

    Raises
    ------
    UserError
        When that is on another split.
    """
    owner, other = owners.setdefault(key, (split, path))
    if owner != split:
        names = one_line(path), one_line(other)
        what = f"{names[0]} is" if other == path else f"{names[1]} and {names[0]} {fault}, and are"
        raise BadInput(
            f"{what} given for {_PURPOSES[owner]} and for {_PURPOSES[split]} both: a perplexity on "
            "text that the model has seen says nothing. Give each files of its own (CORPUS, "
            "VALID, TEST); without VALID or TEST sentences are drawn for it."
        )
    return other
