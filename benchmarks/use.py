"""How fast a model scores text: compiled, in numpy alone, and exported to ONNX.

``python -m benchmarks.use MODEL TEXT``: tokens a second of each way over the same sentences, split
into words and all; the ways take turns, and the median of the turns counts. Environment variables,
as OMP_NUM_THREADS, say how many threads each takes.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from model.data.tokenization import clean
from model.inference import log_probabilities_of, read_model
from model.scoring import Batch, score_sentences

_TURNS = 5


def main(model: str, text: str) -> None:
    """Print a row for each way."""
    checkpoint = read_model(model)
    tokenization = checkpoint.settings["tokenization"]
    lines = [clean(line, tokenization["split"]) for line in Path(text).read_text().splitlines()]
    ways = {"compiled": log_probabilities_of(checkpoint, "cpu"),
            "numpy": log_probabilities_of(checkpoint, "numpy"),
            "onnxruntime": _onnx(model)}
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    scores: dict[str, np.ndarray] = {}
    for _ in range(_TURNS):
        for name, way in ways.items():
            def score(batches: list[Batch], way: Callable = way) -> Iterator[np.ndarray]:
                return (way(*batch) for batch in batches)

            begin = time.perf_counter()
            found = score_sentences(lines, score, checkpoint.vocabulary, **tokenization)
            seconds = time.perf_counter() - begin
            scores[name] = np.concatenate([line.log_probabilities for line in found])
            speeds[name].append(len(scores[name]) / seconds)
    print(f"{'':12}{'tokens/s':>12}{'of compiled':>14}{'greatest difference':>22}")
    for name, values in speeds.items():
        share = statistics.median(a / b for a, b in zip(values, speeds["compiled"]))
        difference = np.abs(scores[name] - scores["compiled"]).max()
        print(f"{name:12}{statistics.median(values):>12,.0f}{share:>14.2f}{difference:>22.1e}")


def _onnx(model: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    import onnxruntime

    from model.export import export

    with tempfile.TemporaryDirectory() as folder:
        path, _ = export(read_model(model), "onnx", Path(folder) / "model.onnx")
        session = onnxruntime.InferenceSession(path)
    return lambda inputs, targets: session.run(
        None, {"inputs": inputs.astype("int64"), "targets": targets.astype("int64")})[0]


if __name__ == "__main__":
    main(*sys.argv[1:])
