"""The manifest of a corpus: its parts, in order, by split."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

from pipeline.artifacts import Artifact, by_age, receipts
from pipeline.corpus.parts import part_file
from pipeline.corpus.splits import SPLITS
from pipeline.stage import NamedPart


@dataclass(frozen=True)
class Manifest:
    """The parts of a corpus, by split."""

    content: dict

    def parts(self, split: str) -> list[NamedPart]:
        """The parts of a split, in order; of parts of the same text all are the first one."""
        first: dict[str, NamedPart] = {}
        for each in SPLITS:
            for number, part in enumerate(self.content["sides"][each], 1):
                first.setdefault(part["digest"], NamedPart(each, number, part["digest"]))
        return [first[part["digest"]] for part in self.content["sides"][split]]

    def sentences(self, split: str) -> int:
        """How many sentences a split has."""
        return sum(part["sentences"] for part in self.content["sides"][split])

    def files(self, folder: Path) -> dict[Path, int]:
        """The files of the parts' texts in their folder, and the bytes that each has to have."""
        return {part_file(folder, part["digest"]): part["bytes"]
                for split in SPLITS for part in self.content["sides"][split]}

    def is_there(self, folder: Path) -> bool:
        """Whether the text of each part lies in a folder, of the right size."""
        return all(_has_size(path, size) for path, size in self.files(folder).items())


@functools.lru_cache(maxsize=4)
def read_manifest(path: Path) -> Manifest:
    """Read a manifest, once in a process."""
    return Manifest(json.loads(path.read_text()))


def bytes_of_earlier_run(work: Path, wanted: dict) -> int:
    """The bytes of the parts of the newest run of these ingredients, most of which come again.

    The last one of each split is left out: it ended because the text did.

    Parameters
    ----------
    work : path
        Working folder.
    wanted : dict
        What the manifest's ingredients have to hold.
    """
    for receipt in sorted(receipts(work, "corpus"), key=by_age, reverse=True):
        artifact = Artifact(work, "corpus", receipt["name"], work / receipt["path"],
                            receipt["ingredients"])
        if artifact.ingredients.items() >= wanted.items() and artifact.fault() is None:
            splits = read_manifest(artifact.path).content["sides"]
            return sum(part["bytes"] for parts in splits.values() for part in parts[:-1])
    return 0


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False
