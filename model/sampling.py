"""Sentences drawn from a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from .data.vocabulary import Vocabulary

# Sentences that are drawn side by side.
_SAMPLES_PER_BATCH = 64


def sample(next_word: Callable[[np.ndarray], np.ndarray], vocabulary: Vocabulary, *, count: int,
           seed: int, temperature: float = 1.0, prefix: np.ndarray | None = None,
           max_words: int = 200) -> Iterator[list[int]]:
    """Draw sentences from a model.

    Each step computes the sentence so far anew: quadratic in its length, but what is compiled is
    the network itself, and sentences are short.

    Parameters
    ----------
    next_word : function
        See `model.network.compile_next_word`.
    vocabulary : Vocabulary
    count : int
        How many sentences.
    seed : int
        Sentence n depends on the seed and on n, not on `count`.
    temperature : float
        The logarithms of the probabilities are divided by it: below 1 the likely words become
        likelier. 0 takes the likeliest word always.
    prefix : integer array (words,), optional
        What every sentence begins with.
    max_words : int
        A sentence that has not ended after so many words more is cut there.

    Yields
    ------
    list of int
        The words after the prefix, without ``</s>``. Neither ``<s>`` nor ``<unk>`` is among them:
        the model's probability for the unknown word is shared out over the others.
    """
    given = np.array([vocabulary.start, *(prefix if prefix is not None else ())], "int32")
    for first in range(0, count, _SAMPLES_PER_BATCH):
        numbers = range(first, min(count, first + _SAMPLES_PER_BATCH))
        generators = [np.random.default_rng([seed, number]) for number in numbers]
        sentences = np.tile(given, (len(generators), 1))
        results: list[list[int]] = [[] for _ in numbers]
        going = np.arange(len(generators))
        for _ in range(max_words):
            probabilities = np.asarray(next_word(sentences), "float64")
            probabilities[:, [vocabulary.start, vocabulary.unknown]] = 0
            words = _draw(probabilities, temperature, [generators[n] for n in going])
            sentences = np.column_stack([sentences, words])
            sentences = sentences[stay := words != vocabulary.end]
            for n, word in zip(going[stay], sentences[:, -1]):
                results[n].append(int(word))
            going = going[stay]
            if not len(going):
                break
        yield from results


def _draw(probabilities: np.ndarray, temperature: float,
          generators: list[np.random.Generator]) -> np.ndarray:
    """A word for each row (sentences, vocabulary) of probabilities: int32 (sentences,)."""
    if temperature == 0:
        return np.argmax(probabilities, axis=1).astype("int32")
    with np.errstate(divide="ignore", over="ignore"):
        logarithms = np.log(probabilities)
        # The likeliest word at 0, before the division: no temperature is too low for the range.
        scaled = (logarithms - logarithms.max(axis=1, keepdims=True)) / temperature
    cumulative = np.cumsum(np.exp(scaled), axis=1)
    # 1 - random(): above 0, so that a word of no probability at the beginning is never drawn.
    marks = cumulative[:, -1] * np.array([1 - generator.random() for generator in generators])
    return np.argmax(cumulative >= marks[:, None], axis=1).astype("int32")
