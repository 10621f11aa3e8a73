"""How long it takes to see that a corpus of many parts is prepared already."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

from model.data.vocabulary import Vocabulary, write_vocabulary
from pipeline import settings, tasks
from pipeline.stage import ArtifactStage, NamedPart


def time_looks(counts: Sequence[int], scratch: Path, say: Callable[[str], None]) -> dict:
    """Pretend that corpora of some parts are prepared, and ask whether they are.

    Of each part there are a text, tokens and a shard of a few bytes, with their receipts: what is
    looked at is the same as of whole ones.

    Parameters
    ----------
    counts : sequence of int
        How many parts there are.
    scratch : path
    say : function

    Returns
    -------
    dict
        The rows, each with parts, and the seconds of the processor and of the clock for one look.
    """
    rows = []
    for count in counts:
        say(f"{count:,} parts")
        work = scratch / f"{count} parts"
        root = _prepared(work, count)
        root.complete()  # what is read once in a process
        cpu, clock = time.process_time(), time.perf_counter()
        if not root.complete():
            raise RuntimeError("what is there was not taken for whole")
        rows.append({"parts": count, "processor_seconds": time.process_time() - cpu,
                     "seconds": time.perf_counter() - clock})
    return {"rows": rows}


def _prepared(work: Path, count: int) -> tasks.EncodeCorpus:
    corpus = work.with_suffix(".txt")
    corpus.write_text("text\n")
    settings.override("corpus", "path", str(corpus))
    with mock.patch("model.system.files._sync", lambda path: None):
        root = tasks.EncodeCorpus(working_folder=str(work))  # type: ignore[call-arg]
        splitting = root.clone(tasks.SplitCorpus)
        parts = [NamedPart("train", number, hashlib.sha256(b"%d" % number).hexdigest()[:16])
                 for number in range(1, count + 1)]
        sides = {"train": [{"digest": part.digest, "sentences": 1, "bytes": 2} for part in parts],
                 "valid": [], "test": []}
        _pretend(splitting, json.dumps({"sides": sides}))
        for part in parts:
            splitting.parts_folder.mkdir(parents=True, exist_ok=True)
            (splitting.parts_folder / f"{part.digest}.txt").write_text("x\n")
        building = root.clone(tasks.BuildVocabulary)
        for stage in building.parts():
            _pretend(stage, "tokens")
        path = building.artifact().path
        path.parent.mkdir(parents=True, exist_ok=True)
        write_vocabulary(Vocabulary(("</s>", "<s>", "<unk>"), (1, 1, 1)), path)
        building.artifact().record(0)
        for shard in root.shards("train"):
            _pretend(shard, "shard")
    return root


def _pretend(stage: ArtifactStage, text: str) -> None:
    artifact = stage.artifact()
    artifact.path.parent.mkdir(parents=True, exist_ok=True)
    artifact.path.write_text(text)
    artifact.record(0)
