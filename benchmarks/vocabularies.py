"""A training as a whole, with vocabularies of several sizes, beside its own matrix products."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.extent import Extent, Shape
from benchmarks.machine import peak_memory
from benchmarks.preparation import prepare, write_corpus
from benchmarks.sgemm import FORWARD, OpenBLAS, products
from benchmarks.workers import Worker
from model.data.batches import MicroBatch, epoch_windows
from model.data.vocabulary import read_vocabulary

# As in the profile million, which validates eight times on a hundredth of the text.
_VALIDATED = 0.08
# What is timed of a run is all around its training.
_RUN = {"network_num_units": 16, "training_max_minutes": 0.02, "training_micro_batch_tokens": 512}


class TrainingTurns:
    """Windows of a training, and their products alone by sgemm, in turns.

    Parameters
    ----------
    trainer : model.trainer.Trainer
    config : TrainingConfig
    units : int
    vocabulary : path
    shards : list of path
    """

    def __init__(self, trainer: Any, config: Any, units: int, vocabulary: Path,
                 shards: list[Path]):
        words = read_vocabulary(vocabulary)
        self._trainer, self._config, self._units, self._words = trainer, config, units, len(words)
        self._windows = self._all_windows(shards, words.digest)
        self._blas = OpenBLAS()
        self._owed = 0.0
        self._updates = 0
        self._peak_memory = 0.0

    def _all_windows(self, shards: list[Path], digest: str) -> Iterator[list[MicroBatch]]:
        config, epoch = self._config, 0
        while True:
            yield from epoch_windows(
                shards, digest, seed=1, epoch=epoch, window=config.window,
                micro_batch_sentences=config.micro_batch_sentences,
                micro_batch_tokens=config.micro_batch_tokens,
                shards_in_memory=config.shards_in_memory)
            epoch += 1

    def turn(self) -> dict:
        """Gather, accumulate, apply and validate a window; then its products.

        Returns
        -------
        dict
            "training" and "products", seconds; "tokens"; "peak_memory_mb" of the first window.
        """
        started = time.perf_counter()
        window, sentence = next(self._windows), 0
        for batch in window:
            self._trainer.accumulate(batch.inputs, batch.targets, update=self._updates,
                                     sentence=sentence)
            sentence += len(batch)
        self._trainer.loss()
        self._trainer.apply(self._config.rate)
        tokens = sum(batch.inputs.size for batch in window)
        self._updates += 1
        self._owed += _VALIDATED * tokens
        validated: list[MicroBatch] = []
        while self._owed > 0:
            batch = window[len(validated)]
            self._trainer.log_probabilities(batch.inputs, batch.targets)
            self._owed -= batch.inputs.size
            validated.append(batch)
        seconds = time.perf_counter() - started
        # Before any products, which have arrays of their own.
        self._peak_memory = self._peak_memory or peak_memory()
        return {"training": seconds, "tokens": tokens, "peak_memory_mb": self._peak_memory,
                "products": sum(map(self._products, window))
                + sum(self._products(batch, FORWARD) for batch in validated)}

    def _products(self, batch: MicroBatch, count: int | None = None) -> float:
        """Seconds of a micro-batch's products, or of the first so many kinds of them."""
        sentences, steps = batch.inputs.shape
        shape = Shape(self._units, sentences, steps, self._words)
        return sum(shape.tokens * product.operations / self._blas.rate(product, 0)
                   for product in products(shape)[:count])


def time_vocabularies(extent: Extent, scratch: Path, say: Callable[[str], None]) -> dict:
    """Prepare a corpus with vocabularies of several sizes, and train on it for some windows.

    Returns
    -------
    dict
        "sentences" and "bytes" of the corpus; "prepared", for each vocabulary its "words", the
        "seconds", and "peak_memory_mb"; "runs", for each the seconds to a report, of the "rest" of
        that run and of a "next" one, with one more sentence, which starts warm; "trained", for each
        network the "words", "units", "tokens_per_second", "share" of the rate of its products, and
        "peak_memory_mb".
    """
    corpus, work = scratch / "corpus.txt", scratch / "work"
    write_corpus(corpus, extent.vocabulary_sentences, types=2 * max(extent.vocabularies))
    result: dict = {"sentences": extent.vocabulary_sentences, "bytes": corpus.stat().st_size,
                    "prepared": [], "runs": [], "trained": []}
    for words in extent.vocabularies:
        say(f"{words:,} words")
        found = prepare(corpus, work, vocabulary_size=words)
        (vocabulary,) = (work / "vocabulary").glob("*.tsv")
        shards = sorted(map(str, (work / "shards").glob("*.h5")))
        size = len(read_vocabulary(vocabulary))
        result["prepared"].append({"words": size, "seconds": found["seconds"],
                                   "peak_memory_mb": found["peak_memory_mb"]})
        for units in extent.vocabulary_units if words in extent.trained_vocabularies else ():
            say(f"{words:,} words, {units} units")
            with Worker("training", units=units, vocabulary=str(vocabulary),
                        shards=shards) as worker:
                turns = []
                for _ in range(extent.turns):
                    time.sleep(extent.pause)
                    turns.append(worker.turn(0))
            result["trained"].append({
                "words": size, "units": units, "turns": turns,
                "tokens_per_second": statistics.median(
                    turn["tokens"] / turn["training"] for turn in turns),
                "share": statistics.median(turn["products"] / turn["training"] for turn in turns),
                "peak_memory_mb": turns[-1]["peak_memory_mb"]})
        say(f"{words:,} words, to the report")
        result["runs"].append({"words": size, **_runs(corpus, work, words)})
    return result


def _runs(corpus: Path, work: Path, words: int) -> dict:
    edited = corpus.with_name("edited.txt")
    shutil.copyfile(corpus, edited)
    with open(edited, "a", encoding="utf-8") as file:
        file.write("One more sentence .\n")
    seconds = [prepare(text, work, again=True, root="WriteReport", vocabulary_size=words,
                       **_RUN)["seconds"] for text in (corpus, edited)]
    return dict(zip(("rest", "next"), seconds))
