"""A hash of a sentence that is the same on every machine, for ever, and others derived from it."""

from __future__ import annotations

import zlib

import numpy as np


def hash_sentences(sentences: list[bytes]) -> np.ndarray:
    """A hash of each sentence's text, its CRC-32: the same on every machine, for ever.

    Parameters
    ----------
    sentences : list of bytes

    Returns
    -------
    uint64 array (sentences,)
    """
    return np.fromiter(map(zlib.crc32, sentences), dtype=np.uint64, count=len(sentences))


def mix(hashes: np.ndarray, salt: int) -> np.ndarray:
    """The finalizer of splitmix64, of `hashes` + `salt`: any salt gives another even hash.

    Parameters
    ----------
    hashes : uint64 array (sentences,)
    salt : int
        Below 2**64.

    Returns
    -------
    uint64 array (sentences,)

    References
    ----------
    Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014.
    """
    mixed = hashes + np.uint64(salt)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
