"""Tokens per second of the same network by Theano and PyTorch, in turns; compile times."""

from __future__ import annotations

import importlib.util
import shutil
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from benchmarks.extent import Extent, Shape
from benchmarks.sgemm import FORWARD, combined_rate, products
from benchmarks.workers import Worker

THEANO = ("fused", "lookup-scan", "dense-scan")
TORCH = ("torch-one-hot", "torch-embedding")


def contenders() -> tuple[str, ...]:
    """Those that can run here: PyTorch's only where it is installed."""
    return THEANO + TORCH if importlib.util.find_spec("torch") else THEANO


def compare(extent: Extent, say: Callable[[str], None]) -> dict:
    """Time all contenders on every shape, one timing of each after the other, again and again.

    Returns
    -------
    dict
        ``contenders``, ``blas`` and ``shapes``: for each shape the medians, and all timings that
        they are of.
    """
    names = contenders()
    result: dict = {"contenders": names, "blas": {}, "shapes": []}
    for units in extent.units:
        for sentences in extent.sentences:
            shape = Shape(units, sentences, extent.steps, extent.vocabulary)
            say(f"{units} units, {sentences} sentences")
            result["shapes"].append(_compare_shape(shape, names, extent, result["blas"]))
    return result


def _compare_shape(shape: Shape, names: tuple[str, ...], extent: Extent, blas: dict) -> dict:
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(name, shape)) for name in ("sgemm", *names)}
        for name in ("sgemm", *TORCH[:1]):
            if name in workers:
                blas[name] = workers[name].ready["blas"]
        turns: dict[str, list[dict]] = {name: [] for name in workers}
        for _ in range(extent.turns):
            for name, worker in workers.items():
                time.sleep(extent.pause)
                turns[name].append(worker.turn(extent.seconds))
        rates = {product.name: statistics.median(turn[product.name] for turn in turns["sgemm"])
                 for product in products(shape)}
        sgemm, forward = combined_rate(shape, rates), combined_rate(shape, rates, FORWARD)
        return {
            "units": shape.units, "sentences": shape.sentences, "steps": shape.steps,
            "vocabulary": shape.vocabulary,
            "sgemm": {"gflops": sgemm / 1e9, "gflops_forward": forward / 1e9,
                      "products": {name: rate / 1e9 for name, rate in rates.items()},
                      "turns": turns["sgemm"]},
            "results": {name: {
                **_figures(shape, turns[name], sgemm, forward),
                "loss": workers[name].ready["loss"],
                "seconds_to_start": workers[name].ready["import_seconds"]
                + workers[name].ready.get("compile_seconds", 0),
            } for name in names},
        }


def _figures(shape: Shape, turns: list[dict], sgemm: float, forward: float) -> dict:
    seconds = [turn["seconds"] for turn in turns]
    tokens_per_second = shape.tokens / statistics.median(seconds)
    operations = tokens_per_second * (shape.recurrent_operations + shape.softmax_operations)
    return {"tokens_per_second": tokens_per_second,
            "share_of_sgemm": operations / sgemm, "share_of_sgemm_forward": operations / forward,
            "peak_memory_mb": turns[-1]["peak_memory_mb"], "seconds": seconds}


def compile_times(extent: Extent, scratch: Path, say: Callable[[str], None]) -> dict:
    """Seconds of compilation, with an empty cache and with a full one.

    Parameters
    ----------
    extent : Extent
    scratch : path
        A folder for the caches.
    say : function

    Returns
    -------
    dict
        By contender, and for ``training``, all functions of a training with luigi.cfg's
        settings: ``cold`` and ``warm`` seconds from the start of the libraries' import until the
        functions are there. Without ``cold`` in a quick run.
    """
    shape = Shape(extent.units[0], extent.sentences[0], extent.steps, extent.vocabulary)
    result: dict = {}
    for name in (*THEANO, "training"):
        cache = scratch / "theano" if extent.cold else None
        result[name] = {}
        for state in ("cold", "warm") if extent.cold else ("warm",):
            say(f"{name}, {state}")
            result[name][state] = _seconds_to_compile(name, shape, cache)
        if cache is not None:
            shutil.rmtree(cache)
    return result


def _seconds_to_compile(name: str, shape: Shape, cache: Path | None) -> float:
    if name == "training":
        with Worker("compile-training", compile_cache=cache, vocabulary=shape.vocabulary) as worker:
            return worker.ready["seconds"]
    with Worker(name, shape, compile_cache=cache) as worker:
        return worker.ready["import_seconds"] + worker.ready["compile_seconds"]
