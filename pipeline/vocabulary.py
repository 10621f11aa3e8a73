"""Stage 3: the words that the network will know, from the counts of the training side."""

from __future__ import annotations

import itertools
import os
import unicodedata
from collections.abc import Iterable

import numpy as np

from model.files import UserError
from model.vocabulary import END, SPECIALS, START, UNKNOWN, Vocabulary, read_lines
from pipeline.tokens import read_types


def count_types(token_files: Iterable[str | os.PathLike]) -> tuple[list[str], np.ndarray]:
    """Add up the counts of several tokens files.

    Parameters
    ----------
    token_files : iterable of path
        Files of `pipeline.tokens.write_tokens`: those of the training side.

    Returns
    -------
    types : list of str
        The distinct words, in the order of their first appearance.
    counts : int64 array (types,)

    Raises
    ------
    DamagedFile
        When one of the files is damaged.
    """
    # A million entries are added up: each word gets a number, and numpy sums by number.
    numbers: dict[str, int] = {}
    unused = itertools.count()
    found, all_counts = [], []
    for path in token_files:
        types, counts = read_types(path)
        found.append(np.fromiter(map(numbers.setdefault, types, unused), np.int64, len(types)))
        all_counts.append(counts)
    sums = np.bincount(np.concatenate(found), weights=np.concatenate(all_counts))
    places = np.fromiter(numbers.values(), np.int64, len(numbers))
    return list(numbers), sums[places].astype(np.int64)


def build_vocabulary(
    types_counts: tuple[list[str], np.ndarray],
    sentences: int,
    *,
    size: int,
    minimum_count: int = 1,
    word_list: str | os.PathLike | None = None,
) -> Vocabulary:
    """Choose the words, and order them by count, descending, then by the word.

    Parameters
    ----------
    types_counts : (list of str, int64 array)
        From `count_types`.
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
    types, all_counts = types_counts
    if word_list:
        counts = dict(zip(types, all_counts.tolist()))
        chosen = {word: counts.get(word, 0) for word in _read_word_list(word_list)}
    else:
        if size <= len(SPECIALS):
            raise UserError(
                f"the vocabulary size is {size}: it includes {', '.join(SPECIALS)} and must leave "
                "room for words."
            )
        # Most words are too rare to be sorted.
        room, least = size - len(SPECIALS), minimum_count
        if len(all_counts) > room:
            least = max(least, int(np.partition(all_counts, -room)[-room]))
        frequent = [(types[n], int(all_counts[n])) for n in np.flatnonzero(all_counts >= least)]
        chosen = dict(sorted(frequent, key=_order)[:room])
        if not chosen:
            raise UserError(
                f"no word occurs {minimum_count} times or more in the training side: lower the "
                "minimum count or give more text."
            )
    outside = int(all_counts.sum()) - sum(chosen.values())
    entries = {**chosen, UNKNOWN: outside, START: sentences, END: sentences}
    words, ordered_counts = zip(*sorted(entries.items(), key=_order))
    return Vocabulary(words, ordered_counts)


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
