"""Stage 3: the words that the network will know, from the counts of the training split."""

from __future__ import annotations

import bisect
import itertools
import os
from collections.abc import Iterable, Sequence

import numpy as np

from model.data.tokenization import clean, tokenize
from model.data.vocabulary import END, SPECIALS, START, UNKNOWN, Vocabulary, read_lines
from model.system.errors import BadInput
from pipeline.tokens import Types

_FREQUENT = 16  # occurrences in a part: few of its types have so many; any number from 1 is right


def build_vocabulary(
    parts: Sequence[Types],
    sentences: int,
    *,
    size: int | str,
    minimum_count: int = 1,
    word_list: str | os.PathLike | None = None,
    lowercase: bool = False,
    split: str = "words",
) -> Vocabulary:
    """Choose the words, and order them by count, descending, then by the word.

    Parameters
    ----------
    parts : sequence of Types
        The distinct words of each part of the training split.
    sentences : int
        The number of sentences they were counted in: the count of `<s>` and `</s>`.
    size : int or "all"
        The number of entries including `<unk>`, `<s>` and `</s>`: the most frequent words fill
        it, of equally frequent ones those first by code points. There may be fewer. "all": room
        for all words.
    minimum_count : int
        Words that occur less often are left out.
    word_list : path, optional
        A text file with a word a line (what follows a tab is ignored, so that a vocabulary can
        serve). Exactly these words, as the tokenizer would find them in a text, and the three
        special ones make the vocabulary then, and `size` and `minimum_count` mean nothing.
    lowercase, split
        How the parts were tokenized, see `model.data.tokenization.tokenize`: so are the words of
        the list.

    Raises
    ------
    UserError
        When no word is left, none of the list occurs, or the word list is malformed (names the
        line).
    """
    if word_list:
        chosen = _count(parts, _read_word_list(word_list, lowercase, split))
        if not any(chosen.values()):
            raise BadInput(
                f"none of the {len(chosen):,} words of {word_list} occurs in the training side, "
                f"not even {next(iter(chosen))!r}: is it a list for this text?"
            )
    else:
        types = sum(len(part.counts) for part in parts)
        room = types if size == "all" else int(size) - len(SPECIALS)
        counts = _count_frequent(parts, room + 1)  # one may be <unk>
        counts.pop(UNKNOWN, None)
        frequent = [entry for entry in counts.items() if entry[1] >= minimum_count]
        chosen = dict(sorted(frequent, key=_order)[:room])
        if not chosen:
            raise BadInput(
                f"no word occurs {minimum_count} times or more in the training side: lower the "
                "minimum count or give more text."
            )
    outside = sum(int(part.counts.sum()) for part in parts) - sum(chosen.values())
    entries = {**chosen, UNKNOWN: outside, START: sentences, END: sentences}
    words, ordered_counts = zip(*sorted(entries.items(), key=_order))
    return Vocabulary(words, ordered_counts)


def count_types(parts: Iterable[Types]) -> tuple[list[str], np.ndarray]:
    """Add up the counts of all words of several parts: (list of str, int64 array (types,)).

    A text's own `<unk>` is none of them.
    """
    totals: dict[str, int] = {}
    for part in parts:
        for word, count in zip(part.words(), part.counts.tolist()):
            totals[word] = totals.get(word, 0) + count
    totals.pop(UNKNOWN, None)
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


def _count_frequent(parts: Sequence[Types], room: int) -> dict[str, int]:
    """The counts of some words, among them the `room` most frequent and all as frequent as these.

    Most of a corpus's types are rare, and adding up all of their counts takes more time than all
    else in this stage. So only those counts are added up that are not small; what the others can
    come to at most tells which words are out of the question. Of those that are left the small
    counts are looked up.
    """
    places = [np.flatnonzero(part.counts >= _FREQUENT) for part in parts]
    words: list[bytes] = []
    for part, where in zip(parts, places):
        words += map(part.lines.split(b"\n").__getitem__, where.tolist())
    numbers = {word: number for number, word in enumerate(dict.fromkeys(words))}
    found = np.fromiter(map(numbers.__getitem__, words), np.int64, len(words))
    counts = np.concatenate([part.counts[where] for part, where in zip(parts, places)])
    at_least = np.bincount(found, weights=counts).astype(np.int64)
    at_most = at_least + (_FREQUENT - 1) * (len(parts) - np.bincount(found))
    bound = np.partition(at_least, -room)[-room] if len(numbers) >= room else 0
    if bound <= (_FREQUENT - 1) * len(parts):  # so much a word can have that is in no part frequent
        all_words, all_counts = count_types(parts)
        return dict(zip(all_words, all_counts.tolist()))

    possible = at_most >= bound
    chosen, candidates = np.flatnonzero(possible), list(itertools.compress(numbers, possible))
    totals = at_least[chosen]
    of_part = np.split(found, np.cumsum(list(map(len, places)))[:-1])
    for part, added in zip(parts, of_part):
        types = part.lines.split(b"\n")  # in order: that of code points is that of UTF-8's bytes
        for number in np.flatnonzero(~np.isin(chosen, added)).tolist():
            place = bisect.bisect_left(types, candidates[number])
            if place < len(types) and types[place] == candidates[number]:
                totals[number] += part.counts[place]
    return dict(zip(map(bytes.decode, candidates), totals.tolist()))


def _order(entry: tuple[str, int]) -> tuple[int, str]:
    word, count = entry
    return -count, word


def _read_word_list(path: str | os.PathLike, lowercase: bool, split: str) -> list[str]:
    entries, cleaned = {}, []
    for number, line in enumerate(read_lines(path), 1):
        entry = line.partition("\t")[0]
        try:
            text = clean(entry, split)
        except ValueError as error:
            raise BadInput(f"{path}, line {number}: {error}; give a word a line.") from None
        if text:
            entries[number] = entry
            cleaned.append(text)
    tokens = tokenize(cleaned, lowercase=lowercase, split=split)
    ends = np.cumsum(tokens.lengths)
    words: dict[str, int] = {}
    for (number, entry), start, end in zip(entries.items(), ends - tokens.lengths, ends):
        found = [tokens.types[place] for place in tokens.indices[start:end]]
        if found == [UNKNOWN]:
            continue
        if len(found) != 1:
            parts = f" ({' '.join(found)})" if found else ""
            raise BadInput(
                f"{path}, line {number}: {entry.strip()!r} is {len(found)} words{parts} to the "
                "tokenizer, and could never occur: give a word a line."
            )
        if found[0] in words:
            first = words[found[0]]
            raise BadInput(
                f"{path}, line {number}: {found[0]!r} stands there a second time, first on line "
                f"{first}" + (f", as {entries[first].strip()!r}" if entries[first] != entry else "")
                + "."
            )
        words[found[0]] = number
    if not words:
        raise BadInput(f"the word list {path} is empty: give a word a line.")
    return list(words)
