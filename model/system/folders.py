"""Folders that the job must not work in, for what others, or the system, do with them."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

from model.system.errors import UserError


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
