"""Preparation of corpora of many million sentences: time, memory and growth of each stage."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.preparation import WORKERS, prepare, spelling
from pipeline.artifacts import receipts

STAGES = ("corpus", "tokens", "vocabulary", "shards", "baseline")

_BLOCK = 10_000  # sentences drawn at a time
_COMMON = 200_000  # words
_SENTENCES_PER_FILE = 1_000_000
# Of all words those that are none of the common ones. Their ranks have a Pareto distribution, so
# that there are always new ones, as in real text (Heaps' law).
_RARE, _EXPONENT = 0.02, 1.2
_LARGEST_RANK = 1e12


def write_large_corpus(folder: Path, sentences: int) -> None:
    """Write a synthetic corpus of several files, the same every time.

    The frequencies of the common words are those of Zipf's law as Mandelbrot corrected it, and
    lengths of sentences are log-normal, 19 words in the median.

    Parameters
    ----------
    folder : path
        Is made; a file for each million sentences comes into it.
    sentences : int
    """
    folder.mkdir(parents=True)
    words = np.array([spelling(rank) for rank in range(_COMMON)], object)
    limits = np.cumsum(1 / (np.arange(_COMMON) + 2.7))
    for first in range(0, sentences, _SENTENCES_PER_FILE):
        with open(folder / f"{first:012d}.txt", "w", encoding="utf-8") as file:
            for start in range(first, min(sentences, first + _SENTENCES_PER_FILE), _BLOCK):
                random = np.random.default_rng([20130801, start])
                count = min(_BLOCK, sentences - start)
                lengths = np.clip(random.lognormal(np.log(19), 0.5, count), 2, 100).astype(int)
                ends = np.cumsum(lengths)
                drawn = words[np.searchsorted(limits, random.random(ends[-1]) * limits[-1])]
                rare = np.flatnonzero(random.random(ends[-1]) < _RARE)
                ranks = _COMMON * (1 - random.random(len(rare))) ** -_EXPONENT
                drawn[rare] = [spelling(int(rank)) for rank in np.minimum(ranks, _LARGEST_RANK)]
                for begin, end in zip(ends - lengths, ends):
                    file.write(" ".join(drawn[begin:end]).capitalize() + " .\n")


def time_corpora(counts: Sequence[int], scratch: Path, say: Callable[[str], None]) -> dict:
    """Prepare corpora up to the n-gram model, and look at them again unchanged.

    Parameters
    ----------
    counts : sequence of int
        How many sentences there are.
    scratch : path
    say : function

    Returns
    -------
    dict
        The rows: sentences, parts; seconds from the start to the end, and of a run that finds all
        unchanged; the most memory of all processes together, in MB; and by stage the seconds of its
        processes together and the most memory that one of them had.
    """
    rows = []
    for count in counts:
        corpus, work = scratch / f"{count} sentences", scratch / "work"
        say(f"writing {count:,} sentences")
        write_large_corpus(corpus, count)
        say(f"preparing {count:,} sentences")
        whole = prepare(corpus, work, root="CountNGrams")
        again = prepare(corpus, work, root="CountNGrams", again=True)
        rows.append({"sentences": count, "parts": len([*(work / "parts").glob("*.txt")]),
                     "bytes": sum(path.stat().st_size for path in corpus.iterdir()),
                     "seconds": whole["seconds"], "unchanged_seconds": again["seconds"],
                     "peak_memory_mb": whole["peak_memory_mb"],
                     "stages": {stage: _of_stage(work, stage) for stage in STAGES}})
        shutil.rmtree(corpus)
        shutil.rmtree(work)
    return {"workers": WORKERS, "rows": rows}


def _of_stage(work: Path, stage: str) -> dict:
    found = [*receipts(work, stage)]
    return {"seconds": sum(receipt["seconds"] for receipt in found),
            "peak_memory_mb": max(receipt["notes"]["peak_memory_mb"] for receipt in found)}
