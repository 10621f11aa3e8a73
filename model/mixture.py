"""Linear interpolation of two language models, as a network and an n-gram model."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import scipy.optimize


def mix(first: np.ndarray, second: np.ndarray, weight: float) -> np.ndarray:
    """Score tokens by ``weight * first + (1 - weight) * second``.

    Parameters
    ----------
    first, second : float arrays
        Natural logarithms of the probabilities that two models give to the same tokens.
    weight : float
        Of the first model, above 0 and below 1.

    Returns
    -------
    float64 array
        Natural logarithms.
    """
    return np.logaddexp(np.log(weight) + first.astype("float64"), np.log1p(-weight) + second)


def best_weight(scores: Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]]) -> float:
    """The weight of the first model with which the mixture's perplexity is lowest.

    Its logarithm is a convex function of the weight, so there is one lowest value. See Jelinek and
    Mercer (1980): Interpolated estimation of Markov source parameters from sparse data.

    Parameters
    ----------
    scores : function
        Gives, each time it is called, all pairs of arrays as for `mix`, of one text that neither
        model was trained on: one pair at a time is in memory.

    Returns
    -------
    float
        Above 0 and below 1.
    """
    def loss(weight: float) -> float:
        total, tokens = 0.0, 0
        for first, second in scores():
            total -= mix(first, second, weight).sum()
            tokens += first.size
        return total / tokens

    return float(scipy.optimize.minimize_scalar(loss, bounds=(0, 1), method="bounded").x)
