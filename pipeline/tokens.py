"""Stage 2: the words of a part, kept so compactly that nothing later needs the text again.

polars does the text work; it is imported inside the function that uses it. Luigi forks its
workers, and a forked copy of polars's thread pool waits for ever: so the process that forks must
never have imported it. Its threads are limited by the environment variable POLARS_MAX_THREADS, read
at that import.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from model.files import DamagedFile, UserError, open_hdf5, write_hdf5

# Words with their inner apostrophes, numbers with their inner points and commas, and every other
# visible character by itself. In this regular-expression language \w follows Unicode's technical
# standard 18: it holds combining marks, so that words of Hindi, Yoruba or vocalised Arabic stay
# whole (in Python's `re` it does not).
_TOKEN = r"[^\W\d_]+(?:['’][^\W\d_]+)*|\d+(?:[.,]\d+)*|[^\s\p{Cc}]"

_DIGEST = re.compile(r"[0-9a-f]{64}")


class Tokens(NamedTuple):
    """Tokenized sentences.

    Attributes
    ----------
    types : list of str
        The distinct words in the order of their code points.
    counts : uint32 array (types,)
        How often each occurs.
    indices : uint16 or uint32 array (tokens,)
        The sentences' tokens as positions in `types`, one sentence after the other.
    lengths : uint32 array (sentences,)
        The sentences' numbers of tokens.
    """

    types: list[str]
    counts: np.ndarray
    indices: np.ndarray
    lengths: np.ndarray


def tokenize(sentences: list[str], *, lowercase: bool) -> Tokens:
    """Split sentences into words, numbers, and single other characters.

    Parameters
    ----------
    sentences : list of str
        Texts in NFC.
    lowercase : bool
        Whether to bring them to lower case before.

    Returns
    -------
    Tokens
        Its types are in NFC and stable: each, tokenized again, is itself. None holds white space or
        a control character.
    """
    import polars

    texts = polars.Series(sentences, dtype=polars.String)
    if lowercase:
        texts = texts.str.to_lowercase()
    found = texts.str.extract_all(_TOKEN)
    lengths = found.list.len().to_numpy().astype(np.uint32)
    tokens = found.filter(found.list.len() > 0).explode()

    # Positions in an enumeration of the distinct spellings, whose order may differ from run to
    # run; sorting makes it definite. Lower case may leave NFC (J and a caron have no composed
    # form, j and a caron have), and composing never reaches beyond a token.
    spellings = tokens.unique()
    composed = spellings.str.normalize("NFC")
    types = composed.unique().sort()
    places = composed.cast(polars.Enum(types)).to_physical().to_numpy()
    places = places.astype(np.uint16 if len(types) <= 1 << 16 else np.uint32)
    indices = places[tokens.cast(polars.Enum(spellings)).to_physical().to_numpy()]
    counts = np.bincount(indices, minlength=len(types)).astype(np.uint32)
    return Tokens(types.to_list(), counts, indices, lengths)


def write_tokens(
    part_text: Path, path: Path, *, lowercase: bool, **attributes: str | int | bool
) -> None:
    """Tokenize a part and publish its tokens.

    Parameters
    ----------
    part_text : pathlib.Path
        A part as the corpus stage publishes it: `<sha256 of the bytes>.txt`.
    path : pathlib.Path
        The HDF5 file to write, with the datasets of `Tokens` (`types` as UTF-8 joined by line
        ends) and `keys`, uint64 (sentences,): hashes of the sentences' texts.
    lowercase : bool
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
    part_text = Path(part_text)
    try:
        text = part_text.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the part {part_text}: {error}.") from error
    if _DIGEST.fullmatch(part_text.stem) and hashlib.sha256(text).hexdigest() != part_text.stem:
        raise DamagedFile(part_text, "its bytes do not match the digest in its name")
    sentences = text.decode("utf-8").split("\n")[:-1]
    tokens = tokenize(sentences, lowercase=lowercase)
    with write_hdf5(path) as file:
        file["types"] = np.frombuffer("\n".join(tokens.types).encode(), dtype=np.uint8)
        file["counts"] = tokens.counts
        file["indices"] = tokens.indices
        file["lengths"] = tokens.lengths
        file["keys"] = _keys(text.split(b"\n")[:-1])
        for name, value in attributes.items():
            file.attrs[name] = value


def read_tokens(path: str | os.PathLike) -> Tokens:
    """Read what `write_tokens` wrote; raises as `open_hdf5` does."""
    with open_hdf5(path) as file:
        types = file["types"][()].tobytes().decode()
        return Tokens(
            types.split("\n") if types else [],
            *(file[name][()] for name in ("counts", "indices", "lengths")),
        )


def read_types(path: str | os.PathLike) -> tuple[list[str], np.ndarray]:
    """Only the distinct words of a tokens file, and their counts: uint32 (types,)."""
    with open_hdf5(path) as file:
        types = file["types"][()].tobytes().decode()
        return types.split("\n") if types else [], file["counts"][()]


def _keys(sentences: list[bytes]) -> np.ndarray:
    digests = [hashlib.blake2b(sentence, digest_size=8).digest() for sentence in sentences]
    return np.frombuffer(b"".join(digests), dtype="<u8")
