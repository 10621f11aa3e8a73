"""Old artifacts: those that nothing of the present corpus and settings refers to.

Only what a receipt names, or what proves by its own content that the job made it, is ever listed:
the user may keep files of any name in the working folder.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from model.current import linked_models, ngrams_of
from model.system.errors import UserError
from pipeline.artifacts import Artifact, by_age, fingerprint, receipts
from pipeline.corpus.parts import part_digest
from pipeline.stage import ArtifactStage, Stage, all_needs
from pipeline.tasks import SplitCorpus, TrainModel

_OF_A_MODEL = ("model.h5", "best.h5", "last.h5", "best.damaged", "last.damaged", "log.jsonl",
               "log.csv", "job.json", "training.json", "evaluate.json", "sums.h5", "metrics.json",
               ".locked-by", ".lock")


@dataclass(frozen=True)
class Model:
    """A model, or a training that was stopped.

    Parameters
    ----------
    folder : path
        Where its files lie; its name is the model's fingerprint.
    network : dict
        The settings of its network.
    receipt : dict or None
        None for a training that has not ended.
    receipt_path : path or None
    """

    folder: Path
    network: dict
    receipt: dict | None = None
    receipt_path: Path | None = None

    @property
    def files(self) -> list[Path]:
        """What there is of it, in the order in which it is to be removed."""
        files = [self.folder / name for name in _OF_A_MODEL]
        return [path for path in (*files, self.receipt_path) if path and path.is_file()]


def unneeded_files(work: Path, root: Stage) -> list[Path]:
    """The files of artifacts, but of no models, that a complete root task does not need.

    Parameters
    ----------
    work : path
        Working folder.
    root : Stage
        A complete one.

    Returns
    -------
    list of path
        In the order in which they are to be removed: a receipt after what it names.
    """
    needed: set[Path] = set()
    for stage in all_needs(root):
        if isinstance(stage, ArtifactStage):
            needed |= {stage.artifact().path, stage.artifact().receipt_path}
        if isinstance(stage, SplitCorpus):
            needed.add(stage.rejected_lines_file(stage.artifact()))
            needed |= {*stage.manifest().files(stage.parts_folder)}
    current = [ngrams_of(model, work) for model in linked_models(work).values()]
    needed |= {ngrams[0] for ngrams in current if ngrams}
    files = []
    for receipt in sorted(receipts(work), key=by_age):
        artifact = Artifact.of_receipt(work, receipt)
        if artifact is None or artifact.stage == "models" or artifact.receipt_path in needed:
            continue
        if artifact.stage == "baseline" and artifact.path in needed:
            continue
        made = [artifact.path]
        if artifact.stage == "corpus":
            made.append(SplitCorpus.rejected_lines_file(artifact))
        files += [path for path in made if path.is_file() and path not in needed]
        files.append(artifact.receipt_path)
    # No receipt names the parts that a run left which did not come to its end; but the name of a
    # part is the digest of its text.
    files += [path for path in sorted((work / "parts").glob("*.txt"))
              if path not in needed and part_digest(path.read_bytes()) == path.stem]
    return files


def models(work: Path) -> list[Model]:
    """All models in a working folder: trainings that were stopped, then what is finished by age."""
    finished = []
    for receipt in sorted(receipts(work, "models"), key=by_age):
        artifact = Artifact.of_receipt(work, receipt)
        if artifact is not None:
            network = artifact.ingredients.get("network", {})
            finished.append(Model(artifact.path.parent, network, receipt, artifact.receipt_path))
    known = {model.folder for model in finished}
    return [*_stopped_trainings(work, known), *finished]


def _stopped_trainings(work: Path, known: set[Path]) -> Iterator[Model]:
    for folder in sorted((work / "models").glob("*")):
        if folder in known:
            continue
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            ingredients = json.loads((folder / "training.json").read_text())["ingredients"]
            if fingerprint(ingredients) == folder.name:
                yield Model(folder, ingredients["network"])


def in_use(root: Stage) -> set[Path]:
    """The folders of the present corpus' and settings' model, and of all that are current."""
    model, = (stage for stage in all_needs(root) if isinstance(stage, TrainModel))
    return {model.artifact().path.parent, *current_folders(model.folder)}


def current_folders(work: Path) -> set[Path]:
    """The folders of the models that a profile's link names."""
    return {model.parent for model in linked_models(work).values()}


def named_models(found: list[Model], names: list[str], used: set[Path]) -> list[Model]:
    """The models that a user has named by their folders; ``all`` for all but those in use.

    Raises
    ------
    UserError
        When there is no such model, or it is in use.
    """
    others = {model.folder.name: model for model in found if model.folder not in used}
    if "all" in names:
        return list(others.values())
    for name in names:
        if name in {folder.name for folder in used}:
            raise UserError(f"the model {name} is in use: it belongs to this corpus and these "
                            "settings, or models/current, of any profile, names it")
        if name not in others:
            raise UserError(f"there is no model {name}; gc without names lists them")
    return [others[name] for name in dict.fromkeys(names)]


def surplus_models(found: list[Model], keep: int, used: set[Path]) -> list[Model]:
    """The oldest finished models where there are more than are to be kept.

    Never one in use, nor the newest, nor one that these were started from.

    Parameters
    ----------
    found : list of Model
        From `models`.
    keep : int
        How many to keep; 0 for all.
    used : set of path
        From `in_use`.
    """
    finished = [model for model in found if model.receipt]
    kept = [model for model in finished if model.folder in used or model is finished[-1]]
    kept += [model for model in finished if any(_is_parent(model, child) for child in kept)]
    others = [model for model in finished if model not in kept]
    return others[:max(0, len(finished) - keep)] if keep else []


def _is_parent(model: Model, child: Model) -> bool:
    if model.receipt is None or child.receipt is None:
        return False
    return child.receipt["ingredients"].get("started_from") == model.receipt["sha256"]


def remove(paths: Iterable[Path]) -> None:
    """Remove files, and the folders that are empty then."""
    for path in paths:
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            path.parent.rmdir()
