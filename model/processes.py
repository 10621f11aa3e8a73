"""Processes that end with the one that started them."""

from __future__ import annotations

import ctypes
import os
import signal

_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux's prctl


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
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, number)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)
