"""N-gram models from the training counts: what a network has to beat."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse

from model.data.shards import ShardReader, load
from model.data.vocabulary import Vocabulary
from model.evaluation import Evaluation, batches, evaluate, headline
from model.kneser_ney import KneserNey
from model.mixture import best_weight, mix
from model.score_file import ScoreFile

_SMOOTHING = [10.0**exponent for exponent in range(-4, 2)]


@dataclass
class Bigrams:
    """Counts of pairs of words, for the unigram and bigram baselines.

    Parameters
    ----------
    pairs : scipy.sparse matrix (vocabulary, vocabulary)
        How often each word (column) follows each word (row, ``<s>`` among them).
    """

    pairs: scipy.sparse.csr_matrix

    @classmethod
    def count(cls, shard_paths: Sequence[Path], vocabulary: Vocabulary) -> Bigrams:
        """Count the pairs in training shards, one shard at a time.

        Parameters
        ----------
        shard_paths : sequence of path
        vocabulary : Vocabulary
            Theirs.

        Raises
        ------
        DamagedFile
            When a shard is damaged.
        UserError
            When one is of another vocabulary.
        """
        size = len(vocabulary.words)
        pairs = scipy.sparse.csr_matrix((size, size), dtype="int64")
        for path in shard_paths:
            shard = load(path, vocabulary.digest)
            inputs = np.concatenate([shard.inputs(steps).ravel() for steps in shard.steps])
            targets = np.concatenate([shard.targets(steps).ravel() for steps in shard.steps])
            ones = np.ones(len(inputs), "int64")
            pairs = pairs + scipy.sparse.csr_matrix((ones, (inputs, targets)), (size, size))
        return cls(pairs)

    def unigram(self, smoothing: float) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        """Model without context.

        ``<s>`` is never predicted, so it takes no share of the probability.

        Parameters
        ----------
        smoothing : float
            Added to each count (Lidstone's rule).

        Returns
        -------
        function
            From inputs and targets, integer arrays (sentences, steps), to the natural logarithms
            of the targets' probabilities, (sentences, steps).
        """
        counts = np.asarray(self.pairs.sum(axis=0)).ravel()
        total = counts.sum() + smoothing * (len(counts) - 1)
        table = np.log((counts + smoothing) / total)
        return lambda inputs, targets: table[targets]

    def bigram(self, smoothing: float) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        """Model of a word given the one before; parameter and result as for `unigram`."""
        contexts = np.asarray(self.pairs.sum(axis=1)).ravel()
        totals = contexts + smoothing * (len(contexts) - 1)

        def score(inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
            counts = np.asarray(self.pairs[inputs.ravel(), targets.ravel()]).reshape(targets.shape)
            return np.log((counts + smoothing) / totals[inputs])

        return score


def baselines(bigrams: Bigrams, valid: ShardReader, sets: dict[str, ShardReader],
              vocabulary: Vocabulary) -> dict:
    """Perplexities of the add-k smoothed unigram and bigram models.

    The constant k of each is the one of 0.0001, 0.001, ..., 10 that is best on the validation
    set. Smoothing and the choice of k: Jurafsky and Martin, Speech and Language Processing,
    chapter on n-gram language models.

    Parameters
    ----------
    bigrams : Bigrams
        Of the training split.
    valid : ShardReader
    sets : dict
        The sets to score, by name.
    vocabulary : Vocabulary

    Returns
    -------
    dict
        ``{"unigram": {"smoothing": k, set name: perplexity, ...}, "bigram": ...}``; perplexities
        without ``<unk>`` where that is the `headline`.
    """
    figure = headline(vocabulary)
    result = {}
    for name, model in (("unigram", bigrams.unigram), ("bigram", bigrams.bigram)):
        def score(reader: ShardReader, smoothing: float, model=model) -> float:
            return evaluate(model(smoothing), reader, vocabulary).totals.figures()[figure]

        best = min(_SMOOTHING, key=lambda smoothing: score(valid, smoothing))
        result[name] = {"smoothing": best,
                        **{key: score(reader, best) for key, reader in sets.items()}}
    return result


def kneser_ney(model: KneserNey, of_network: Mapping[str, Iterable[np.ndarray]],
               sets: dict[str, ShardReader], vocabulary: Vocabulary,
               folder: Path) -> tuple[dict, dict[str, Evaluation]]:
    """Perplexities of an n-gram model, and of its interpolation with the network.

    The weight of the interpolation is the best one on the validation set.

    Parameters
    ----------
    model : KneserNey
    of_network : dict
        By set, the network's scores of each of the set's `batches`, as often as they are iterated:
        natural logarithms of the targets' probabilities, (sentences, steps).
    sets : dict
        The sets to score, by name, ``valid`` among them.
    vocabulary : Vocabulary
    folder : path
        On whose disk the n-gram model's scores are kept meanwhile.

    Returns
    -------
    dict
        ``{"baselines": {"kneser_ney_N": {set name: perplexity, ...}}, "mixture": {"baseline":
        "kneser_ney_N", "order": N, "network_weight": weight, set name: perplexity, ...}}``;
        perplexities without ``<unk>`` where that is the `headline`.
    dict
        By set, all that is known of the n-gram model.
    """
    name, figure = f"kneser_ney_{model.order}", headline(vocabulary)
    of_ngrams = {key: ScoreFile(folder) for key in sets}
    for key, reader in sets.items():
        for scores in model.score(batches(reader)):
            of_ngrams[key].append(scores)

    def counted() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for first, second, (_, targets) in zip(of_network["valid"], of_ngrams["valid"],
                                               batches(sets["valid"])):
            counts = (targets != vocabulary.unknown) | (figure == "perplexity")
            yield first[counts], second[counts]

    weight = best_weight(counted)

    def evaluation(key: str, scores: Iterable[np.ndarray]) -> Evaluation:
        # They are asked for in the order of the batches.
        waiting = iter(scores)
        return evaluate(lambda inputs, targets: next(waiting), sets[key], vocabulary)

    alone = {key: evaluation(key, of_ngrams[key]) for key in sets}
    together = {key: evaluation(key, (
        mix(first, second, weight) for first, second in zip(of_network[key], of_ngrams[key])))
        for key in sets}
    return {
        "baselines": {name: {key: alone[key].totals.figures()[figure] for key in sets}},
        "mixture": {"baseline": name, "order": model.order, "network_weight": weight,
                    **{key: together[key].totals.figures()[figure] for key in sets}},
    }, alone
