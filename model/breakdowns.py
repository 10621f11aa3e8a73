"""Where models are good: perplexity by word, by length, by position, and by sentence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.confidence import Sums
from model.data.shards import ShardReader
from model.data.vocabulary import END, SPECIALS, UNKNOWN, Vocabulary
from model.evaluation import Evaluation, batches, headline, perplexity

_GROUPS_OF_LENGTHS = 10
_SINGLE_POSITIONS = 5

_Groups = list[tuple[str, Sequence[int]]]


def breakdowns(evaluations: dict[str, Evaluation], vocabulary: Vocabulary) -> dict:
    """Perplexities of groups of tokens, by several models.

    Lengths and positions are of the tokens that the `headline` counts.

    Parameters
    ----------
    evaluations : dict
        Of the same text, by model.
    vocabulary : Vocabulary

    Returns
    -------
    dict
        ``{"by_frequency": rows, "by_length": rows, "by_position": rows, "by_knowledge": rows}``.
        A row is ``{"group": label, "tokens": n, "share": of all tokens, "perplexity": {model: p,
        ...}}``; there is none for a group without tokens. Frequency is the rank of the word to
        predict in the vocabulary, length the number of words of its sentence, position its place
        there, from 1.
    """
    figure = headline(vocabulary)
    one = next(iter(evaluations.values()))
    places = {word: n for n, word in enumerate(vocabulary.words)}
    groups: dict[str, _Groups] = {
        "by_frequency": [*_ranks(vocabulary), (UNKNOWN, [places[UNKNOWN]]), (END, [places[END]])],
        "by_length": _lengths(one.lengths(figure)),
        "by_position": _positions(len(one.by_position.tokens)),
        "by_knowledge": [(f"known words and {END}", [0]), (UNKNOWN, [1])],
    }
    sums = {name: {"by_frequency": of.by_word, "by_length": of.lengths(figure),
                   "by_position": of.positions(figure), "by_knowledge": of.knowledge()}
            for name, of in evaluations.items()}
    return {kind: _rows(each, {name: of[kind] for name, of in sums.items()})
            for kind, each in groups.items()}


def _rows(groups: _Groups, sums: dict[str, Sums]) -> list[dict]:
    tokens = next(iter(sums.values())).tokens
    rows = []
    for label, members in groups:
        count = int(tokens[list(members)].sum())
        if count:
            rows.append({
                "group": label, "tokens": count, "share": count / float(tokens.sum()),
                "perplexity": {
                    name: perplexity(float(of.log_probability[list(members)].sum()), count)
                    for name, of in sums.items()}})
    return rows


def _ranks(vocabulary: Vocabulary) -> _Groups:
    """The words by their rank, in powers of ten."""
    ordinary = [n for n, word in enumerate(vocabulary.words) if word not in SPECIALS]
    groups: _Groups = []
    first = 0
    while first < len(ordinary):
        last = min(10 * first or 10, len(ordinary))
        groups.append((f"{first + 1:,} to {last:,}", ordinary[first:last]))
        first = last
    return groups


def _lengths(sums: Sums) -> _Groups:
    """Numbers of steps in groups of about as many tokens, named by the words before the end."""
    enough = sums.tokens.sum() / _GROUPS_OF_LENGTHS
    groups: _Groups = []
    group: list[int] = []
    there = np.flatnonzero(sums.tokens).tolist()
    for steps in there:
        group.append(steps)
        if sums.tokens[group].sum() >= enough or steps == there[-1]:
            words = (group[0] - 1, group[-1] - 1)
            label = f"{words[0]}" if len(group) == 1 else f"{words[0]} to {words[1]}"
            groups.append((label, group))
            group = []
    return groups


def _positions(longest: int) -> _Groups:
    """The first places one by one, then twice as many at a time; as indices from 0."""
    groups: _Groups = [(f"{place + 1}", [place])
                       for place in range(min(_SINGLE_POSITIONS, longest))]
    first, last = _SINGLE_POSITIONS, 2 * _SINGLE_POSITIONS
    while first < longest:
        groups.append((f"{first + 1} to {last}", range(first, min(last, longest))))
        first, last = last, 2 * last
    return groups


def most_different(evaluations: dict[str, Evaluation], reader: ShardReader,
                   vocabulary: Vocabulary, count: int = 10) -> dict[str, list[dict]]:
    """The sentences that one of two models finds the easiest compared with the other.

    Parameters
    ----------
    evaluations : dict
        Of two models, by name.
    reader : ShardReader
        Theirs.
    vocabulary : Vocabulary
    count : int
        How many sentences to show for each model, at most.

    Returns
    -------
    dict
        For each model the sentences where it is better, those first where the ratio of the two
        perplexities is the highest: ``{"words": words, "perplexity": {model: p, ...}}``.
    """
    figure = headline(vocabulary)
    sums = {name: of.sums(figure) for name, of in evaluations.items()}
    first, second = sums.values()
    better = (first.log_probability - second.log_probability) / first.tokens
    chosen = {}
    for name, by in zip(sums, (better, -better)):
        order = np.argsort(-by, kind="stable")[:count]
        chosen[name] = [int(place) for place in order if by[place] > 0]
    words = _sentences(reader, {place for places in chosen.values() for place in places})
    return {name: [{
        "words": [vocabulary.words[n] for n in words[place]],
        "perplexity": {each: perplexity(float(of.log_probability[place]), int(of.tokens[place]))
                       for each, of in sums.items()},
    } for place in places] for name, places in chosen.items()}


def _sentences(reader: ShardReader, wanted: set[int]) -> dict[int, list[int]]:
    """The words of some sentences, without the end, by their places in the order of batches."""
    found, before = {}, 0
    for _, targets in batches(reader):
        for place in wanted:
            if before <= place < before + len(targets):
                found[place] = targets[place - before, :-1].tolist()
        before += len(targets)
    return found
