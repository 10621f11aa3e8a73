"""Linear interpolation of two language models, as a network and an n-gram model."""

from __future__ import annotations

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


def best_weight(first: np.ndarray, second: np.ndarray) -> float:
    """The weight of the first model with which the mixture's perplexity is lowest.

    Its logarithm is a convex function of the weight, so there is one lowest value. See Jelinek and
    Mercer (1980): Interpolated estimation of Markov source parameters from sparse data.

    Parameters
    ----------
    first, second : float arrays (tokens,)
        As for `mix`, on text that neither model was trained on.

    Returns
    -------
    float
        Above 0 and below 1.
    """
    found = scipy.optimize.minimize_scalar(
        lambda weight: -mix(first, second, weight).mean(), bounds=(0, 1), method="bounded")
    return float(found.x)
