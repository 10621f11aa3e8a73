"""Stage 3: the words that the network will know, from the counts of the training split."""

from __future__ import annotations

import itertools
import os
from collections.abc import Container, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from model.data.tokenization import clean, tokenize
from model.data.vocabulary import END, SPECIALS, START, UNKNOWN, Vocabulary, read_lines
from model.system.errors import BadInput
from pipeline.tokens import Types
from pipeline.words import add_up


def build_vocabulary(
    parts: Iterable[Types],
    sentences: int,
    *,
    scratch: Path,
    size: int | str,
    minimum_count: int = 1,
    word_list: str | os.PathLike | None = None,
    lowercase: bool = False,
    split: str = "words",
) -> Vocabulary:
    """Choose the words, and order them by count, descending, then by the word.

    Parameters
    ----------
    parts : iterable of Types
        The distinct words of each part of the training split; gone through once.
    sentences : int
        The number of sentences they were counted in: the count of `<s>` and `</s>`.
    scratch : path
        See `pipeline.words.add_up`.
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
        chosen, total = _count(parts, _read_word_list(word_list, lowercase, split))
        if not any(chosen.values()):
            raise BadInput(
                f"none of the {len(chosen):,} words of {word_list} occurs in the training side, "
                f"not even {next(iter(chosen))!r}: is it a list for this text?"
            )
    else:
        room = None if size == "all" else int(size) - len(SPECIALS)
        chosen, total = _most_frequent(add_up(parts, scratch), room, minimum_count)
        if not chosen:
            raise BadInput(
                f"no word occurs {minimum_count} times or more in the training side: lower the "
                "minimum count or give more text."
            )
    outside = total - sum(chosen.values())
    entries = {**chosen, UNKNOWN: outside, START: sentences, END: sentences}
    words, ordered_counts = zip(*sorted(entries.items(), key=_order))
    return Vocabulary(words, ordered_counts)


class WordCounts(NamedTuple):
    """All words of some parts, most of them by their counts alone.

    Attributes
    ----------
    counts : int64 array (types,)
        Of each distinct word but a text's own `<unk>`, in the order of the words.
    places : dict of str to int
        Where among the counts some words have theirs.
    """

    counts: np.ndarray
    places: dict[str, int]

    def rank(self, word: str) -> int:
        """The place of a word when they are sorted by count, descending, then by word; from 1."""
        place = self.places[word]
        count = self.counts[place]
        return 1 + int((self.counts > count).sum() + (self.counts[:place] == count).sum())


def count_words(parts: Iterable[Types], scratch: Path, known: Container[str],
                others: int) -> WordCounts:
    """Add up the counts of all words of several parts.

    Parameters
    ----------
    parts : iterable of Types
        Gone through once.
    scratch : path
        See `pipeline.words.add_up`.
    known : container of str
        Words whose places are wanted.
    others : int
        Of so many of the most frequent other words they are wanted too.
    """
    counts: list[np.ndarray] = []
    places: dict[str, int] = {}
    frequent: list[tuple[tuple[int, str], int]] = []
    done = 0
    for block in add_up(parts, scratch):
        words, own = block.words(), block.counts
        if UNKNOWN in words:
            own = np.delete(own, words.index(UNKNOWN))
            words.remove(UNKNOWN)
        places |= {word: done + place for place, word in enumerate(words) if word in known}
        least = -frequent[-1][0][0] if len(frequent) == others else 0
        frequent = sorted([*frequent, *(
            (_order((words[place], int(own[place]))), done + place)
            for place in np.flatnonzero(own >= least).tolist()
            if words[place] not in known)])[:others]
        counts.append(own)
        done += len(words)
    places |= {word: place for (_, word), place in frequent}
    return WordCounts(np.concatenate([np.zeros(0, np.int64), *counts]), places)


def _count(parts: Iterable[Types], words: Iterable[str]) -> tuple[dict[str, int], int]:
    """How often each of some words occurs in all parts together, and how often all words do."""
    totals = dict.fromkeys(words, 0)
    total = 0
    for part in parts:
        types = part.words()
        wanted = map(totals.__contains__, types)
        for word, count in itertools.compress(zip(types, part.counts.tolist()), wanted):
            totals[word] += count
        total += int(part.counts.sum())
    return totals, total


def _most_frequent(blocks: Iterable[Types], room: int | None,
                   minimum_count: int) -> tuple[dict[str, int], int]:
    """The words that a vocabulary has room for, and how often all words occur together.

    Of equally frequent ones the first by code points, which is the order of the bytes.
    """
    chosen: dict[str, int] = {}
    total, least = 0, minimum_count
    for block in blocks:
        total += int(block.counts.sum())
        places = np.flatnonzero(block.counts >= least)
        if room is not None and len(places) > room + 1:  # one may be <unk>
            enough = np.partition(block.counts[places], -room - 1)[-room - 1]
            places = places[block.counts[places] >= enough]
        lines = np.frombuffer(block.lines + b"\n", np.uint8)
        ends = np.flatnonzero(lines == ord("\n"))
        begins = np.concatenate([[0], ends[:-1] + 1])
        for place in places.tolist():
            word = block.lines[begins[place]:ends[place]].decode()
            chosen[word] = int(block.counts[place])
        chosen.pop(UNKNOWN, None)
        if room is not None and len(chosen) > room:
            chosen = dict(sorted(chosen.items(), key=_order)[:room])
            least = max(least, min(chosen.values(), default=0))
    return chosen, total


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
