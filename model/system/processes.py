"""Processes: what tells one from all others, and how they end with the one that started them."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import re
import signal
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux's prctl
_SET_CHILD_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER


class ProcessName(NamedTuple):
    """What tells a process from all others, on all hosts that share a folder.

    Attributes
    ----------
    host : str
        See `host_name`.
    number : int
        Its number there.
    started : str
        When it was started, as Linux counts: another may be given the number later.
    """

    host: str
    number: int
    started: str

    def is_known_here(self) -> bool:
        """Whether it can be told here if it has ended: numbers of other hosts mean nothing."""
        return self.host == host_name()

    def has_ended(self) -> bool:
        """Whether it is gone, or waits only for its parent to take note. Of this host alone."""
        return has_ended(self.number) or _stat(self.number)[1] not in ("", self.started)


@functools.cache
def host_name() -> str:
    """The name of this host, and what tells it from another one of the same name.

    The latter changes when the system starts anew, and is another in a container of its own:
    process numbers mean nothing from one to the other. No dots.
    """
    boot = space = ""
    with contextlib.suppress(OSError):  # a system that is no Linux: only the name counts
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        space = os.readlink("/proc/self/ns/pid")
    name = re.sub("[^A-Za-z0-9-]", "-", platform.node())[:32]
    return f"{name}-{hashlib.sha256(f'{boot}{space}'.encode()).hexdigest()[:8]}"


def this_process() -> ProcessName:
    """The name of the process that asks."""
    return ProcessName(host_name(), os.getpid(), _stat(os.getpid())[1])


def has_ended(number: int) -> bool:
    """Whether no process of this host has a number, or one that only waits to be taken note of."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return _stat(number)[0] in ("Z", "X")


def _stat(number: int) -> tuple[str, str]:
    """The state of a process and the time at which it was started; empty where it cannot be read.
    """
    try:
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", ""
    return fields[0], fields[19]  # see proc_pid_stat(5); the command's name comes before


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
