"""How sure a perplexity is: confidence intervals by the bootstrap over sentences.

The sentences of a text are drawn anew, with replacement, as many as there are; the spread of the
perplexities of many such texts is that of the perplexity. Two models are compared on the same
draws, so that what makes a text hard for both drops out. See Efron and Tibshirani (1993): An
introduction to the bootstrap, chapters 13 (percentile intervals) and 6; and Koehn (2004):
Statistical significance tests for machine translation evaluation, for paired draws of sentences.

Sentences count as independent. Where those of a text are not, as in a story, it is less sure.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from .system.errors import DamagedFile
from .system.hdf5 import open_hdf5, write_hdf5

LEVEL = 0.95
# The bounds of an interval are then sure to a few hundredths of its width.
RESAMPLES = 2000
_SEED = 0


@dataclass(frozen=True)
class Sums:
    """For each sentence of a text, or other group of its tokens, what perplexity is made of.

    Parameters
    ----------
    log_probability : float64 array (groups,)
        Natural logarithms of a model's probabilities, summed over the tokens that count.
    tokens : float64 array (groups,)
        How many these are.
    """

    log_probability: np.ndarray
    tokens: np.ndarray


def confidence(model: Sums, others: dict[str, Sums],
               resamples: int = RESAMPLES, seed: int = _SEED) -> dict:
    """Intervals for a model's perplexity, and for how much it differs from other models'.

    Parameters
    ----------
    model : Sums
        By sentence.
    others : dict
        By name the sums of other models, of the same sentences in the same order.
    resamples : int
        How often the sentences are drawn.
    seed : int

    Returns
    -------
    dict
        ``{"interval": [low, high], "differences": {name: {"difference": d, "interval": [low,
        high]}}}``: a difference is the model's perplexity less the other's. An interval is None
        where there is one sentence only, which tells nothing of the spread, or a perplexity is
        not finite.

    Raises
    ------
    ValueError
        When the other sums are of another number of sentences.
    """
    sums = [model, *others.values()]
    columns = np.stack([each for of in sums for each in (of.log_probability, of.tokens)], axis=1)
    whole = _perplexities(columns.sum(axis=0, keepdims=True))[0]
    drawn = _perplexities(_draw(columns, resamples, seed))

    def interval(values: np.ndarray) -> list[float] | None:
        if len(columns) < 2 or not np.isfinite(values).all():
            return None
        return np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()

    return {"interval": interval(drawn[:, 0]), "differences": {
        name: {"difference": float(whole[0] - whole[place]),
               "interval": interval(drawn[:, 0] - drawn[:, place])}
        for place, name in enumerate(others, 1)}}


def _draw(columns: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Sums over sentences that are drawn with replacement, (resamples, columns)."""
    random, count = np.random.default_rng(seed), len(columns)
    sums = np.empty((resamples, columns.shape[1]))
    for row in sums:
        # How often each sentence was drawn: one pass over all columns, and no copy of them.
        row[:] = np.bincount(random.integers(count, size=count), minlength=count) @ columns
    return sums


def _perplexities(sums: np.ndarray) -> np.ndarray:
    """Perplexities, (rows, models), of sums of log-probability and tokens in turn."""
    with np.errstate(over="ignore"):  # it is infinity
        return np.exp(-sums[:, ::2] / sums[:, 1::2])


def write_sums(path: str | os.PathLike, sums: Sums, text: str) -> None:
    """Keep sums, so that the next model can be compared with this one.

    Parameters
    ----------
    path : path
        Where the file, HDF5, is to appear.
    sums : Sums
    text : str
        What tells this text, and the way in which its tokens count, from others.

    Raises
    ------
    UserError
        When the disk does not take it.
    """
    with write_hdf5(path) as file:
        file.attrs["text"] = text
        file["log_probability"] = sums.log_probability
        file["tokens"] = sums.tokens


def read_sums(path: str | os.PathLike, text: str) -> Sums | None:
    """The sums that were kept; None where they are of another text, damaged or gone."""
    try:
        with open_hdf5(path) as file:
            if file.attrs["text"] == text:
                return Sums(file["log_probability"][()], file["tokens"][()])
    except (DamagedFile, FileNotFoundError):
        pass  # then there is nothing to compare with, which is no failure
    return None
