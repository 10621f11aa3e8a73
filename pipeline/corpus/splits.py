"""Which split a sentence belongs to, and what the splits have in common."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from model.system.errors import BadInput
from pipeline.corpus.hashing import mix
from pipeline.corpus.parts import part_sentences

SPLITS = ("train", "valid", "test")

_SPLIT_SALT = 0x9E3779B97F4A7C15


def choose_splits(hashes: np.ndarray, valid_share: float, test_share: float) -> np.ndarray:
    """Choose the split of each sentence by its hash alone.

    The validation split is the low end of the range of hashes and the test split the high end, so
    that changing one share leaves the other split as it is.

    Parameters
    ----------
    hashes : uint64 array (sentences,)
        From `pipeline.corpus.hashing.hash_sentences`.
    valid_share, test_share : float
        The expected share of the distinct sentences on these splits.

    Returns
    -------
    uint8 array (sentences,)
        Positions in `SPLITS`.
    """
    # 53 bits, so that the hash as a float is exact and every share has its exact border.
    place = (mix(hashes, _SPLIT_SALT) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return (place < valid_share) + np.uint8(2) * (place >= 1 - test_share)


def divide(
    sentences: list[bytes], hashes: np.ndarray, valid_share: float, test_share: float
) -> Iterator[tuple[str, list[bytes], np.ndarray]]:
    """Give each sentence to the split that `choose_splits` chooses.

    Parameters
    ----------
    sentences : list of bytes
    hashes : uint64 array (sentences,)
        Of them, from `pipeline.corpus.hashing.hash_sentences`.
    valid_share, test_share : float
        See `choose_splits`.

    Yields
    ------
    (str, list of bytes, uint64 array)
        Each split, its sentences in the same order, and their hashes.
    """
    chosen = choose_splits(hashes, valid_share, test_share)
    for position, split in enumerate(SPLITS):
        places = np.flatnonzero(chosen == position)
        yield split, [sentences[place] for place in places.tolist()], hashes[places]


def check_splits(
    parts: dict[str, list],
    patterns: dict[str, str | None],
    counts: dict,
    drawn_shares: tuple[float, float],
    folder: Path,
) -> None:
    """Refuse a corpus that leaves a split without sentences.

    Parameters
    ----------
    parts : dict
        Of each split, the entries of its parts in the manifest.
    patterns : dict
        See `pipeline.corpus.files.Corpus`.
    counts : dict
        See `pipeline.corpus.reading.SentenceReader`.
    drawn_shares : (float, float)
        Of validation and test, each 0 where it is not drawn.
    folder : pathlib.Path
        Where the parts are published.

    Raises
    ------
    BadInput
    """
    for split, share in zip(SPLITS, (None, *drawn_shares)):
        if parts[split]:
            continue
        if patterns[split]:
            raise BadInput(
                f"the corpus {patterns[split]} leaves no sentence for the {split} side (of all "
                f"files together {counts['lines']:,} lines were read, {counts['empty']:,} of them "
                f"empty and {counts['set_aside']:,} set aside). Give a text with one sentence a "
                "line."
            )
        different = len({sentence for split_parts in parts.values() for part in split_parts
                         for sentence in part_sentences(folder, part["digest"])} if share else ())
        why = (f"{patterns['train']} holds so few different sentences ({different:,}; repeated "
               "ones lie on one side) that none was drawn for" if share else
               f"{split}_share is 0, and there is no other text for")
        raise BadInput(f"{why} the {split} side. Give a text for it ({split.upper()}=file), or "
                       f"raise {split}_share.")


def sentences_also_in_training(folder: Path,
                               parts: dict[str, list[str]]) -> dict[str, dict[bytes, int]]:
    """The sentences of each other split that occur, as the same text, in training too.

    Parameters
    ----------
    folder : pathlib.Path
        Where parts are published.
    parts : dict
        The digests of each split's parts.

    Returns
    -------
    dict
        For "valid" and "test" the sentences, each with how often it occurs on that split.

    Raises
    ------
    DamagedFile
        When a part's text is not the one that its name tells.
    UserError
        When a part cannot be read.
    """
    sentences = functools.partial(part_sentences, folder)
    others = {split: Counter(itertools.chain.from_iterable(map(sentences, parts[split])))
              for split in ("valid", "test")}
    wanted = {*others["valid"], *others["test"]}
    found: set[bytes] = set()
    for digest in parts["train"]:
        found |= wanted.intersection(sentences(digest))
    return {split: {sentence: counts[sentence] for sentence in found if sentence in counts}
            for split, counts in others.items()}
