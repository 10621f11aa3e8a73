"""A training that starts from the weights of another model, matched word by word."""

from __future__ import annotations

import numpy as np

from model.checkpoint import Checkpoint
from model.data.vocabulary import Vocabulary


def carry_over(previous: Checkpoint, fresh: dict[str, np.ndarray],
               vocabulary: Vocabulary) -> dict[str, np.ndarray] | None:
    """The weights of another network, matched by the spelling of words.

    Words that the previous vocabulary does not have keep their fresh weights.

    Parameters
    ----------
    previous : Checkpoint
    fresh : dict of str to array
        The weights that the new network has, by name.
    vocabulary : Vocabulary
        Of the new network.

    Returns
    -------
    dict of str to array, or None
        None when the two networks differ in more than the vocabulary.
    """
    place = {word: n for n, word in enumerate(previous.vocabulary.words)}
    shared = [(n, place[word]) for n, word in enumerate(vocabulary.words) if word in place]
    new, old = (np.array(column) for column in zip(*shared, strict=True))
    carried = {}
    for name, value in fresh.items():
        before, words = previous.parameters.get(name), _vocabulary_axis(name)
        if before is None or before.ndim != value.ndim:
            return None
        if words is None:
            if before.shape != value.shape:
                return None
            carried[name] = before
        elif np.delete(before.shape, words).tolist() == np.delete(value.shape, words).tolist():
            carried[name] = value.copy()
            np.moveaxis(carried[name], words, 0)[new] = np.moveaxis(before, words, 0)[old]
        else:
            return None
    return carried


def _vocabulary_axis(name: str) -> int | None:
    """Which axis of a parameter counts words: rows into the network, columns out of it."""
    if name.startswith("lstm1.W_in_to_"):
        return 0
    return {"softmax.W": 1, "softmax.b": 0}.get(name)
