"""The processes that train one network together, and one that does so alone.

The training loop asks its `Alone` for what other processes would have to say; `model.mpi.Processes`
has the same verbs for several. What all must do in step is asked for by all, equally often.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what takes the time to import
    import numpy as np

    from model.trainer import State, Trainer


class Alone:
    """One process: nobody to ask, and nobody to wait for.

    Attributes
    ----------
    rank, count : int
        Its number among those that train together, from 0, and how many these are.
    """

    rank = 0
    count = 1

    def __init__(self) -> None:
        self.waited = 0.0  # seconds
        self._started = time.monotonic()

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files, and tells how far the training is."""
        return self.rank == 0

    def own(self, slots: Sequence) -> Sequence:
        """This process's part of the slots."""
        each = len(slots) // self.count
        return slots[each * self.rank:each * (self.rank + 1)]

    def device(self, name: str) -> str:
        """The device that this process takes where all are to take one of that name."""
        return name

    def any(self, wish: bool) -> bool:
        """Whether one of the processes wishes something.

        Of several: whether one did when this was asked last, so that none waits for a slower one.
        """
        return wish

    def of_first(self, value: Any) -> Any:
        """The value that the first process gives."""
        return value

    def in_order(self, compute: Callable[..., np.ndarray], items: Iterable[tuple],
                 before: Callable[[], None]) -> Iterator[np.ndarray]:
        """What a function gives for items, in their order; the processes share them out.

        Parameters
        ----------
        compute : function
        items : iterable of tuple
            Its arguments.
        before : function
            Called before each round, in which every process computes one.
        """
        for item in items:
            before()
            yield compute(*item)

    def add_up(self, trainer: Trainer) -> None:
        """Let a trainer's sums be those of all processes."""

    def check_same(self, state: State) -> None:
        """Raise UserError where the processes' states differ, in one bit."""

    def begin(self) -> None:
        """Count the time from now on."""
        self.waited, self._started = 0.0, time.monotonic()

    def facts(self) -> dict:
        """What the table of processes says of this one; times in seconds, since `begin`."""
        elapsed = time.monotonic() - self._started
        return {"rank": self.rank, "host": socket.gethostname(), "processor": _processor(),
                "threads": threads(), "computing": elapsed - self.waited, "waiting": self.waited}

    def table(self) -> list[dict]:
        """The `facts` of all processes."""
        return [self.facts()]


def threads() -> int:
    """How many threads the compiled code of this process takes."""
    return int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, text = line.partition(":")
        if name.strip() == "model name":
            return text.strip()
    return "unknown"
