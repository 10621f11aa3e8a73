"""Which training is wanted: one that is finished, one to go on with, or a new one and its parent.

A model's ingredients are those of a training from the start, and ``started_from``: the digest of
the model whose weights it began with, or null. So the models of one text and the same settings
differ by their parents, and any of them will do, unless its parent would be refused today. The
parent of a new one is chosen here, once, and stands in the training's folder before it begins.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from model.checkpoint import Checkpoint, read_checkpoint
from model.lineage import TrainingText
from model.system.errors import BadInput, UserError
from model.system.files import digest_file, publish
from pipeline.artifacts import Artifact, by_age, differences, fingerprint, receipts
from pipeline.corpus.splits import sentences_also_in_training

_SENTENCE_DIGEST_BYTES = 16


@dataclass(frozen=True)
class Splits:
    """The text of today, as far as it matters to who may be a parent.

    Parameters
    ----------
    format : int
        Version of the rules that make sentences of lines.
    parts_folder : path
    parts : tuple of (str, tuple of str)
        The digests of each split's parts.
    shares : tuple of (str, float)
        For "valid" and "test" the share that is drawn by hash; 0 for a text that is given.
    """

    format: int
    parts_folder: Path
    parts: tuple[tuple[str, tuple[str, ...]], ...]
    shares: tuple[tuple[str, float], ...]

    @property
    def held_out(self) -> dict:
        """For "valid" and "test" the share that is drawn, or the digest of the given text."""
        parts = dict(self.parts)
        return {split: share or fingerprint({"parts": sorted(set(parts[split]))})
                for split, share in self.shares}

    def text(self) -> TrainingText:
        """What a model keeps of this text; reads all parts where a split is given."""
        return _text(self)


@functools.lru_cache(maxsize=2)
def _text(splits: Splits) -> TrainingText:
    given = {split: text if isinstance(text, str) else None
             for split, text in splits.held_out.items()}
    seen: dict[str, list[str]] = {}
    if any(given.values()):
        parts = {split: list(digests) for split, digests in splits.parts}
        repeated = sentences_also_in_training(splits.parts_folder, parts)
        seen = {text: sorted(map(_sentence_digest, repeated[split]))
                for split, text in given.items() if text}
    return TrainingText(splits.format, dict(splits.shares), given, seen)


def _sentence_digest(sentence: bytes) -> str:
    return hashlib.blake2b(sentence, digest_size=_SENTENCE_DIGEST_BYTES).hexdigest()


@dataclass(frozen=True)
class Training:
    """A training that was or is to be.

    Parameters
    ----------
    artifact : Artifact
        Its model.
    previous : path or None
        Its parent.
    reason : str or None
        Why a new one has no parent, in a line, where there are models that could have been one.
    """

    artifact: Artifact
    previous: Path | None = None
    reason: str | None = None

    @property
    def record_path(self) -> Path:
        """Where the training's folder says what it is."""
        return self.artifact.path.with_name("training.json")

    def can_be_used(self) -> bool:
        """Whether its model is whole, or it has left a checkpoint to go on from."""
        return self.artifact.fault() is None or self.artifact.path.with_name("last.h5").exists()

    def record(self, splits: Splits) -> None:
        """Publish what the training is, before it begins, so that it goes on as the same."""
        with publish(self.record_path) as temporary:
            temporary.write_text(json.dumps({
                "ingredients": self.artifact.ingredients, "held_out": splits.held_out,
                "previous": str(self.previous) if self.previous else None}, indent=1))


