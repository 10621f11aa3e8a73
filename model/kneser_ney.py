"""Interpolated modified Kneser-Ney: the n-gram model that networks are compared with.

The probability of a word w after a context h is, with h' the context without its first word,

    p(w | h) = (c(h w) - D(c(h w))) / sum_v c(h v) + g(h) p(w | h')
    g(h) = (D(1) N1(h) + D(2) N2(h) + D(3) N3(h)) / sum_v c(h v)

where c are the adjusted counts: of n-grams of the highest order, and of those that begin with
``<s>``, how often they occur; of all others, before how many words they occur. N1, N2 and N3 are
the numbers of words that follow h with an adjusted count of one, of two, and of three or more.
After a context that never occurs p(w | h) is p(w | h'). Without a context the place of p(w | h')
is taken by the uniform distribution over all words but ``<s>``.

The definitions are KenLM's: ``</s>`` is counted and ``<s>`` is not, and discounts that counts of
counts do not define are 0.5, 1 and 1.5. ``<unk>`` is a word like others here, so the vocabulary is
closed; KenLM has an ``<unk>`` of its own besides, which no text holds, and which has a share of the
uniform distribution.

The file (HDF5) holds counts, not probabilities; scoring goes through it once for many sentences.
Words are numbered from ``<s>`` on, which is 0: `(index - start) % vocabulary_size`. So what begins
with ``<s>`` stands first, and ``<s>`` fills the places before the first word.

- attributes: format_version, vocabulary_digest, vocabulary_size, start (the index of ``<s>``),
  order;
- group `1`: counts, the adjusted count of each word;
- groups `2` to `order`: ngrams, the n-grams that occur as rows of words, in ascending order, their
  bytes in the order that makes it that of the bytes, too; and counts, their adjusted counts;
- each group's attributes: counts_of_counts, how many n-grams have the counts 1, 2, 3 and 4; and
  discounts, of the counts 0, 1, 2, and 3 and more.

References
----------
Chen, S. F., & Goodman, J. (1998): An empirical study of smoothing techniques for language modeling.
TR-10-98, Harvard University. Section 3, equation 26 for the discounts.

Heafield, K., Pouzyrevsky, I., Clark, J. H., & Koehn, P. (2013): Scalable modified Kneser-Ney
language model estimation. ACL.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from model.data.shards import load
from model.data.vocabulary import Vocabulary
from model.ngram_counting import count_rows, keys_of, rows_of, word_type
from model.system.errors import DamagedFile, UserError
from model.system.hdf5 import open_hdf5, write_hdf5
from model.system.untrusted import odd_content

FORMAT_VERSION = 1

_FALLBACK = (0.0, 0.5, 1.0, 1.5)

# Rows of the file that are in memory at a time.
_ROWS_AT_A_TIME = 1 << 20
_ROWS_PER_CHUNK = 1 << 15
# Scored while the file is gone through once.
_TOKENS_AT_A_TIME = 1 << 20


def write_kneser_ney(shard_paths: Sequence[str | os.PathLike], vocabulary: Vocabulary, order: int,
                     path: str | os.PathLike,
                     on_progress: Callable[[float], None] = lambda share: None) -> None:
    """Count the n-grams of training shards and publish them with their discounts.

    The memory is bounded: n-grams are sorted in ranges, as many as can be sorted at a time. Where
    there is more than one range, they lie on the disk meanwhile, each of the text's n-grams once.

    Parameters
    ----------
    shard_paths : sequence of path
    vocabulary : Vocabulary
        Theirs.
    order : int
        Words of the longest n-grams, one of `model.configuration.ORDERS`.
    path : path
        Where the file is to appear.
    on_progress : function
        Called with the share that is done, about.

    Raises
    ------
    DamagedFile
        When a shard is damaged.
    UserError
        When one is of another vocabulary, or the file cannot be written.
    """
    size, scratch = len(vocabulary), Path(path).with_suffix(".keys")
    # The highest order takes half of the time, the one below it half of the rest.
    shares = {k: 1 - 0.5 ** (order - k + 1) for k in range(1, order + 1)}

    def from_shards() -> Iterator[np.ndarray]:
        for shard_path in shard_paths:
            shard = load(shard_path, vocabulary.digest)
            yield _windows([(shard.inputs(steps), shard.targets(steps)) for steps in shard.steps],
                           vocabulary, order)

    with write_hdf5(path) as file:
        file.attrs["format_version"] = FORMAT_VERSION
        file.attrs["vocabulary_digest"] = vocabulary.digest
        file.attrs["vocabulary_size"] = size
        file.attrs["start"] = vocabulary.start
        file.attrs["order"] = order
        tables = {k: _Table(file, k, size) for k in range(1, order + 1)}
        for rows, counts in count_rows(from_shards, size, order, scratch):
            # What begins with <s> twice or more is a shorter n-gram that begins with it. Where
            # all are sorted it comes first, as it has to in its own table.
            shorter = rows[:, 1] == 0
            for k in range(2, order):
                before = order - k
                of_order = shorter & (rows[:, before] == 0) & (rows[:, before + 1] != 0)
                tables[k].append(rows[of_order][:, before:], counts[of_order])
            tables[order].append(rows[~shorter], counts[~shorter])
        on_progress(shares[order])
        for k in range(order - 1, 1, -1):
            for rows, counts in count_rows(tables[k + 1].ends, size, k, scratch):
                tables[k].append(rows, counts)
            on_progress(shares[k])
        words = np.zeros(size, "int64")
        for rows in tables[2].ends():
            words += np.bincount(rows[:, 0], minlength=size)
        file["1/counts"] = words.astype("uint32")
        tables[1].look_at(words)
        for table in tables.values():
            table.finish()
        on_progress(1.0)


def _windows(batches: Iterable[tuple[np.ndarray, np.ndarray]], vocabulary: Vocabulary,
             order: int) -> np.ndarray:
    """Each target of some sentences with the words before it: rows (tokens, order)."""
    size = len(vocabulary)
    dtype = word_type(size)
    windows = []
    for inputs, targets in batches:
        # <s> itself is 0.
        words = np.zeros((len(targets), targets.shape[1] + order - 1), dtype)
        words[:, order - 2:-1] = (inputs - vocabulary.start) % size
        words[:, -1] = (targets[:, -1] - vocabulary.start) % size
        view = np.lib.stride_tricks.sliding_window_view(words, order, axis=1)
        windows.append(view.reshape(-1, order))
    # Told the type: numpy would bring the bytes into the processor's own order.
    return np.concatenate(windows, dtype=dtype)


class _Table:
    """The n-grams of one order while they are written."""

    def __init__(self, file: h5py.File, order: int, size: int):
        self._group = file.require_group(str(order))
        self._counts_of_counts = np.zeros(4, "int64")
        if order > 1:
            self._ngrams = self._group.create_dataset(
                "ngrams", (0, order), word_type(size), chunks=(_ROWS_PER_CHUNK, order),
                maxshape=(None, order))
            self._counts = self._group.create_dataset(
                "counts", (0,), "uint32", chunks=(_ROWS_PER_CHUNK,), maxshape=(None,))

    def append(self, rows: np.ndarray, counts: np.ndarray) -> None:
        done = len(self._counts)
        for dataset, values in ((self._ngrams, rows), (self._counts, counts)):
            dataset.resize(done + len(rows), axis=0)
            dataset[done:] = values
        self.look_at(counts)

    def look_at(self, counts: np.ndarray) -> None:
        self._counts_of_counts += np.bincount(counts[counts < 5], minlength=5)[1:]

    def ends(self) -> Iterator[np.ndarray]:
        """The n-grams without their first words."""
        for begin in range(0, len(self._ngrams), _ROWS_AT_A_TIME):
            yield self._ngrams[begin:begin + _ROWS_AT_A_TIME][:, 1:]

    def finish(self) -> None:
        self._group.attrs["counts_of_counts"] = self._counts_of_counts
        self._group.attrs["discounts"] = discounts(self._counts_of_counts)


def discounts(counts_of_counts: Sequence[int] | np.ndarray) -> np.ndarray:
    """The discounts of n-grams of one order.

    Parameters
    ----------
    counts_of_counts : sequence of int (4,)
        How many n-grams have the adjusted counts 1, 2, 3 and 4.

    Returns
    -------
    float64 array (4,)
        Of the counts 0, 1, 2, and 3 and more; 0, 0.5, 1 and 1.5 where one of them is not defined,
        is negative, or is more than its count, as in KenLM.
    """
    n = np.asarray([0, *counts_of_counts], "float64")
    if not n[1:4].all():
        return np.array(_FALLBACK)
    y = n[1] / (n[1] + 2 * n[2])
    found = np.array([0, *(j - (j + 1) * y * n[j + 1] / n[j] for j in (1, 2, 3))])
    return found if (found >= 0).all() and (found <= range(4)).all() else np.array(_FALLBACK)


class _Found(NamedTuple):
    """What a table tells of n-grams.

    Attributes
    ----------
    counts : int64 array (n-grams,)
        Adjusted counts.
    followers : int64 array (4, n-grams)
        Of the n-grams that share the context: the sum of the adjusted counts, and how many have
        the count one, two, and three or more.
    """

    counts: np.ndarray
    followers: np.ndarray


class KneserNey:
    """An interpolated modified Kneser-Ney model, from its file.

    Parameters
    ----------
    path : path
        A file of `write_kneser_ney`; checked whole now, and read again for each scoring.
    vocabulary : Vocabulary
        The one that it must have been made with.

    Attributes
    ----------
    order : int

    Raises
    ------
    DamagedFile
        When it is not such a file.
    UserError
        When it is of another vocabulary or another version of the format.
    FileNotFoundError
    """

    def __init__(self, path: str | os.PathLike, vocabulary: Vocabulary):
        self._path, self._vocabulary = Path(path), vocabulary
        with odd_content(path, "n-gram model"), open_hdf5(path) as file:
            if file.attrs["format_version"] != FORMAT_VERSION:
                raise UserError(
                    f"the n-gram model {path} has format version {file.attrs['format_version']}, "
                    f"and this program reads version {FORMAT_VERSION}. Make it again.")
            if file.attrs["vocabulary_digest"] != vocabulary.digest:
                raise UserError(f"the n-gram model {path} was made with another vocabulary. "
                                "Make it again with the present one.")
            self.order = int(file.attrs["order"])
            self._discounts = {k: file[str(k)].attrs["discounts"]
                               for k in range(1, self.order + 1)}
            counts = file["1/counts"][()].astype("int64")
            if counts.shape != (len(vocabulary),):
                raise ValueError("there is not one count a word")
        # All follow the one context without words.
        followers = np.array([counts.sum(), *_numbers(counts).sum(axis=1)])
        self._words = self._interpolated(1, _Found(counts, followers[:, None]),
                                         np.full(len(counts), 1 / (len(counts) - 1)))

    def score(self, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[np.ndarray]:
        """Score sentences; those of a million tokens at a time are in memory.

        Parameters
        ----------
        batches : iterable of pairs of integer arrays (sentences, steps)
            Inputs and targets.

        Yields
        ------
        float64 array (sentences, steps)
            For each batch, the natural logarithms of the targets' probabilities.

        Raises
        ------
        DamagedFile
            When the file cannot be read any more.
        """
        waiting: list[tuple[np.ndarray, np.ndarray]] = []
        for batch in batches:
            waiting.append(batch)
            if sum(targets.size for _, targets in waiting) >= _TOKENS_AT_A_TIME:
                yield from self._score_together(waiting)
                waiting = []
        if waiting:
            yield from self._score_together(waiting)

    def _score_together(self, batches: list[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
        windows = _windows(batches, self._vocabulary, self.order)
        result = self._words[windows[:, -1]]
        try:
            with h5py.File(self._path, "r", locking=False) as file:
                for k in range(2, self.order + 1):
                    # Those that begin with <s> twice are in no table, so nothing follows.
                    distinct, places = np.unique(keys_of(windows[:, -k:]), return_inverse=True)
                    found = _look_up(file[str(k)], rows_of(distinct, windows.dtype))
                    result = self._interpolated(
                        k, _Found(found.counts[places], found.followers[:, places]), result)
        except (OSError, KeyError) as error:
            raise DamagedFile(self._path, f"it cannot be read any more ({error})") from error
        ends = np.cumsum([targets.size for _, targets in batches])[:-1]
        return [scores.reshape(targets.shape) for scores, (_, targets) in zip(
            np.split(np.log(result), ends), batches)]

    def _interpolated(self, order: int, found: _Found, lower: np.ndarray) -> np.ndarray:
        """Probabilities of one order, from those of the order below."""
        discount = self._discounts[order]
        total, *numbers = found.followers
        seen = total > 0
        total = np.where(seen, total, 1)
        of_word = (found.counts - discount[np.minimum(found.counts, 3)]) / total
        below = sum(d * number for d, number in zip(discount[1:], numbers)) / total
        return np.where(seen, of_word + below * lower, lower)


def _numbers(counts: np.ndarray) -> np.ndarray:
    """Which counts are one, two, and three or more: bool (3, counts)."""
    return np.array([counts == 1, counts == 2, counts >= 3])


def _look_up(group: h5py.Group, rows: np.ndarray) -> _Found:
    """What a table tells of distinct rows of words, which are in ascending order."""
    counts = np.zeros(len(rows), "int64")
    keys = keys_of(rows)
    contexts = keys_of(rows[:, :-1])
    starts = np.concatenate([[True], contexts[1:] != contexts[:-1]])
    # A context with the first and the last word that could follow.
    first, last = rows[starts], rows[starts]
    first[:, -1], last[:, -1] = 0, np.iinfo(rows.dtype).max
    first, last = keys_of(first), keys_of(last)
    followers = np.zeros((4, len(first)), "int64")
    ngrams = group["ngrams"]
    for begin in range(0, len(ngrams), _ROWS_AT_A_TIME):
        table = keys_of(ngrams[begin:begin + _ROWS_AT_A_TIME])
        its_counts = group["counts"][begin:begin + _ROWS_AT_A_TIME].astype("int64")

        here = slice(np.searchsorted(keys, table[0]), np.searchsorted(keys, table[-1], "right"))
        places = np.searchsorted(table, keys[here])
        counts[here] = np.where(table[places] == keys[here], its_counts[places], 0)

        # A context may go on in the next rows.
        here = slice(np.searchsorted(last, table[0]), np.searchsorted(first, table[-1], "right"))
        low = np.searchsorted(table, first[here])
        high = np.searchsorted(table, last[here], "right")
        sums = np.cumsum([its_counts, *_numbers(its_counts)], axis=1)
        sums = np.concatenate([np.zeros((4, 1), "int64"), sums], axis=1)
        followers[:, here] += sums[:, high] - sums[:, low]
    return _Found(counts, followers[:, np.cumsum(starts) - 1])
