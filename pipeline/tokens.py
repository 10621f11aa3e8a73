"""Stage 2: the words of a part, kept so compactly that nothing later needs the text again."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from model.data.tokenization import Tokens, tokenize
from model.system.hdf5 import open_hdf5, write_hdf5
from pipeline.corpus.parts import read_part


def write_tokens(
    part_text: Path,
    path: Path,
    *,
    lowercase: bool,
    split: str = "words",
    **attributes: str | int | bool,
) -> None:
    """Tokenize a part and publish its tokens.

    Parameters
    ----------
    part_text : pathlib.Path
        A part as the corpus stage publishes it: `<part_digest>.txt`.
    path : pathlib.Path
        The HDF5 file to write, with the datasets of `Tokens` (`types` as UTF-8 joined by line
        ends). The sentences are in the order of the shards: by their number of tokens, then by a
        hash of their text, and equal ones in the order of the part.
    lowercase, split
        See `tokenize`.
    **attributes
        Stored as attributes of the file.

    Raises
    ------
    DamagedFile
        When the part's text is not the one that its name tells.
    UserError
        When the part cannot be read or the tokens cannot be written.
    """
    text = read_part(part_text)
    sentences = text.decode("utf-8").split("\n")[:-1]
    keys = _keys(text.split(b"\n")[:-1])
    tokens = _in_shard_order(tokenize(sentences, lowercase=lowercase, split=split), keys)
    with write_hdf5(path) as file:
        file["types"] = np.frombuffer("\n".join(tokens.types).encode(), dtype=np.uint8)
        file["counts"] = tokens.counts
        file["indices"] = tokens.indices
        file["lengths"] = tokens.lengths
        for name, value in attributes.items():
            file.attrs[name] = value


def read_tokens(path: str | os.PathLike) -> Tokens:
    """Read what `write_tokens` wrote; raises as `open_hdf5` does."""
    with open_hdf5(path) as file:
        types = _types(file)
        return Tokens(types.words(), types.counts, file["indices"][()], file["lengths"][()])


class Types(NamedTuple):
    """The distinct words of a part.

    Attributes
    ----------
    lines : bytes
        A word a line, in UTF-8 and the order of their code points: far less memory than a list of
        them takes.
    counts : unsigned integer array (types,)
    """

    lines: bytes
    counts: np.ndarray

    def words(self) -> list[str]:
        """The words as a list, in the order of `counts`."""
        return self.lines.decode().split("\n") if self.lines else []


def read_types(path: str | os.PathLike) -> Types:
    """Only the distinct words of a tokens file and their counts; raises as `open_hdf5` does."""
    with open_hdf5(path) as file:
        return _types(file)


def _types(file: h5py.File) -> Types:
    return Types(file["types"][()].tobytes(), file["counts"][()])


def _in_shard_order(tokens: Tokens, keys: np.ndarray) -> Tokens:
    """The sentences by their number of tokens, then by their keys."""
    order = np.lexsort((keys, tokens.lengths))  # a stable sort, by the last of these first
    starts = np.cumsum(tokens.lengths, dtype=np.int64) - tokens.lengths
    lengths = tokens.lengths[order]
    moves = starts[order] - (np.cumsum(lengths, dtype=np.int64) - lengths)
    places = np.repeat(moves, lengths)
    places += np.arange(len(places))
    return tokens._replace(indices=tokens.indices[places], lengths=lengths)


def _keys(sentences: list[bytes]) -> np.ndarray:
    digests = [hashlib.blake2b(sentence, digest_size=8).digest() for sentence in sentences]
    return np.frombuffer(b"".join(digests), dtype="<u8")
