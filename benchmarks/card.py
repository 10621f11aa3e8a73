"""Tokens per second on a graphics card: training, PyTorch's LSTM by cuDNN, and products alone."""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack
from dataclasses import asdict

from benchmarks.extent import CARD_CONTENDERS, CardExtent, Shape
from benchmarks.sgemm import combined_rate, products
from benchmarks.workers import Worker
from model.system.errors import UserError


def find_card(device: str) -> dict:
    """What there is of a device.

    Parameters
    ----------
    device : {"cuda", "cuda:N", "torch-cpu"}

    Returns
    -------
    dict
        Its name, the versions of driver and libraries, and the ``precisions`` that it has.

    Raises
    ------
    UserError
        When it cannot be used, in one line.
    """
    with Worker("card", device=device) as worker:
        found = worker.ready
    if "refused" in found:
        raise UserError(found["refused"])
    return found


def time_card(units: int, precision: str, device: str, extent: CardExtent, pause: float) -> dict:
    """Time all contenders with one size and precision, one after the other, again and again.

    They are processes of their own, as in the comparison, so that neither settings nor memory of
    one are another's. All of them start at the same time.

    Parameters
    ----------
    units : int
    precision : str
    device : str
    extent : CardExtent
        But for its ``units``.
    pause : float
        Seconds between two timings on the processor.

    Returns
    -------
    dict
        For each contender the medians, and all timings that they are of.
    """
    shape = Shape(units, extent.sentences, extent.steps, extent.vocabulary)
    with ExitStack() as stack:
        workers = {}
        for name in ("products", *CARD_CONTENDERS):
            workers[name] = Worker(f"card-{name}", shape, device=device, precision=precision,
                                   window=extent.window)
            stack.push(workers[name])
        ready = {name: worker.ready for name, worker in workers.items()}
        turns: dict[str, list[dict]] = {name: [] for name in workers}
        for _ in range(extent.turns):
            for name, worker in workers.items():
                if device == "torch-cpu":
                    time.sleep(pause)
                turns[name].append(worker.turn(extent.seconds))
        rates = {product.name: statistics.median(turn[product.name] for turn in turns["products"])
                 for product in products(shape)}
        together = combined_rate(shape, rates)
        return {
            **asdict(shape), "precision": precision, "window": extent.window,
            "products": {"gflops": together / 1e9,
                         "products": {name: rate / 1e9 for name, rate in rates.items()},
                         "turns": turns["products"]},
            "results": {name: {**_figures(shape, turns[name], together), **ready[name],
                               **workers[name].end()} for name in CARD_CONTENDERS},
        }


def _figures(shape: Shape, turns: list[dict], products_rate: float) -> dict:
    """Medians; the rate and the share are those of micro-batches in windows."""
    tokens_per_second = shape.tokens / statistics.median(turn["seconds"] for turn in turns)
    operations = tokens_per_second * (shape.recurrent_operations + shape.softmax_operations)
    figures = {"tokens_per_second": tokens_per_second,
               "share_of_products": operations / products_rate}
    for name in ("queued", "done", "apply"):
        if f"{name}_seconds" in turns[0]:
            figures[f"{name}_ms"] = 1000 * statistics.median(
                seconds for turn in turns for seconds in turn[f"{name}_seconds"])
    return {**figures, "turns": turns}
