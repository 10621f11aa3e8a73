"""The micro-batch that all contenders compute."""

from __future__ import annotations

import numpy as np

from benchmarks.extent import Shape


def micro_batch(shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets (sentences, steps), int32: words as unevenly frequent as in a text."""
    shares = 1 / np.arange(1, shape.vocabulary + 1)
    words = np.random.default_rng(1).choice(
        shape.vocabulary, (shape.sentences, shape.steps + 1), p=shares / shares.sum())
    return (np.ascontiguousarray(words[:, :-1], np.int32),
            np.ascontiguousarray(words[:, 1:], np.int32))


def one_hot(indices: np.ndarray, vocabulary: int) -> np.ndarray:
    """float32 (..., vocabulary)"""
    dense = np.zeros((*indices.shape, vocabulary), np.float32)
    np.put_along_axis(dense, indices[..., np.newaxis].astype(np.int64), 1, axis=-1)
    return dense
