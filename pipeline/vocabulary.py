"""Stage 3: the words that the network will know, from the counts of the training side."""

from __future__ import annotations

import itertools
import os
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

from model.files import UserError
from model.vocabulary import END, SPECIALS, START, UNKNOWN, Vocabulary, read_lines
from pipeline.tokens import Types

_FREQUENT = 8  # occurrences in a part: few of its types have so many; any number from 1 is right


def build_vocabulary(
    parts: Sequence[Types],
    sentences: int,
    *,
    size: int,
    minimum_count: int = 1,
    word_list: str | os.PathLike | None = None,
) -> Vocabulary:
    """Choose the words, and order them by count, descending, then by the word.

    Parameters
    ----------
    parts : sequence of Types
        The distinct words of each part of the training side.
    sentences : int
        The number of sentences they were counted in: the count of `<s>` and `</s>`.
    size : int
        The number of entries including `<unk>`, `<s>` and `</s>`: the most frequent words fill
        it, of equally frequent ones those first by code points. There may be fewer.
    minimum_count : int
        Words that occur less often are left out.
    word_list : path, optional
        A text file with a word a line (what follows a tab is ignored, so that a vocabulary can
        serve). Exactly these words and the three special ones make the vocabulary then, and
        `size` and `minimum_count` mean nothing.

    Raises
    ------
    UserError
        When no word is left, or the word list is malformed (names the line).
    """
    if word_list:
        chosen = _count(parts, _read_word_list(word_list))
    else:
        if size <= len(SPECIALS):
            raise UserError(
                f"the vocabulary size is {size}: it includes {', '.join(SPECIALS)} and must leave "
                "room for words."
            )
        room = size - len(SPECIALS)
        counts = _count(parts, _candidates(parts, room))
        frequent = [entry for entry in counts.items() if entry[1] >= minimum_count]
        chosen = dict(sorted(frequent, key=_order)[:room])
        if not chosen:
            raise UserError(
                f"no word occurs {minimum_count} times or more in the training side: lower the "
                "minimum count or give more text."
            )
    outside = sum(int(part.counts.sum()) for part in parts) - sum(chosen.values())
    entries = {**chosen, UNKNOWN: outside, START: sentences, END: sentences}
    words, ordered_counts = zip(*sorted(entries.items(), key=_order))
    return Vocabulary(words, ordered_counts)


def count_types(parts: Iterable[Types]) -> tuple[list[str], np.ndarray]:
    """Add up the counts of all words of several parts: (list of str, int64 array (types,))."""
    totals: dict[str, int] = {}
    for part in parts:
        for word, count in zip(part.words(), part.counts.tolist()):
            totals[word] = totals.get(word, 0) + count
    return list(totals), np.fromiter(totals.values(), dtype=np.int64, count=len(totals))


def _count(parts: Iterable[Types], words: Iterable[str]) -> dict[str, int]:
    """How often each of some words occurs in all parts together."""
    totals = dict.fromkeys(words, 0)
    for part in parts:
        types = part.words()
        wanted = map(totals.__contains__, types)
        for word, count in itertools.compress(zip(types, part.counts.tolist()), wanted):
            totals[word] += count
    return totals


def _candidates(parts: Sequence[Types], room: int) -> Iterable[str]:
    """Some words, among them the `room` most frequent and all that are as frequent as these.

    Most of a corpus's types are rare, and adding up all of their counts takes more time than all
    else in this stage. So only those counts are added up that are not small; what the others can
    come to at most tells which words are out of the question.
    """
    words: list[str] = []
    their_counts = []
    for part in parts:
        places = np.flatnonzero(part.counts >= _FREQUENT)
        words += map(part.words().__getitem__, places.tolist())
        their_counts.append(part.counts[places])
    numbers = {word: number for number, word in enumerate(dict.fromkeys(words))}
    found = np.fromiter(map(numbers.__getitem__, words), np.int64, len(words))
    at_least = np.bincount(found, weights=np.concatenate(their_counts))
    at_most = at_least + (_FREQUENT - 1) * (len(parts) - np.bincount(found))
    if len(numbers) >= room:
        bound = np.partition(at_least, -room)[-room]
        if bound > (_FREQUENT - 1) * len(parts):  # the most of a word that is frequent in no part
            return itertools.compress(numbers, at_most >= bound)
    return itertools.chain.from_iterable(part.words() for part in parts)


def _order(entry: tuple[str, int]) -> tuple[int, str]:
    word, count = entry
    return -count, word


def _read_word_list(path: str | os.PathLike) -> list[str]:
    words: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), 1):
        word = unicodedata.normalize("NFC", line.partition("\t")[0].strip())
        if not word or word in SPECIALS:
            continue
        if len(word.split()) > 1:
            raise UserError(f"{path}, line {number}: {word!r} is more than one word.")
        if word in words:
            raise UserError(
                f"{path}, line {number}: {word!r} stands there a second time, first on line "
                f"{words[word]}."
            )
        words[word] = number
    if not words:
        raise UserError(f"the word list {path} is empty: give a word a line.")
    return list(words)
