"""Texts to split, and the parts that come of them."""

import hashlib

from pipeline.corpus.files import find_corpus
from pipeline.corpus.publishing import split_corpus
from pipeline.corpus.splits import SPLITS

VERSES = [
    "In the beginning God created the heaven and the earth.",
    "And God said, Let there be light: and there was light.",
    "And God called the light Day, and the darkness he called Night.",
    "Jesus wept.",
    "Rejoice evermore.",
    "Pray without ceasing.",
]


def split_texts(folder, train, valid=None, test=None, **options):
    """Write the given sentences to files, split them, and read the splits' parts back."""
    patterns = []
    for split, sentences in zip(SPLITS, (train, valid, test)):
        path = folder / f"{split}.txt"
        if sentences is not None:
            path.write_text("".join(f"{s}\n" for s in sentences), newline="")
        patterns.append(str(path) if sentences is not None else None)
    manifest = split_corpus(
        find_corpus(*patterns), folder / "parts", folder / "set_aside.tsv", **options
    )
    return manifest, {split: read_parts(folder / "parts", manifest, split) for split in SPLITS}


def read_parts(folder, manifest, split):
    parts = []
    for part in manifest["sides"][split]:
        content = (folder / f"{part['digest']}.txt").read_bytes()
        assert hashlib.sha256(content).hexdigest().startswith(part["digest"])
        assert len(content) == part["bytes"]
        assert content.count(b"\n") == part["sentences"]
        parts.append(content.decode().split("\n")[:-1])
    return parts


def write_others(folder, beginning=""):
    """Files for validation and test of a sentence each; their names."""
    paths = [folder / "other valid.txt", folder / "other test.txt"]
    for path in paths:
        path.write_text(f"{beginning}{path.stem}\n")
    return list(map(str, paths))
