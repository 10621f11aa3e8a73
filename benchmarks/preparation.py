"""From raw text to shards through Luigi: time and memory; and a corpus to do it with."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.machine import family_memory
from benchmarks.workers import REPOSITORY
from model.system.errors import UserError

WORKERS = 2

_LOG_SHOWN = 4_000  # characters; the whole log is removed with the working folder
_BLOCK = 10_000  # sentences drawn at a time
_TYPES = 200_000
_SYLLABLES = [consonant + vowel for consonant in "bdfghklmnprstvz" for vowel in "aeiou"]


def write_corpus(path: Path, sentences: int, types: int = _TYPES) -> None:
    """Write a synthetic corpus, the same every time: a shorter one is the longer one's beginning.

    Words have the frequencies of Zipf's law as Mandelbrot corrected it, 1 / (rank + 2.7), and
    are the longer the rarer they are; the lengths of sentences are log-normal, 19 words in the
    median.

    Parameters
    ----------
    path : path
    sentences : int
    types : int
        Words that there are.
    """
    words = np.array([spelling(rank) for rank in range(types)], object)
    limits = np.cumsum(1 / (np.arange(types) + 2.7))
    with open(path, "w", encoding="utf-8") as file:
        for block in range(-(-sentences // _BLOCK)):
            random = np.random.default_rng([20130801, block])
            lengths = np.clip(random.lognormal(np.log(19), 0.5, _BLOCK), 2, 100).astype(int)
            ends = np.cumsum(lengths)
            drawn = words[np.searchsorted(limits, random.random(ends[-1]) * limits[-1])]
            for start, end in list(zip(ends - lengths, ends))[: sentences - block * _BLOCK]:
                file.write(" ".join(drawn[start:end]).capitalize() + " .\n")


def spelling(rank: int) -> str:
    """A word of its own for each rank: the rank in the number system of the syllables."""
    word = ""
    rank += 1
    while rank:
        rank, syllable = divmod(rank - 1, len(_SYLLABLES))
        word += _SYLLABLES[syllable]
    return word


def prepare(corpus: Path, work: Path, *, again: bool = False, root: str = "EncodeCorpus",
            **settings: float) -> dict:
    """Take a corpus to shards in an empty working folder, start-up of all processes included.

    Parameters
    ----------
    corpus : path
    work : path
        The working folder; what it holds is removed first.
    again : bool
        Leave it: see what is to be done, and do only that.
    root : str
        The stage that is made, and all that it needs.
    **settings : number
        Instead of what luigi.cfg says, as vocabulary_size=10000.

    Returns
    -------
    dict
        Seconds; the most memory that all processes together had, looked at ten times a second;
        and the bytes of the shards.

    Raises
    ------
    UserError
        When Luigi fails.
    """
    if not again:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
    command = [sys.executable, "-m", "luigi", "--module", "pipeline", root,
               "--working-folder", str(work), "--corpus-path", str(corpus),
               "--workers", str(WORKERS), "--local-scheduler"]
    for name, value in settings.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    log, memory = work / "luigi.log", 0.0
    with open(log, "w") as output:
        started = time.perf_counter()
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=output, stderr=output,
                                   env={**os.environ, "PIPELINE_WORK": str(work)})
        while True:
            try:
                code = process.wait(0.1)
                break
            except subprocess.TimeoutExpired:
                memory = max(memory, family_memory(process.pid))
        seconds = time.perf_counter() - started
    if code:
        raise UserError(f"preparing {corpus} failed with exit code {code}. The end of its log:\n"
                        f"{log.read_text()[-_LOG_SHOWN:]}")
    return {"seconds": seconds, "peak_memory_mb": memory,
            "shard_bytes": sum(path.stat().st_size for path in (work / "shards").iterdir())}


def time_preparation(corpus: Path | None, sentences: int, repetitions: int, scratch: Path,
                     say: Callable[[str], None]) -> dict:
    """Prepare a corpus several times.

    Parameters
    ----------
    corpus : path or None
        None for a synthetic one.
    sentences : int
        Of the synthetic one.
    repetitions : int
    scratch : path
    say : function

    Returns
    -------
    dict
        The median of the seconds, all of them, and the largest peak of memory.
    """
    name = corpus.name if corpus else f"{sentences:,} synthetic sentences"
    if corpus is None:
        corpus = scratch / "corpus.txt"
        write_corpus(corpus, sentences)
    runs = []
    for number in range(repetitions):
        say(f"{name}, {number + 1} of {repetitions}")
        runs.append(prepare(corpus, scratch / "work"))
    return {"corpus": name, "bytes": corpus.stat().st_size, "workers": WORKERS,
            "seconds": statistics.median(run["seconds"] for run in runs),
            "all_seconds": [run["seconds"] for run in runs],
            "peak_memory_mb": max(run["peak_memory_mb"] for run in runs),
            "shard_bytes": runs[0]["shard_bytes"]}


_SENTENCES_PER_FILE = 10


def time_files(counts: Sequence[int], scratch: Path, say: Callable[[str], None]) -> dict:
    """Prepare folders of many small files, and look at them again unchanged.

    Parameters
    ----------
    counts : sequence of int
        How many files there are.
    scratch : path
    say : function

    Returns
    -------
    dict
        The rows, each with files, and seconds of the first and of the second time.
    """
    whole = scratch / "sentences.txt"
    write_corpus(whole, _SENTENCES_PER_FILE * max(counts))
    lines = whole.read_text(encoding="utf-8").splitlines(keepends=True)
    rows = []
    for count in counts:
        say(f"{count:,} files")
        folder = scratch / f"{count} files"
        folder.mkdir()
        for number in range(count):
            first = _SENTENCES_PER_FILE * number
            (folder / f"{number:06d}.txt").write_text(
                "".join(lines[first:first + _SENTENCES_PER_FILE]), encoding="utf-8")
        rows.append({
            "files": count, "seconds": prepare(folder, scratch / "work")["seconds"],
            "unchanged_seconds": prepare(folder, scratch / "work", again=True)["seconds"]})
        shutil.rmtree(folder)
    return {"sentences_per_file": _SENTENCES_PER_FILE, "workers": WORKERS, "rows": rows}
