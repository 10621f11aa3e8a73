"""Old artifacts: those that nothing of the present corpus and settings refers to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

import luigi

from pipeline.artifacts import Artifact
from pipeline.tasks import SplitCorpus, Stage, all_needs

# Folders of the working folder that hold artifacts; all else is left alone.
_FOLDERS = ("download", "corpus", "parts", "tokens", "vocabulary", "shards", "models", "receipts")


def unreferenced(work: Path, root: luigi.Task) -> list[tuple[Path, int]]:
    """The files of artifacts that a complete root task does not need.

    Parameters
    ----------
    work : path
        Working folder.
    root : luigi.Task
        A complete task.

    Returns
    -------
    list of (path, size in bytes)
    """
    needed: set[Path] = set()
    for task in all_needs(root):
        artifact = task.artifact() if isinstance(task, Stage) else None
        if isinstance(artifact, Artifact):
            needed |= {artifact.path, artifact.receipt_path}
            if artifact.stage == "models":
                needed |= set(artifact.path.parent.iterdir())
        if isinstance(task, SplitCorpus):
            needed.add(task.set_aside_file(task.artifact()))
            needed |= {task.part_file(part["digest"])
                       for parts in task.manifest().content["sides"].values() for part in parts}
    files = (path for folder in _FOLDERS for path in (work / folder).rglob("*"))
    return [(path, path.stat().st_size) for path in sorted(files)
            if path.is_file() and path not in needed]


def remove(paths: Iterable[Path]) -> None:
    """Remove files, and the folders that are empty then."""
    for path in paths:
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            path.parent.rmdir()
