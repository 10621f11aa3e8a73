"""Perplexity of a corpus, with and without the unknown word."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields

import numpy as np

from model.confidence import SentenceSums
from model.data.shards import ShardReader
from model.data.vocabulary import Vocabulary

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
    tokens_by_word, log_probability_by_word : float64 arrays (vocabulary,)
        Sums over the occurrences of each word as target.
    by_sentence, known_by_sentence : SentenceSums
        Of all tokens, and of all but ``<unk>``, in the order of the `batches`.
    most_surprising : list of (float, list of int)
        The sentences of highest perplexity: it and their words' indices, highest first.
    """

    totals: Totals
    by_steps: dict[int, Totals]
    tokens_by_word: np.ndarray
    log_probability_by_word: np.ndarray
    by_sentence: SentenceSums
    known_by_sentence: SentenceSums
    most_surprising: list[tuple[float, list[int]]]

    def sums(self, figure: str) -> SentenceSums:
        """The sums by sentence of which a figure, one that `headline` may name, is made."""
        return self.by_sentence if figure == "perplexity" else self.known_by_sentence

    def details(self, vocabulary: Vocabulary) -> dict:
        """Everything as JSON values: the figures, and the details by name."""
        return {
            **self.totals.figures(),
            "by_steps": {str(steps): asdict(totals)
                         for steps, totals in sorted(self.by_steps.items())},
            "tokens_by_word": self.tokens_by_word.tolist(),
            "log_probability_by_word": self.log_probability_by_word.tolist(),
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
    tokens_by_word, log_probability_by_word = np.zeros(size), np.zeros(size)
    # By sentence: of all tokens and of the known ones, the log-probability and the number.
    by_sentence: list[list[np.ndarray]] = []
    worst: list[tuple[float, list[int]]] = []
    all_tokens = sum(steps * count for steps, count in reader.step_counts.items())
    for inputs, targets in batches(reader):
        steps = targets.shape[1]
        scores = np.asarray(log_probabilities(inputs, targets), "float64")
        for each in (every, by_steps.setdefault(steps, Totals())):
            each.add(scores, targets, vocabulary.unknown)
        tokens_by_word += np.bincount(targets.ravel(), minlength=size)
        log_probability_by_word += np.bincount(
            targets.ravel(), weights=scores.ravel(), minlength=size)
        known = targets != vocabulary.unknown
        by_sentence.append([scores.sum(1), np.full(len(targets), float(steps)),
                            np.where(known, scores, 0).sum(1), known.sum(1, dtype="float64")])
        of_sentence = np.exp(-scores.mean(axis=1))
        for row in np.argsort(-of_sentence, kind="stable")[:surprising]:
            worst.append((float(of_sentence[row]), targets[row, :-1].tolist()))
        worst = heapq.nlargest(surprising, worst)
        on_progress(every.tokens / all_tokens)
    columns = [np.concatenate(column) for column in zip(*by_sentence)]
    return Evaluation(every, by_steps, tokens_by_word, log_probability_by_word,
                      SentenceSums(*columns[:2]), SentenceSums(*columns[2:]), worst)


def batches(reader: ShardReader) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All sentences of some shards in batches of one length, bounded in size."""
    for steps in reader.step_counts:
        inputs, targets = reader.sentences(steps)
        size = max(1, TOKENS_PER_BATCH // steps)
        for start in range(0, len(inputs), size):
            yield inputs[start:start + size], targets[start:start + size]
