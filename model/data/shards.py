"""Shards: sentences as the rows of a sparse one-hot matrix, ready to be trained on.

A shard is an HDF5 file with the sentences of one part, sorted by length. Its group `inputs` is the
one-hot matrix (tokens, vocabulary) in the CSR layout of AnnData: row r has a single 1, in column
`indices[r]`. So `indices` is all that takes room: `data` is a dataset of ones that is never
written (its fill value is 1), and `indptr` is 0, 1, 2, ..., which compresses to almost nothing.
Rows are the network's inputs `<s> w1 .. wn`, one sentence after the other; the targets
`w1 .. wn </s>` are the same one step later and are not stored.

Attributes of the file:

- format_version, vocabulary_digest, vocabulary_size, start and end (the indices of `<s>` and
  `</s>`), sentences, tokens (the rows: each sentence has one more than it has words);
- steps: the distinct numbers of steps (words + 1) of its sentences, ascending;
- offsets: the row where the sentences of each number of steps begin, and at the end the number of
  rows: those of steps[i] are the rows offsets[i] to offsets[i + 1];
- indices_sha256: the digest of the bytes of `inputs/indices`, for readers that do not know the
  seal which `model.system.hdf5.write_hdf5` puts over the whole file.

References
----------
AnnData's on-disk format, sparse arrays:
https://anndata.readthedocs.io/en/latest/fileformat-prose.html#sparse-arrays
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from ..system.errors import DamagedFile, UserError
from ..system.hdf5 import open_hdf5, write_hdf5
from ..system.untrusted import array, dataset, odd_content
from .vocabulary import Vocabulary

FORMAT_VERSION = 1

_CHUNK_ROWS = 1 << 16  # of `data` and `indptr`, whose chunks cost nothing or almost nothing


def write_shard(
    tokens_file: str | os.PathLike,
    vocabulary: Vocabulary,
    path: str | os.PathLike,
    **attributes: str | int | bool,
) -> None:
    """Publish the shard of one part, from its tokens and without its text.

    Parameters
    ----------
    tokens_file : path
        An HDF5 file with the datasets `types`, `indices` and `lengths` that
        `pipeline.tokens.write_tokens` describes; its sentences, sorted by length, stay in order.
    vocabulary : Vocabulary
        Words outside it become `<unk>`.
    path : path
        The shard.
    **attributes
        Stored as further attributes of the file.

    Raises
    ------
    DamagedFile
        When the tokens file is damaged.
    UserError
        When the shard cannot be written.
    """
    with open_hdf5(tokens_file) as file:
        types = file["types"][()].tobytes().decode()
        indices, lengths = file["indices"][()], file["lengths"][()]
    dtype = np.uint16 if len(vocabulary) <= 1 << 16 else np.uint32
    words = vocabulary.encode(types.split("\n") if types else []).astype(dtype)[indices]

    distinct, counts = np.unique(lengths.astype(np.int64), return_counts=True)
    steps = distinct + 1
    offsets = np.concatenate([[0], np.cumsum(counts * steps)])
    rows = np.full(offsets[-1], vocabulary.start, dtype=dtype)
    done = 0
    for length, count, offset in zip(distinct, counts, offsets):
        block = rows[offset : offset + count * (length + 1)].reshape(count, length + 1)
        block[:, 1:] = words[done : done + count * length].reshape(count, length)
        done += count * length

    with write_hdf5(path) as file:
        for name, value in attributes.items():
            file.attrs[name] = value
        file.attrs["format_version"] = FORMAT_VERSION
        file.attrs["vocabulary_digest"] = vocabulary.digest
        file.attrs["vocabulary_size"] = len(vocabulary)
        file.attrs["start"] = vocabulary.start
        file.attrs["end"] = vocabulary.end
        file.attrs["sentences"] = len(lengths)
        file.attrs["tokens"] = len(rows)
        file.attrs["steps"] = steps
        file.attrs["offsets"] = offsets
        file.attrs["indices_sha256"] = hashlib.sha256(rows.tobytes()).hexdigest()
        inputs = file.create_group("inputs")
        inputs.attrs["encoding-type"] = "csr_matrix"
        inputs.attrs["encoding-version"] = "0.1.0"
        inputs.attrs["shape"] = (len(rows), len(vocabulary))
        inputs["indices"] = rows
        inputs.create_dataset(
            "data", len(rows), np.float32, chunks=(min(_CHUNK_ROWS, len(rows)),), fillvalue=1
        )
        inputs.create_dataset(
            "indptr",
            data=np.arange(len(rows) + 1, dtype=np.int32),
            chunks=(min(_CHUNK_ROWS, len(rows) + 1),),
            shuffle=True,
            compression="gzip",
            compression_opts=1,
        )


@dataclass(frozen=True, eq=False)
class ShardLayout:
    """What the attributes of a shard tell.

    Attributes
    ----------
    path : pathlib.Path
    vocabulary_digest : str
    vocabulary_size : int
    end : int
        The index of `</s>`.
    steps : int64 array (lengths,)
        The distinct numbers of steps of its sentences, ascending.
    offsets : int64 array (lengths + 1,)
        The row where the sentences of each number of steps begin, and the number of rows.
    """

    path: Path
    vocabulary_digest: str
    vocabulary_size: int
    end: int
    steps: np.ndarray
    offsets: np.ndarray

    @property
    def step_counts(self) -> dict[int, int]:
        """The number of sentences by number of steps."""
        counts = np.diff(self.offsets) // self.steps
        return dict(zip(self.steps.tolist(), counts.tolist()))

    def rows(self, steps: int) -> slice:
        """The rows of all sentences of a number of steps: none if there is no such sentence."""
        place = int(np.searchsorted(self.steps, steps))
        if place == len(self.steps) or self.steps[place] != steps:
            return slice(0, 0)
        return slice(int(self.offsets[place]), int(self.offsets[place + 1]))


@dataclass(frozen=True, eq=False)
class Shard(ShardLayout):
    """A whole shard in memory; see `load`.

    Attributes
    ----------
    indices : uint16 or uint32 array (tokens,)
        The inputs of all sentences, in the order of the shard's rows.
    """

    indices: np.ndarray

    def inputs(self, steps: int) -> np.ndarray:
        """The inputs of all sentences of a number of steps: int32 (sentences, steps)."""
        return self.indices[self.rows(steps)].reshape(-1, steps).astype(np.int32)

    def targets(self, steps: int) -> np.ndarray:
        """Their targets, the inputs one step later and then `</s>`: int32 (sentences, steps)."""
        return _targets(self.inputs(steps), self.end)


def load(path: str | os.PathLike, vocabulary_digest: str | None = None) -> Shard:
    """Read a whole shard.

    Parameters
    ----------
    path : path
    vocabulary_digest : str, optional
        The vocabulary that the shard must have been made with.

    Returns
    -------
    Shard

    Raises
    ------
    DamagedFile
        When it is not a whole, undamaged shard.
    UserError
        When it is of another vocabulary or another version of the format, or cannot be read.
    """
    with _open_shard(path, vocabulary_digest) as (file, layout):
        return Shard(**vars(layout),
                     indices=_checked(layout, array(file["inputs"], "indices", "u", 1)))


class ShardReader:
    """The sentences of many shards by their number of steps, read when asked for.

    Parameters
    ----------
    paths : iterable of path
        The shards. Each is checked whole now, and opened again for each reading.
    vocabulary_digest : str, optional
        The vocabulary that they must have been made with; without it, that of the first.

    Attributes
    ----------
    layouts : list of ShardLayout
    step_counts : dict
        The number of sentences, of all shards together, by number of steps (ascending).

    Raises
    ------
    DamagedFile
        When a shard is damaged.
    UserError
        When a shard is of another vocabulary or another version of the format, or cannot be read.
    """

    def __init__(self, paths: Iterable[str | os.PathLike], vocabulary_digest: str | None = None):
        self.layouts: list[ShardLayout] = []
        totals: Counter[int] = Counter()
        for path in paths:
            with _open_shard(path, vocabulary_digest) as (_, layout):
                self.layouts.append(layout)
            vocabulary_digest = layout.vocabulary_digest
            totals.update(layout.step_counts)
        self.step_counts = dict(sorted(totals.items()))

    def sentences(self, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """Read all sentences of one length.

        Parameters
        ----------
        steps : int
            Their number of words + 1.

        Returns
        -------
        inputs, targets : int32 arrays (sentences, steps)
            Indices of words, in the order of the shards.

        Raises
        ------
        DamagedFile
            When a shard cannot be read any more.
        """
        inputs = np.empty((self.step_counts.get(steps, 0), steps), dtype=np.int32)
        done = 0
        for layout in self.layouts:
            rows = layout.rows(steps)
            if rows.start == rows.stop:
                continue
            try:
                with h5py.File(layout.path, "r", locking=False) as file:
                    found = _checked(layout, file["inputs/indices"][rows]).reshape(-1, steps)
            except (OSError, KeyError) as error:
                raise DamagedFile(layout.path, f"it cannot be read any more ({error})") from error
            inputs[done : done + len(found)] = found
            done += len(found)
        return inputs, _targets(inputs, self.layouts[0].end if self.layouts else 0)

    def one_hot(self, steps: int) -> np.ndarray:
        """The inputs of all sentences of one length as float32 (sentences, steps, vocabulary)."""
        inputs, _ = self.sentences(steps)
        size = self.layouts[0].vocabulary_size if self.layouts else 0
        dense = np.zeros((*inputs.shape, size), dtype=np.float32)
        np.put_along_axis(dense, inputs[:, :, None].astype(np.int64), 1, axis=2)
        return dense


def _targets(inputs: np.ndarray, end: int) -> np.ndarray:
    targets = np.empty_like(inputs)
    targets[:, :-1] = inputs[:, 1:]
    targets[:, -1] = end
    return targets


def _check(layout: ShardLayout, rows: int) -> None:
    """Raises ValueError where the attributes of a shard contradict each other."""
    steps, offsets = layout.steps, layout.offsets
    if not (steps.dtype == offsets.dtype == np.int64 and steps.ndim == offsets.ndim == 1
            and len(offsets) == len(steps) + 1 and (np.diff(steps, prepend=0) > 0).all()
            and offsets[0] == 0 and offsets[-1] == rows and (np.diff(offsets) > 0).all()
            and not (np.diff(offsets) % steps).any()):
        raise ValueError("its sentences do not lie where its attributes say")
    if not 0 <= layout.end < layout.vocabulary_size:
        raise ValueError(f"</s> is word {layout.end} of {layout.vocabulary_size}")


def _checked(layout: ShardLayout, indices: np.ndarray) -> np.ndarray:
    """Indices of words, after a look whether all are words of the vocabulary."""
    if len(indices) and indices.max() >= layout.vocabulary_size:
        raise DamagedFile(layout.path, f"it names a word {indices.max()} in a vocabulary of "
                                       f"{layout.vocabulary_size}")
    return indices


@contextlib.contextmanager
def _open_shard(
    path: str | os.PathLike, vocabulary_digest: str | None
) -> Iterator[tuple[h5py.File, ShardLayout]]:
    try:
        with odd_content(path, "shard"), open_hdf5(path) as file:
            indices = dataset(file["inputs"], "indices", "u", 1)
            version = file.attrs["format_version"]
            if version != FORMAT_VERSION:
                raise UserError(
                    f"the shard {path} has format version {version}, and this program reads "
                    f"version {FORMAT_VERSION}. Make the shards again."
                )
            layout = ShardLayout(
                Path(path),
                str(file.attrs["vocabulary_digest"]),
                int(file.attrs["vocabulary_size"]),
                int(file.attrs["end"]),
                file.attrs["steps"],
                file.attrs["offsets"],
            )
            if vocabulary_digest not in (None, layout.vocabulary_digest):
                raise UserError(
                    f"the shard {path} was made with another vocabulary: the digest of its words "
                    f"is {layout.vocabulary_digest[:16]}..., and {vocabulary_digest[:16]}... is "
                    "wanted. Make the shards again with the present vocabulary."
                )
            _check(layout, len(indices))
            yield file, layout
    except OSError as error:
        raise UserError(f"cannot read the shard {path}: {error}. Make the shards again.") from error
