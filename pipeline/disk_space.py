"""What a run will need of the disk, about, and whether it is free before the run begins."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from model.configuration import OPTIMISERS, NetworkConfig
from model.system.errors import UserError

# Parts are as large as the text; tokens and shards were half of it each, on the King James text.
_BYTES_PER_BYTE_OF_TEXT = 2
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
_TEXT_PER_COMPRESSED_BYTE = 3  # text in the least effective of these, gzip

CHECKPOINTS_AT_A_TIME = 3  # the last one, the best, and the next while it is written
_BYTES_PER_FLOAT = 4


def for_corpus(sizes: Iterable[tuple[Path, int]], known: int) -> int:
    """The bytes that parts, tokens and shards will take.

    Parameters
    ----------
    sizes : iterable of (path, int)
        The files, and their sizes in bytes.
    known : int
        Bytes of text of an earlier run, whose parts are there: most of them will come again.
    """
    text = sum(size * (_TEXT_PER_COMPRESSED_BYTE if path.suffix.lower() in _COMPRESSED else 1)
               for path, size in sizes)
    return _BYTES_PER_BYTE_OF_TEXT * max(0, text - known)


def for_training(network: dict, optimiser: str, words: int) -> int:
    """The bytes that the checkpoints of a training will take.

    Parameters
    ----------
    network : dict
        The section [network] of the settings.
    optimiser : str
    words : int
        Size of the vocabulary.
    """
    weights = NetworkConfig(**network).count_weights(words)
    return CHECKPOINTS_AT_A_TIME * (1 + OPTIMISERS[optimiser]) * weights * _BYTES_PER_FLOAT


def check(work: Path, needed: int) -> None:
    """Refuse to begin what the disk has no room for.

    Raises
    ------
    UserError
        With both numbers.
    """
    there = next(path for path in (work, *work.parents) if path.exists())
    total, _, free = shutil.disk_usage(there)
    if needed > free and total:  # some network file systems tell nothing
        raise UserError(
            f"this run will need about {_size(needed)} in the working folder {work}, and "
            f"{_size(free)} are free there: make room, as with make gc REMOVE=yes, or choose "
            "another WORK")


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
