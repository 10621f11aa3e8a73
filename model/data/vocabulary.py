"""The vocabulary: which words the network knows, and their indices."""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..system.errors import UserError
from ..system.files import publish

# No other words look like these: the tokenizer takes < and > for words of their own, and in text
# that is tokenized already a border within a line is refused.
UNKNOWN = "<unk>"
START = "<s>"
END = "</s>"
SPECIALS = (UNKNOWN, START, END)


@dataclass(frozen=True)
class Vocabulary:
    """Words, whose positions are their indices, and how often they occur in the training split.

    Parameters
    ----------
    words : tuple of str
        Distinct; among them `<unk>`, `<s>` and `</s>`.
    counts : tuple of int
        The count of `<unk>` is that of all words outside and of the text's own `<unk>`; of `<s>`
        and `</s>`, the number of sentences.

    Raises
    ------
    UserError
        When words are repeated, a special word is missing, or there is not one count a word.
    """

    words: tuple[str, ...]
    counts: tuple[int, ...]

    def __post_init__(self):
        if len(self.words) != len(self.counts):
            raise UserError(
                f"a vocabulary of {len(self.words)} words comes with {len(self.counts)} counts."
            )
        if len(self._indices) != len(self.words):
            raise UserError("the vocabulary holds a word twice.")
        for special in SPECIALS:
            if special not in self._indices:
                raise UserError(f"the vocabulary lacks the special word {special}.")

    def __len__(self) -> int:
        return len(self.words)

    @functools.cached_property
    def _indices(self) -> dict[str, int]:
        return {word: index for index, word in enumerate(self.words)}

    @property
    def unknown(self) -> int:
        """The index of `<unk>`, which stands for every word outside the vocabulary."""
        return self._indices[UNKNOWN]

    @property
    def start(self) -> int:
        """The index of `<s>`, the first input of every sentence and never a target."""
        return self._indices[START]

    @property
    def end(self) -> int:
        """The index of `</s>`, the last target of every sentence and never an input."""
        return self._indices[END]

    @functools.cached_property
    def absent(self) -> list[str]:
        """The words that never occur in the training split, the special ones aside."""
        return [
            word
            for word, count in zip(self.words, self.counts)
            if not count and word not in SPECIALS
        ]

    @functools.cached_property
    def digest(self) -> str:
        """The SHA-256 (hexadecimal) of the words in their order.

        Counts do not enter: they can change and leave every index as it was.
        """
        return hashlib.sha256("".join(f"{word}\n" for word in self.words).encode()).hexdigest()

    def encode(self, words: Iterable[str]) -> np.ndarray:
        """The indices of words, of `<unk>` for those outside: int32 (words,)."""
        indices = map(self._indices.get, words, itertools.repeat(self.unknown))
        return np.fromiter(indices, dtype=np.int32)


def write_vocabulary(vocabulary: Vocabulary, path: str | os.PathLike) -> None:
    """Publish a vocabulary as a text file, `word<TAB>count` a line, the first line index 0.

    Parameters
    ----------
    vocabulary : Vocabulary
    path : path

    Raises
    ------
    UserError
        When the file cannot be written.
    """
    entries = zip(vocabulary.words, vocabulary.counts)
    with publish(path) as temporary:
        temporary.write_bytes("".join(f"{word}\t{count}\n" for word, count in entries).encode())


def read_vocabulary(path: str | os.PathLike) -> Vocabulary:
    """Read the text file of a vocabulary.

    Raises
    ------
    UserError
        When it cannot be read or is malformed; names the line.
    """
    lines = read_lines(path)
    words: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        word, tab, count = line.partition("\t")
        if not (word and tab and count.isascii() and count.isdigit()):
            raise UserError(
                f"{path}, line {number}: {line[:80]!r} is not a word, a tab and a count."
            )
        if word in words:
            raise UserError(f"{path}, line {number}: the word {word!r} stands there a second time.")
        words[word] = int(count)
    for special in SPECIALS:
        if special not in words:
            raise UserError(f"{path} is not a vocabulary: it lacks a line for {special}.")
    return Vocabulary(tuple(words), tuple(words.values()))


def read_lines(path: str | os.PathLike) -> list[str]:
    r"""The lines of a small UTF-8 text file, without their ends (`\n` or `\r\n`).

    Raises
    ------
    UserError
        When it cannot be read; names the line.
    """
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error}.") from error
    if not lines[-1]:
        lines.pop()
    decoded = []
    for number, line in enumerate(lines, 1):
        try:
            decoded.append(line.removesuffix(b"\r").decode("utf-8"))
        except UnicodeDecodeError as error:
            raise UserError(f"{path}, line {number}: not valid UTF-8 ({error.reason}).") from None
    return decoded