def wanted_training(work: Path, ingredients: dict, settings: dict, splits: Splits,
                    warm_start: str, current: Path | None) -> Training:
    """The training of a text and settings.

    Parameters
    ----------
    work : path
        Working folder.
    ingredients : dict
        Of a training from the start, without ``started_from``.
    settings : dict
        What has to be the same in a parent that is chosen here.
    splits : Splits
    warm_start : str
        "true", "false", or the file of a parent.
    current : path or None
        The current model, which is asked first where a parent is to be chosen, then the newest.

    Returns
    -------
    Training
        A finished one, else one that was begun, the newest first; else a new one.

    Raises
    ------
    UserError
        When the parent that was named is none that may be used.
    """
    named = None
    if warm_start not in ("true", "false"):
        named = Path(warm_start).expanduser()
        refused = _refusal_of(_read(named), splits)
        if refused:
            raise BadInput(f"[training] warm_start = {warm_start}: the model must not be the "
                           f"parent of this training: {refused}")
    parent = digest_file(named) if named else None

    def may_begin_with(started_from: str | None) -> bool:
        if named:
            return started_from == parent
        return started_from is None or warm_start == "true"

    for training, held_out in itertools.chain(_finished(work), _begun(work)):
        of_it = dict(training.artifact.ingredients)
        started_from = of_it.pop("started_from", "unknown")
        if of_it == ingredients and may_begin_with(started_from) and (
                started_from is None or held_out == splits.held_out
                or _may_still_be(training, splits)) and training.can_be_used():
            return training

    if named:
        return _new(work, ingredients, parent, named)
    if warm_start == "false":
        return _new(work, ingredients, None, None)
    return _with_chosen_parent(work, ingredients, settings, splits, current)


def _new(work: Path, ingredients: dict, started_from: str | None, previous: Path | None,
         reason: str | None = None) -> Training:
    whole = {**ingredients, "started_from": started_from}
    path = work / "models" / fingerprint(whole) / "model.h5"
    return Training(Artifact(work, "models", "model", path, whole), previous, reason)


def _finished(work: Path) -> Iterator[tuple[Training, dict | None]]:
    """Trainings that have ended, and the held-out texts that they began with."""
    for receipt in _newest_first(work):
        artifact = Artifact.of_receipt(work, receipt)
        if artifact:
            yield Training(artifact), receipt["notes"].get("held_out")


def _begun(work: Path) -> Iterator[tuple[Training, dict | None]]:
    """Trainings that have begun, the latest first."""
    for path in sorted(work.glob("models/*/training.json"),
                       key=lambda path: path.stat().st_mtime_ns, reverse=True):
        try:
            record = json.loads(path.read_text())
            artifact = Artifact(work, "models", "model", path.with_name("model.h5"),
                                record["ingredients"])
            previous = record["previous"]
            yield Training(artifact, Path(previous) if previous else None), record["held_out"]
        except (OSError, ValueError, TypeError, KeyError):
            continue  # no record of ours


def _newest_first(work: Path) -> list[dict]:
    return sorted(receipts(work, "models"), key=by_age, reverse=True)


def _may_still_be(training: Training, splits: Splits) -> bool:
    """Whether the parent of a training that is there would not be refused today."""
    for name in ("model.h5", "last.h5"):
        path = training.artifact.path.with_name(name)
        if path.exists():
            try:
                ancestors = read_checkpoint(path).ancestors_text
            except UserError:
                return False
            return ancestors is not None and splits.text().refuses(ancestors) is None
    return False


def _with_chosen_parent(work: Path, ingredients: dict, settings: dict, splits: Splits,
                        current: Path | None) -> Training:
    """A new training with the first parent that may be one, or from the start."""
    reason = None
    found = [(artifact, receipt) for receipt in _newest_first(work)
             if (artifact := Artifact.of_receipt(work, receipt))]
    for artifact, receipt in sorted(found, key=lambda each: each[0].path != current):
        refused = _refusal(artifact, receipt["notes"].get("settings"), settings, splits)
        if refused is None:
            return _new(work, ingredients, receipt["sha256"], artifact.path)
        reason = reason or f"not from {artifact.path}: {refused}"
    return _new(work, ingredients, None, None, reason)


def _refusal(artifact: Artifact, settings_then: dict | None, settings: dict,
             splits: Splits) -> str | None:
    """Why a finished model is not the parent of a new training, in a line."""
    if settings_then is None:
        return "it is a model of an older version"
    changed = differences(settings_then, settings)
    if changed:
        return f"settings have changed ({'; '.join(changed)})"
    if artifact.fault() is not None:
        return "it is damaged or gone"
    try:
        return _refusal_of(read_checkpoint(artifact.path), splits)
    except UserError as error:
        return str(error)


def _refusal_of(checkpoint: Checkpoint, splits: Splits) -> str | None:
    seen = checkpoint.seen_text
    if seen is None:
        return "it does not tell what it was trained on"
    return splits.text().refuses(seen)


def _read(path: Path) -> Checkpoint:
    try:
        return read_checkpoint(path)
    except (UserError, OSError) as error:
        raise BadInput(f"[training] warm_start = {path}: {error}") from error
