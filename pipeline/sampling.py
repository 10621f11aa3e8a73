"""A sample of a corpus: enough text to know the rest by."""

from __future__ import annotations

from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

from model.data.text_files import is_plain, read_text
from model.system.errors import UserError
from model.system.files import open_beginning
from model.system.terminal import one_line
from pipeline.corpus.files import Corpus, CorpusFile, find_corpus
from pipeline.corpus.reading import ARCHIVED
from pipeline.corpus.splits import SPLITS

# Of the text of a split, as stored: what is taken of more, about.
_MOST_BYTES = 12 << 20
# A plain file's share is taken from so many places, where each gives so many bytes.
_PLACES = 16
_LEAST_BYTES = 1 << 16
_PIECE_BYTES = 1 << 16
_LONGEST_LINE = 1 << 20


def take_sample(corpus: Corpus, folder: Path) -> tuple[Corpus, dict[str, float]]:
    """Write a sample of each file of a corpus: whole lines, from all over it where it is plain.

    Of compressed files the beginnings are taken: they can be read from there only.

    Parameters
    ----------
    corpus : Corpus
    folder : pathlib.Path
        Where the sample is written, decompressed, each split in a folder of its own.

    Returns
    -------
    sample : Corpus
    shares : dict
        For each split that has files of its own the share of their bytes, as stored, that is in
        the sample; 1 where all are.

    Raises
    ------
    UserError
        When a file cannot be read.
    """
    shares: dict[str, float] = {}
    patterns: dict[str, str | None] = dict.fromkeys(SPLITS)
    for split in SPLITS:
        files = [file for file in corpus.files if file.split == split]
        total = sum(file.identity.size for file in files)
        if not files:
            continue
        patterns[split] = str(folder / split)
        (folder / split).mkdir(parents=True)
        share = min(1.0, _MOST_BYTES / max(1, total))
        taken = 0
        for number, file in enumerate(files):
            with open(folder / split / f"{number:06d}.txt", "wb") as sample:
                for text, stored in _lines_of(file, share):
                    sample.write(text)
                    taken += stored
        shares[split] = min(1.0, taken / total) if total else 1.0
    train, valid, test = (patterns[split] for split in SPLITS)
    return find_corpus(train or "", valid, test), shares


def _lines_of(file: CorpusFile, share: float) -> Iterator[tuple[bytes, int]]:
    """About a share of a file: pieces of its text, and how many bytes as stored each stands for."""
    size = file.identity.size
    try:
        with open_beginning(file.path, size) as raw:
            if not is_plain(raw) or share == 1:
                yield from _beginning(raw, file, share * size)
                return
        wanted = share * size
        places = max(1, min(_PLACES, int(wanted / _LEAST_BYTES)))
        with open(file.path, "rb") as raw:
            for place in range(places):
                raw.seek(place * size // places)
                if place:
                    raw.readline(_LONGEST_LINE)  # it began before
                text = raw.read(int(wanted / places)) + raw.readline(_LONGEST_LINE)
                yield text, len(text)
    except OSError as error:
        raise UserError(f"cannot read {one_line(file.path)}: {error}.") from error


def _beginning(raw: BufferedReader, file: CorpusFile, wanted: float) -> Iterator[tuple[bytes, int]]:
    before, rest = 0, b""
    for piece in read_text(raw, file.path, _PIECE_BYTES, ARCHIVED):
        stored = raw.tell()
        # Of what is read of the file at a time all the text is taken: so the share is right.
        if before >= wanted and stored > before:
            return
        end = piece.rfind(b"\n") + 1
        yield rest + piece[:end], stored - before
        before, rest = stored, piece[end:]
    yield rest, 0
