"""The working folder: whose it is, and one run in it at a time."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from model.system.errors import UserError
from model.system.files import publish
from model.system.folders import check_owner, check_programs
from model.system.locks import holding
from pipeline.artifacts import receipts

_MARKER = ".lstm-batch-pipeline"
_MARKER_TEXT = """\
This folder is a working folder of lstm-batch-pipeline: the job keeps here what it makes.
"""
# What a folder may hold that was never marked: what a new disk brings, and what commands leave that
# make no artifact.
_HARMLESS = {"lost+found", "theano", "luigid"}


def claim(work: Path) -> None:
    """Make the working folder, or see to it that it is one of this project.

    Parameters
    ----------
    work : path

    Raises
    ------
    UserError
        When it holds something and was not made by this project, when others could put programs
        in it, when the system loads none from it, or when it cannot be written to. Then nothing
        has been written.
    """
    with writing(work):
        for folder in (work, work / "theano"):
            check_owner(folder)
            check_programs(folder)
        work.mkdir(parents=True, exist_ok=True)
        content = sorted(os.listdir(work))
    if (work / _MARKER).exists():  # maybe since a moment ago only: another run begins
        return
    foreign = [name for name in content
               if name not in _HARMLESS and not name.startswith(f".{_MARKER}.")]
    if foreign and not _was_ours(work):
        raise UserError(
            f"the working folder {work} holds {_some(foreign)}, and nothing that says that this "
            "project made it: choose a new or an empty folder. Or, if the job is to put its files "
            f"between these: touch {work / _MARKER}")
    with publish(work / _MARKER) as temporary:
        temporary.write_text(_MARKER_TEXT)


def check_is_there(work: Path) -> None:
    """Refuse to help in a folder that no run has claimed, as this host sees it.

    Raises
    ------
    UserError
    """
    if not (work / _MARKER).exists():
        raise UserError(f"{work} is no working folder of a run, as this host sees it. Is it the "
                        "folder that the run was begun with, and is it mounted here?")
    check_owner(work)


def _was_ours(work: Path) -> bool:
    """Whether a folder without the marker was made by this project before it had one."""
    return any(receipts(work)) or all(
        (work / name).is_file() for name in (".lock", "log/run.log"))


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


@contextlib.contextmanager
def only_one_run(work: Path) -> Iterator[None]:
    """Claim the working folder and hold its lock; wait, and say so, while another run holds it."""
    claim(work)
    with contextlib.ExitStack() as lock:
        with writing(work):
            lock.enter_context(holding(work / ".locked-by", lambda holder: print(
                f"another run ({holder}) is at work in {work}; waiting until it ends",
                file=sys.stderr, flush=True)))
        yield


@contextlib.contextmanager
def writing(work: Path) -> Iterator[None]:
    """What the disk or the permissions do not allow, as an error for people."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write in the working folder {work}: {error}") from error
