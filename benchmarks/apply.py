"""An update of all parameters beside the rate of the memory."""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack

import numpy as np

from benchmarks.extent import Extent, Shape
from benchmarks.sgemm import OpenBLAS
from benchmarks.workers import Worker
from model.configuration import OPTIMISERS, NetworkConfig

_NUMBER = 4  # bytes
# Update rules, and bounds on the gradient's norm: a bound that is met each time, or none.
_UPDATES = (("adagrad", 0.0), ("adam", 0.0), ("adam", 1e-6))


class Stream:
    """What the memory gives: loops of BLAS over arrays that no cache holds.

    Parameters
    ----------
    count : int
        Numbers of an array.
    """

    def __init__(self, count: int):
        blas = OpenBLAS()
        self.description = blas.description()
        self._count = count
        self._x, self._y = (np.ones(count, np.float32) for _ in range(2))
        integer, real, pointer = ctypes.c_int, ctypes.c_float, ctypes.c_void_p
        self._axpy = blas.routine("saxpy", integer, real, pointer, integer, pointer, integer)
        self._scal = blas.routine("sscal", integer, real, pointer, integer)

    def rates(self, seconds: float) -> dict[str, float]:
        """Bytes per second, read and written: of y += a x, and of x *= a."""
        x, y = self._x.ctypes.data, self._y.ctypes.data
        return {"saxpy": self._rate(3, lambda: self._axpy(self._count, 0.5, x, 1, y, 1), seconds),
                "sscal": self._rate(2, lambda: self._scal(self._count, 1.5, y, 1), seconds)}

    def _rate(self, arrays: int, call: Callable[[], None], seconds: float) -> float:
        self._y.fill(1)  # whatever was added up, all numbers are of ordinary size
        started, count = time.perf_counter(), 0
        while True:
            call()
            count += 1
            elapsed = time.perf_counter() - started
            if elapsed >= seconds / 2:
                return arrays * _NUMBER * self._count * count / elapsed


def time_apply(extent: Extent, say: Callable[[str], None]) -> dict:
    """Time updates and the loops of `Stream`, one of each after the other, again and again.

    Returns
    -------
    dict
        "units", "vocabulary", "parameters"; "stream", the rate of each loop in bytes per second;
        and "updates": for each the "optimiser", "max_norm", "seconds", the "bytes" that it reads
        and writes, and its "share" of the better of the loops' rates.
    """
    units, words = extent.large_units, extent.vocabulary
    shape = Shape(units, sentences=1, steps=1, vocabulary=words)
    parameters = NetworkConfig(units).count_weights(words)
    say(f"{units:,} units")
    with ExitStack() as stack:
        stream = stack.enter_context(Worker("stream", shape, count=parameters))
        workers = [stack.enter_context(Worker("apply", shape, optimiser=rule, max_norm=bound))
                   for rule, bound in _UPDATES]
        turns: list[list[dict]] = [[] for _ in (stream, *workers)]
        for _ in range(extent.turns):
            for worker, answers in zip((stream, *workers), turns):
                time.sleep(extent.pause)
                answers.append(worker.turn(extent.seconds))
    rates = {name: statistics.median(turn[name] for turn in turns[0]) for name in turns[0][0]}
    updates = []
    for (rule, bound), answers in zip(_UPDATES, turns[1:]):
        # Parameters, sums and the rule's own arrays are read and written, the sums read once more.
        numbers = 2 * (2 + OPTIMISERS[rule]) + bool(bound)
        moved = _NUMBER * numbers * parameters
        seconds = statistics.median(turn["seconds"] for turn in answers)
        updates.append({"optimiser": rule, "max_norm": bound, "seconds": seconds, "bytes": moved,
                        "share": moved / seconds / max(rates.values()),
                        "all_seconds": [turn["seconds"] for turn in answers]})
    return {"units": units, "vocabulary": words, "parameters": parameters, "stream": rates,
            "updates": updates}
