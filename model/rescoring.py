"""Lists of hypotheses in a new order: by the model and the scores that they have, weighted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby

import numpy as np

from .data.nbest import OF_MODEL, Hypothesis, Ranked
from .data.tokenization import clean
from .data.vocabulary import Vocabulary
from .scoring import Batch, score_sentences
from .system.errors import UserError

# Hypotheses that are scored at a time, of whole lists: enough that many have one length.
_PER_CHUNK = 4096
WORDS = "words"  # the name of the number of words, as a score


def rescore(hypotheses: Iterable[Hypothesis],
            log_probabilities: Callable[[list[Batch]], Iterable[np.ndarray]],
            vocabulary: Vocabulary, *, weights: Mapping[str, float], per_token: bool,
            lowercase: bool, split: str = "words") -> Iterator[list[Ranked]]:
    """Score lists of hypotheses, each list as a whole, in bounded memory but for the longest list.

    Of hypotheses with the same words one is computed, of all lists that are scored together.

    Parameters
    ----------
    hypotheses : iterable of Hypothesis
        Those of a list follow each other.
    log_probabilities, vocabulary, lowercase, split
        See `model.scoring.score_lines`.
    weights : dict
        By name of the scores; the combined score is the sum of their products. "model" is the
        log-probability that is computed, and "words" the number of a hypothesis's words.
    per_token : bool
        Whether "model" is the log-probability divided by the number of tokens, the end included.

    Yields
    ------
    list of Ranked
        A list, the best first; equal ones in their old order.

    Raises
    ------
    UserError
        On a hypothesis without one of the scores that have a weight, or with words that cannot be
        used; names its line.
    """
    chunk: list[list[Hypothesis]] = []
    for _, group in groupby(hypotheses, lambda hypothesis: hypothesis.list_id):
        chunk.append(list(group))
        if sum(map(len, chunk)) >= _PER_CHUNK:
            yield from _ranked(chunk, log_probabilities, vocabulary, weights, per_token,
                               lowercase, split)
            chunk = []
    yield from _ranked(chunk, log_probabilities, vocabulary, weights, per_token, lowercase, split)


def _ranked(lists: list[list[Hypothesis]],
            log_probabilities: Callable[[list[Batch]], Iterable[np.ndarray]],
            vocabulary: Vocabulary, weights: Mapping[str, float], per_token: bool,
            lowercase: bool, split: str) -> Iterator[list[Ranked]]:
    texts = [[_cleaned(hypothesis, split) for hypothesis in each] for each in lists]
    distinct = list(dict.fromkeys(text for of_list in texts for text in of_list))
    scores = dict(zip(distinct, score_sentences(distinct, log_probabilities, vocabulary,
                                                lowercase=lowercase, split=split, every=True)))
    given = [name for name in weights if name not in (OF_MODEL, WORDS)]
    for each, of_list in zip(lists, texts):
        found = []
        for hypothesis, text in zip(each, of_list):
            totals = scores[text].totals
            of_model = totals.log_probability / (totals.tokens if per_token else 1)
            combined = (weights[OF_MODEL] * of_model + weights[WORDS] * (totals.tokens - 1)
                        + sum(weights[name] * hypothesis.score(name) for name in given))
            found.append(Ranked(hypothesis, totals.log_probability, combined))
        yield sorted(found, key=lambda ranked: -ranked.combined)


def _cleaned(hypothesis: Hypothesis, split: str) -> str:
    try:
        return clean(hypothesis.text, split)
    except ValueError as error:
        raise UserError(f"{hypothesis.place}: {error}.") from None
