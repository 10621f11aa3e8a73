"""Processes that end with the one that started them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Collection, Iterator
from pathlib import Path

_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux's prctl
_SET_CHILD_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER


def end_with_parent(parent: int, number: signal.Signals) -> None:
    """Let Linux send this process a signal when its parent is gone, whatever ended that.

    Parameters
    ----------
    parent : int
        The parent's number, as it knows it itself: whoever asks for it here may be late, and get
        that of another process, which orphans are given to. If the parent is gone already, the
        signal comes at once.
    number : signal.Signals
    """
    _prctl(_SET_PARENT_DEATH_SIGNAL, number)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def children(process: int | str = "self") -> set[int]:
    """The processes that one has started, and those that were given to it."""
    found: set[int] = set()
    with contextlib.suppress(OSError):  # it has ended meanwhile
        for thread in Path(f"/proc/{process}/task").iterdir():
            found.update(map(int, (thread / "children").read_text().split()))
    return found


def end_with_all_below(process: int) -> None:
    """End a process and those below it at once."""
    # From below: what has lost its parent is not found here any more.
    for each in [*reversed(_below(process)), process]:
        with contextlib.suppress(OSError):
            os.kill(each, signal.SIGKILL)


def end_descendants(spared: Collection[int] = ()) -> None:
    """End the processes below this one, such as a compiler: they would outlive it.

    Parameters
    ----------
    spared : collection of int
        Children that stay, with all below them.
    """
    while ended := children() - set(spared):
        for each in ended:
            end_with_all_below(each)
            with contextlib.suppress(OSError):
                os.waitpid(each, 0)


def _below(process: int) -> list[int]:
    found = []
    for child in children(process):
        found += [child, *_below(child)]
    return found


def end_with_descendants(number: int, _: object) -> None:
    """Handle a signal: end the processes below this one, and then it as the signal would."""
    end_descendants()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


@contextlib.contextmanager
def nothing_left() -> Iterator[None]:
    """End what a process that is started within it leaves behind, however it ends."""
    before = children()
    # Linux gives such processes to this one then, and not to the first process of all.
    _prctl(_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        end_descendants(before)
        _prctl(_SET_CHILD_SUBREAPER, 0)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value)
