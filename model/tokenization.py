"""From text to words: one way for the corpus of a training and for the text to be scored.

polars does the work; it is imported inside the function that uses it. Luigi forks its workers, and
a forked copy of polars's thread pool waits for ever: so the process that forks must never have
imported it. Its threads are limited by the environment variable POLARS_MAX_THREADS, read at that
import.
"""

from __future__ import annotations

import unicodedata
from typing import NamedTuple

import numpy as np

# Words with their inner apostrophes, numbers with their inner points and commas, and every other
# visible character by itself. In this regular-expression language \w follows Unicode's technical
# standard 18: it holds combining marks, so that words of Hindi, Yoruba or vocalised Arabic stay
# whole (in Python's `re` it does not).
_TOKEN = r"[^\W\d_]+(?:['’][^\W\d_]+)*|\d+(?:[.,]\d+)*|[^\s\p{Cc}]"


def clean(text: str) -> str:
    """A line as a sentence: in NFC, without white space at its ends."""
    # ASCII is in NFC, and knowing that it is ASCII is far cheaper than the general check.
    return text.strip() if text.isascii() else unicodedata.normalize("NFC", text).strip()


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
