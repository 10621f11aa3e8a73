"""Log-probability and perplexity of each line of a text."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

from .data.tokenization import clean, counts_empty_lines, tokenize_sentence
from .data.vocabulary import END, Vocabulary
from .evaluation import TOKENS_PER_BATCH, Totals
from .system.errors import UserError

logger = logging.getLogger(__name__)

# Lines that are tokenized and sorted by length at a time: enough that the network has many
# sentences of one length side by side. Output appears after each block.
_LINES_PER_BLOCK = 4096
# Bounds the memory, which grows with the longest sentence. The corpus stage's own default bound.
_MAX_LINE_BYTES = 32768
_BOM = b"\xef\xbb\xbf"

Batch = tuple[np.ndarray, np.ndarray]


@dataclass
class LineScore:
    """The score of one line.

    Parameters
    ----------
    line : int
        Its number, from 1.
    totals : Totals
        As the evaluation counts; of no sentence where the line is none.
    words : list of str
        The tokens and ``</s>``; none where the line is no sentence.
    known : bool array (words,)
        Which of them are in the vocabulary.
    log_probabilities : float64 array (words,)
        Natural logarithms.
    """

    line: int
    totals: Totals = field(default_factory=Totals)
    words: list[str] = field(default_factory=list)
    known: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    log_probabilities: np.ndarray = field(default_factory=lambda: np.zeros(0))


def score_lines(stream: BinaryIO, name: str,
                log_probabilities: Callable[[list[Batch]], Iterable[np.ndarray]],
                vocabulary: Vocabulary, *, lowercase: bool,
                split: str = "words") -> Iterator[LineScore]:
    r"""Score a text line by line, in the order of the text and in bounded memory.

    Lines are read as the corpus stage reads them: only ``\n`` and ``\r\n`` end one, a byte-order
    mark at the beginning is dropped, and each is cleaned as the model's text was. An empty line
    that is no sentence in the corpus is none here; it keeps its place in the output. Every line is
    plain text: the ids of the Leipzig corpora are not looked for.

    Parameters
    ----------
    stream : binary file
    name : str
        What errors call it.
    log_probabilities : function
        From batches, each inputs and targets, int32 arrays (sentences, steps), to the natural
        logarithms of the targets' probabilities, (sentences, steps), of each batch.
    vocabulary : Vocabulary
    lowercase, split
        How the model's text was tokenized: see `model.data.tokenization.tokenize`.

    Yields
    ------
    LineScore

    Raises
    ------
    UserError
        On a line that is not valid UTF-8, holds a NUL byte, is too long, or is tokenized already
        and holds a border within; names it.
    """
    first = 1
    for lines in _blocks(stream, name, split):
        yield from score_sentences(lines, log_probabilities, vocabulary, lowercase=lowercase,
                                   split=split, first=first)
        first += len(lines)


def score_sentences(sentences: list[str],
                    log_probabilities: Callable[[list[Batch]], Iterable[np.ndarray]],
                    vocabulary: Vocabulary, *, lowercase: bool, split: str = "words",
                    first: int = 1, every: bool = False) -> list[LineScore]:
    """Score sentences, those of one length side by side.

    Parameters
    ----------
    sentences : list of str
        As `model.data.tokenization.clean` gives them.
    log_probabilities, vocabulary, lowercase, split
        As for `score_lines`.
    first : int
        The number of the first one.
    every : bool
        Whether an empty one is a sentence, of its end alone, whatever `split` says.

    Returns
    -------
    list of LineScore
        In the order of the sentences. An empty one that is no sentence has no words.
    """
    scores = [LineScore(number) for number in range(first, first + len(sentences))]
    by_length: dict[int, list[LineScore]] = {}
    for score, sentence in zip(scores, sentences):
        if sentence or every or counts_empty_lines(split):
            words = tokenize_sentence(sentence, lowercase=lowercase, split=split)
            score.words = [*words, END]
            by_length.setdefault(len(score.words), []).append(score)
    batches: list[Batch] = []
    of_batch = []
    for steps, same in sorted(by_length.items()):
        size = max(1, TOKENS_PER_BATCH // steps)
        for begin in range(0, len(same), size):
            batch = same[begin:begin + size]
            targets = vocabulary.encode(word for score in batch for word in score.words)
            targets = targets.reshape(len(batch), steps)
            inputs = np.full_like(targets, vocabulary.start)
            inputs[:, 1:] = targets[:, :-1]
            batches.append((inputs, targets))
            of_batch.append(batch)
    for batch, (_, targets), found in zip(of_batch, batches, log_probabilities(batches)):
        found = np.asarray(found, "float64")
        for row, score in enumerate(batch):
            score.known = targets[row] != vocabulary.unknown
            score.log_probabilities = found[row]
            score.totals.add(found[row:row + 1], targets[row:row + 1], vocabulary.unknown)
    return scores


def figures(totals: Totals, base: float) -> dict:
    """The columns of the output, from sums: counts, log-probability in a base, perplexities."""
    named = totals.figures()
    return {**{key: named[key] for key in ("sentences", "tokens", "oov_count")},
            "log_probability": totals.log_probability / math.log(base),
            **{key: named[key] for key in ("perplexity", "perplexity_without_unk")}}


def word_totals(score: LineScore) -> Iterator[tuple[str, Totals]]:
    """Each word of a line with sums over it alone, as those of the line are over all of them."""
    for word, known, value in zip(score.words, score.known, score.log_probabilities):
        unknown = not known
        yield word, Totals(0, 1, int(unknown), float(value), float(value) if unknown else 0.0)


def read_lines(stream: BinaryIO, name: str) -> Iterator[tuple[int, str]]:
    """The lines of a text, with their numbers from 1; raises UserError as `score_lines` does."""
    number = 0
    while raw := stream.readline(_MAX_LINE_BYTES + 2 + (0 if number else len(_BOM))):
        number += 1
        if number == 1:
            raw = raw.removeprefix(_BOM)
        text = raw.removesuffix(b"\n").removesuffix(b"\r")
        if len(text) > _MAX_LINE_BYTES:
            raise UserError(f"{name}, line {number}: it is longer than {_MAX_LINE_BYTES:,} bytes. "
                            "Give a text with one sentence a line.")
        if b"\0" in text:
            raise UserError(f"{name}, line {number}: it holds a NUL byte. Is the text UTF-16? "
                            "Bring it to UTF-8.")
        try:
            yield number, text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{name}, line {number}: not valid UTF-8 ({error.reason}, at byte "
                            f"{error.start} of the line).") from None


def _blocks(stream: BinaryIO, name: str, split: str) -> Iterator[list[str]]:
    lines: list[str] = []
    for number, line in read_lines(stream, name):
        if number == 1 and re.match(r"\d+\t", line, re.ASCII):
            logger.warning("%s: the first line looks like id<TAB>sentence; the ids are scored "
                           "as words. To leave them out: cut -f2- FILE | python -m model score",
                           name)
        try:
            lines.append(clean(line, split))
        except ValueError as error:
            raise UserError(f"{name}, line {number}: {error}.") from None
        if len(lines) == _LINES_PER_BLOCK:
            yield lines
            lines = []
    if lines:
        yield lines
