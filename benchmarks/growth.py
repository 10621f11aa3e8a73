"""How the cost of training grows with the network, the micro-batch and the corpus."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks.extent import Extent, Shape
from benchmarks.preparation import prepare, write_corpus
from benchmarks.workers import Worker


def grow(extent: Extent, scratch: Path, say: Callable[[str], None]) -> dict:
    """Time the fused network with one dimension varied at a time, then corpora of many sizes.

    Returns
    -------
    dict
        ``units``, ``sentences``, ``steps`` and ``corpus``: lists of one dict a point.
    """
    result: dict = {}
    for name, values in (("units", extent.growing_units), ("sentences", extent.growing_sentences),
                         ("steps", extent.growing_steps)):
        result[name] = []
        for value in values:
            say(f"{value} {name}")
            shape = replace(extent.middle, **{name: value})
            result[name].append({name: value, **_time(shape, extent)})
    result["corpus"] = []
    for sentences in extent.corpora:
        say(f"a corpus of {sentences:,} sentences")
        result["corpus"].append({"sentences": sentences,
                                 **_time_corpus(sentences, extent.passes, scratch)})
    return result


def _time(shape: Shape, extent: Extent) -> dict:
    with Worker("fused", shape) as worker:
        turns = []
        for _ in range(extent.turns):
            time.sleep(extent.pause)
            turns.append(worker.turn(extent.seconds))
    seconds = [turn["seconds"] for turn in turns]
    tokens_per_second = shape.tokens / statistics.median(seconds)
    operations = tokens_per_second * (shape.recurrent_operations + shape.softmax_operations)
    return {"tokens_per_second": tokens_per_second, "gflops": operations / 1e9,
            "peak_memory_mb": turns[-1]["peak_memory_mb"], "seconds": seconds}


def _time_corpus(sentences: int, passes: int, scratch: Path) -> dict:
    corpus, work = scratch / "corpus.txt", scratch / "work"
    write_corpus(corpus, sentences)
    prepared = prepare(corpus, work)
    (vocabulary,) = (work / "vocabulary").glob("*.tsv")
    shards = sorted(map(str, (work / "shards").glob("*.h5")))
    with Worker("training-pass", vocabulary=str(vocabulary), shards=shards,
                passes=passes) as worker:
        training = worker.ready
    return {"bytes": corpus.stat().st_size, "preparation_seconds": prepared["seconds"],
            "preparation_peak_memory_mb": prepared["peak_memory_mb"],
            "shard_bytes": prepared["shard_bytes"], "training_updates": training["updates"],
            "training_peak_memory_mb": training["peak_memory_mb"]}
