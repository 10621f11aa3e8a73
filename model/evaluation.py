"""Perplexity of a corpus, with and without the unknown word."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import numpy as np

from .confidence import Sums
from .data.shards import ShardReader
from .data.vocabulary import Vocabulary

# Micro-batches of the evaluation: enough rows for the matrix products, little memory.
TOKENS_PER_BATCH = 8192

# Where the exponential of a float overflows.
_LARGEST_EXPONENT = 709.0


@dataclass
class Totals:
    """Sums over a set of sentences, from which its figures are computed.

    As in KenLM's query: the end of each sentence counts as a token, ``<s>`` does not.
    """

    sentences: int = 0
    tokens: int = 0
    out_of_vocabulary: int = 0
    log_probability: float = 0.0
    log_probability_of_unknown: float = 0.0

    def add(self, log_probabilities: np.ndarray, targets: np.ndarray, unknown: int) -> None:
        """Add sentences of one length.

        Parameters
        ----------
        log_probabilities : float array (sentences, steps)
            Natural logarithms of the targets' probabilities.
        targets : integer array (sentences, steps)
        unknown : int
            The index of ``<unk>``.
        """
        is_unknown = targets == unknown
        self.sentences += len(targets)
        self.tokens += targets.size
        self.out_of_vocabulary += int(is_unknown.sum())
        self.log_probability += float(log_probabilities.sum(dtype="float64"))
        self.log_probability_of_unknown += float(
            log_probabilities[is_unknown].sum(dtype="float64"))

    def __add__(self, other: Totals) -> Totals:
        return Totals(*(getattr(self, each.name) + getattr(other, each.name)
                        for each in fields(self)))

    def figures(self) -> dict:
        """Perplexities and counts, under the names of the metrics file."""
        known = self.tokens - self.out_of_vocabulary
        words = self.tokens - self.sentences
        return {
            "perplexity": perplexity(self.log_probability, self.tokens),
            "perplexity_without_unk": perplexity(
                self.log_probability - self.log_probability_of_unknown, known),
            "oov_rate": self.out_of_vocabulary / words if words else 0.0,
            "oov_count": self.out_of_vocabulary,
            "tokens": self.tokens,
            "words": words,
            "sentences": self.sentences,
        }


@dataclass
class Evaluation:
    """What one pass over a set of sentences gives.

    Parameters
    ----------
    totals : Totals
        Over everything.
    by_steps : dict of int to Totals
        By number of steps of a sentence, its words and the end.
    by_word : Sums
        Over the occurrences of each word of the vocabulary as target.
    by_sentence, known_by_sentence : Sums
        Of all tokens, and of all but ``<unk>``, in the order of the `batches`.
    by_position, known_by_position : Sums
        The same for the first targets of all sentences, the second ones, and so on.
    most_surprising : list of (float, list of int)
        The sentences of highest perplexity: it and their words' indices, highest first.
    """

    totals: Totals
    by_steps: dict[int, Totals]
    by_word: Sums
    by_sentence: Sums
    known_by_sentence: Sums
    by_position: Sums
    known_by_position: Sums
    most_surprising: list[tuple[float, list[int]]]

    def sums(self, figure: str) -> Sums:
        """The sums by sentence of which a figure, one that `headline` may name, is made."""
        return self.by_sentence if figure == "perplexity" else self.known_by_sentence

    def positions(self, figure: str) -> Sums:
        """As `sums`, by the position in the sentence."""
        return self.by_position if figure == "perplexity" else self.known_by_position

    def lengths(self, figure: str) -> Sums:
        """As `sums`, by the number of steps of the sentence, from 0."""
        sums = np.zeros((2, 1 + max(self.by_steps)))
        for steps, of in self.by_steps.items():
            sums[:, steps] = of.log_probability, of.tokens
            if figure != "perplexity":
                sums[:, steps] -= of.log_probability_of_unknown, of.out_of_vocabulary
        return Sums(*sums)

    def knowledge(self) -> Sums:
        """The sums over what is known, and over ``<unk>``."""
        of = self.totals
        unknown = np.array([of.log_probability_of_unknown, of.out_of_vocabulary])
        return Sums(*np.stack([(of.log_probability, of.tokens) - unknown, unknown], axis=1))

    def details(self, vocabulary: Vocabulary) -> dict:
        """The figures, and the most surprising sentences, as JSON values."""
        return {
            **self.totals.figures(),
            "most_surprising": [
                {"perplexity": perplexity, "words": [vocabulary.words[n] for n in words]}
                for perplexity, words in self.most_surprising],
        }


def headline(vocabulary: Vocabulary) -> str:
    """The name of the figure that tells how good a model is.

    Where training never sees ``<unk>``, what a model gives it is arbitrary, and so is a perplexity
    that counts it.
    """
    return ("perplexity" if vocabulary.counts[vocabulary.unknown]
            else "perplexity_without_unk")


def perplexity(log_probability: float, tokens: int) -> float:
    """Exponential of the mean negative log probability per token.

    Parameters
    ----------
    log_probability : float
        Natural logarithm, summed over the tokens.
    tokens : int

    Returns
    -------
    float
        NaN where there are no tokens, infinity beyond the range of floats.
    """
    if not tokens:
        return math.nan
    entropy = -log_probability / tokens
    return math.exp(entropy) if entropy < _LARGEST_EXPONENT else math.inf


def evaluate(log_probabilities: Callable[[np.ndarray, np.ndarray], np.ndarray],
             reader: ShardReader, vocabulary: Vocabulary, *, surprising: int = 20,
             on_progress: Callable[[float], None] = lambda share: None) -> Evaluation:
    """Score every sentence of some shards; each token counts, whatever the sentence's length.

    Parameters
    ----------
    log_probabilities : function
        From inputs and targets, int32 arrays (sentences, steps), to the natural logarithms of
        the targets' probabilities, (sentences, steps).
    reader : ShardReader
    vocabulary : Vocabulary
    surprising : int
        How many of the most surprising sentences to keep.
    on_progress : function
        Called with the share of the tokens that is done.

    Returns
    -------
    Evaluation
    """
    size = len(vocabulary.words)
    every, by_steps = Totals(), dict[int, Totals]()
    by_word = np.zeros((2, size))
    # Of all tokens and of the known ones, the log-probability and the number.
    by_position = np.zeros((4, max(reader.step_counts)))
    by_sentence: list[list[np.ndarray]] = []
    worst: list[tuple[float, list[int]]] = []
    all_tokens = sum(steps * count for steps, count in reader.step_counts.items())
    for inputs, targets in batches(reader):
        steps = targets.shape[1]
        scores = np.asarray(log_probabilities(inputs, targets), "float64")
        for each in (every, by_steps.setdefault(steps, Totals())):
            each.add(scores, targets, vocabulary.unknown)
        by_word += [np.bincount(targets.ravel(), scores.ravel(), size),
                    np.bincount(targets.ravel(), minlength=size)]
        known = targets != vocabulary.unknown
        each_token = (scores, np.ones_like(scores), np.where(known, scores, 0), known)
        by_sentence.append([column.sum(1, dtype="float64") for column in each_token])
        by_position[:, :steps] += [column.sum(0, dtype="float64") for column in each_token]
        of_sentence = np.exp(-scores.mean(axis=1))
        for row in np.argsort(-of_sentence, kind="stable")[:surprising]:
            worst.append((float(of_sentence[row]), targets[row, :-1].tolist()))
        worst = heapq.nlargest(surprising, worst)
        on_progress(every.tokens / all_tokens)
    columns = [np.concatenate(column) for column in zip(*by_sentence)]
    return Evaluation(every, by_steps, Sums(*by_word), Sums(*columns[:2]), Sums(*columns[2:]),
                      Sums(*by_position[:2]), Sums(*by_position[2:]), worst)


def batches(reader: ShardReader) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All sentences of some shards in batches of one length, bounded in size."""
    for steps in reader.step_counts:
        inputs, targets = reader.sentences(steps)
        size = max(1, TOKENS_PER_BATCH // steps)
        for start in range(0, len(inputs), size):
            yield inputs[start:start + size], targets[start:start + size]
