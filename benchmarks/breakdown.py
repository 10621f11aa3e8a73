"""Where the time of a training step goes, part by part."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from benchmarks.extent import Extent, Shape
from benchmarks.workers import Worker


def break_down(extent: Extent, say: Callable[[str], None]) -> dict:
    """Time the parts of one `accumulate` and of one `apply`, with the optimiser of luigi.cfg.

    Returns
    -------
    dict
        The shape, and ``parts``: milliseconds of each function of the compiled library, of what
        `accumulate` does besides, and of `apply`; with the GFLOP/s of the products.
    """
    shape = extent.middle
    say(f"{shape.units} units, {shape.sentences} sentences")
    with Worker("breakdown", shape) as worker:
        turns = []
        for _ in range(extent.turns):
            time.sleep(extent.pause)
            turns.append(worker.turn(extent.seconds))
    operations = _operations(shape)
    parts = {}
    for name in turns[0]:
        seconds = statistics.median(turn[name] for turn in turns)
        parts[name] = {"milliseconds": 1000 * seconds}
        if name in operations:
            parts[name]["gflops"] = operations[name] / seconds / 1e9
    return {"units": shape.units, "sentences": shape.sentences, "steps": shape.steps,
            "vocabulary": shape.vocabulary, "parts": parts}


def _operations(shape: Shape) -> dict[str, float]:
    """What the products of each function need."""
    tokens = shape.tokens
    return {**dict.fromkeys(("lstm_forward", "lstm_backward", "lstm_weights"),
                            tokens * shape.recurrent_operations / 3),
            # Apart only where Theano optimizes nothing.
            "softmax_forward": tokens * shape.softmax_operations / 3,
            "softmax_gradients": tokens * shape.softmax_operations}
