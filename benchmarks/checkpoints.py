"""Writing and publishing a checkpoint: time, memory and sizes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.machine import peak_memory
from benchmarks.workers import REPOSITORY
from model.checkpoint import Checkpoint, publish_model, write_checkpoint
from model.data.vocabulary import SPECIALS, Vocabulary

_MEGABYTE = 10**6


def time_checkpoints(units: int, vocabulary: int, scratch: Path,
                     say: Callable[[str], None]) -> dict:
    """Write and publish the checkpoint of an LSTM layer, its softmax and Adam's state.

    Parameters
    ----------
    units, vocabulary : int
    scratch : path
        An empty folder.
    say : function
        Told what is done.

    Returns
    -------
    dict
        "units", "vocabulary"; "checkpoint_mb" and "model_mb", the sizes of the files; for
        "writing" and "publishing" the "seconds" and "added_mb", by how much the peak memory of a
        process grew.
    """
    say(f"a checkpoint of {units:,} units")
    # A process of its own: its peak is not that of another section.
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from benchmarks.checkpoints import _measure; "
         "_measure(*map(int, sys.argv[1:3]), sys.argv[3])", str(units), str(vocabulary),
         str(scratch)], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    figures = dict(zip(("checkpoint_mb", "model_mb", "writing_seconds", "writing_added_mb",
                        "publishing_seconds", "publishing_added_mb"),
                       map(float, done.stdout.split())))
    return {"units": units, "vocabulary": vocabulary, **figures}


def _measure(units: int, vocabulary: int, folder: str) -> None:
    words = (*(f"word{n}" for n in range(vocabulary - len(SPECIALS))), *SPECIALS)
    shapes = {**{f"W_hid_{gate}": (units, units) for gate in range(4)},
              **{f"W_in_{gate}": (vocabulary, units) for gate in range(4)},
              "softmax": (units, vocabulary)}
    random = np.random.default_rng(1)
    parameters = {name: random.random(shape, np.float32) for name, shape in shapes.items()}
    moments = [np.array(value) for value in (*parameters.values(), *parameters.values())]
    checkpoint = Checkpoint(
        parameters=parameters, optimiser=moments,
        vocabulary=Vocabulary(words, (1,) * vocabulary), settings={}, position={})
    path, model = Path(folder, "last.h5"), Path(folder, "model.h5")
    figures = []
    for step in (lambda: write_checkpoint(path, checkpoint), lambda: publish_model(path, model)):
        before, started = peak_memory(), time.perf_counter()
        step()
        figures += [time.perf_counter() - started, peak_memory() - before]
    sizes = [file.stat().st_size / _MEGABYTE for file in (path, model)]
    print(*sizes, *figures)
