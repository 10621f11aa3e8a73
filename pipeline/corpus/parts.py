"""A part of the corpus: a text of one sentence a line, in a file named by its digest."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import NamedTuple

from model.system.errors import DamagedFile, UserError
from model.system.files import look_anew, publish
from pipeline.artifacts import DIGEST_DIGITS

_DIGEST = re.compile(f"[0-9a-f]{{{DIGEST_DIGITS}}}")


class Part(NamedTuple):
    """A part: its text, a sentence and a line end each; see `part_digest`."""

    text: bytes
    digest: str
    sentences: int


def part_digest(text: bytes) -> str:
    """The name of a part: the beginning of the SHA-256 of its text, in hexadecimal."""
    return hashlib.sha256(text).hexdigest()[:DIGEST_DIGITS]


def part_file(folder: Path, digest: str) -> Path:
    """Where a part's text lies."""
    return folder / f"{digest}.txt"


def publish_part(part: Part, folder: Path) -> None:
    """Publish a part's text, unless it is there and whole."""
    path = part_file(folder, part.digest)
    # A part that is there is compared whole: cheap beside reading the corpus, and a damaged one
    # is repaired.
    try:
        there = path.read_bytes() == part.text
    except OSError:  # most often there is no such part; other failures recur when it is written
        there = False
    if not there:
        with publish(path) as temporary:
            temporary.write_bytes(part.text)


def read_part(path: Path) -> bytes:
    """The text of a part, a sentence and a line end each.

    Raises
    ------
    DamagedFile
        When it is not the one that the file's name tells, if that is a digest.
    UserError
        When it cannot be read.
    """
    try:
        if not path.exists():  # another host may have made it a moment ago
            look_anew(path.parent, path.parent.parent)
        text = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the part {path}: {error}.") from error
    if _DIGEST.fullmatch(path.stem) and part_digest(text) != path.stem:
        raise DamagedFile(path, "its bytes do not match the digest in its name")
    return text


def part_sentences(folder: Path, digest: str) -> list[bytes]:
    """The sentences of a part that is published in a folder; raises as `read_part` does."""
    return read_part(part_file(folder, digest)).split(b"\n")[:-1]
