"""A window's micro-batches in a fixed number of slots, on which alone its sums depend.

Micro-batches are dealt to slots; each slot has sums of its own; and these are added pairwise, slot
0 and 1, 2 and 3, then the pairs, and so on. Processes take equal runs of slots, and pair as the
slots do: so each sum of floating-point numbers is made in the same order whoever makes it.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Protocol

from model.data.batches import MicroBatch
from model.system.errors import BadInput


class Sums(Protocol):
    """What has sums that can be taken and put back: see `model.trainer.Trainer`."""

    def take_sums(self) -> list:
        """The sums so far, which begin anew."""
        ...

    def add_sums(self, sums: list) -> None:
        """Add sums that were taken."""
        ...


def check_processes(processes: int, slots: int) -> None:
    """Raise BadInput where so many processes cannot share so many slots out."""
    if slots % processes:
        raise BadInput(
            f"[run] processes = {processes}: it must divide [training] slots, which is {slots}, "
            "the number of shares that the sums of an update are made of. More slots are another "
            "training: models of other slots are none of its results")


def deal(window: Sequence[MicroBatch], slots: int) -> list[list[int]]:
    """Share the micro-batches of a window out so that the slots have about as many tokens each.

    The largest first, each to the slot that has the fewest tokens so far [1]_. Of equals to that
    whose number's bits, read from behind, are the smallest: processes have runs of slots, and few
    micro-batches are to be shared out among them, too.

    Parameters
    ----------
    window : sequence of MicroBatch
    slots : int

    Returns
    -------
    list of list of int
        For each slot the places of its micro-batches in the window, in their order there.

    References
    ----------
    .. [1] Graham, R. (1969): Bounds on multiprocessing timing anomalies. SIAM Journal on Applied
           Mathematics 17 (2).
    """
    loads = [(0, order) for order in range(slots)]
    dealt: list[list[int]] = [[] for _ in range(slots)]
    for place in sorted(range(len(window)), key=lambda place: -window[place].inputs.size):
        tokens, order = loads[0]
        heapq.heapreplace(loads, (tokens + window[place].inputs.size, order))
        dealt[order].append(place)
    digits = slots.bit_length() - 1
    return [sorted(dealt[_reversed(slot, digits)]) for slot in range(slots)]


def _reversed(number: int, digits: int) -> int:
    """A number of so many binary digits, read from behind."""
    return sum((number >> digit & 1) << (digits - 1 - digit) for digit in range(digits))


class PairwiseSums:
    """Adds the sums of slots, one slot after the other, in the order of a binary tree.

    At most ``log2(slots) + 1`` sums are there at a time, those that are being made among them.

    Parameters
    ----------
    of : Sums
        What makes the sums of a slot, and has the sums of all slots after the last.
    slots : int
        How many will come, a power of two.
    """

    def __init__(self, of: Sums, slots: int):
        self._of, self._left = of, slots
        self._waiting: list[tuple[int, list]] = []  # how many pairings made it, and the sums

    def end_slot(self) -> None:
        """Add a slot, whose sums are made, to those before it."""
        level = 0
        while self._waiting and self._waiting[-1][0] == level:
            self._of.add_sums(self._waiting.pop()[1])
            level += 1
        self._left -= 1
        if self._left:
            self._waiting.append((level, self._of.take_sums()))
