"""The figures of a run in one file, and how much was trained."""

from __future__ import annotations

from pathlib import Path

from model.checkpoint import read_checkpoint
from model.data.vocabulary import Vocabulary
from model.evaluation import headline
from model.system.files import publish, to_json
from pipeline.corpus.manifest import Manifest
from pipeline.corpus.splits import sentences_also_in_training
from pipeline.report.page import read_log


def write_metrics(path: Path, details: dict, *, work: Path, model: Path,
                  ngrams: Path | None, figures: dict, vocabulary: Vocabulary, manifest: Manifest,
                  parts_folder: Path, parts: dict[str, list[str]], texts: dict[str, str],
                  last_run: dict | None) -> None:
    """Publish the figures of a run.

    Parameters
    ----------
    path : path
        The file, JSON.
    details : dict
        What the evaluation has left.
    work : path
        The working folder, from which the model is named.
    model : path
        The published model.
    ngrams : path or None
        The n-gram model that it was interpolated with, if any.
    figures : dict
        See `training_figures`.
    vocabulary : Vocabulary
    manifest : Manifest
    parts_folder : path
        Where the parts' texts lie.
    parts : dict
        The digests of each split's parts.
    texts : dict
        For "valid" and "test" what tells apart texts whose perplexities cannot be compared.
    last_run : dict or None
        Of the history, the run on the same test text that this one was compared with.
    """
    ancestry = read_checkpoint(model).ancestry
    metrics: dict = {
        split: {key: value for key, value in details["sets"][split].items()
                if not isinstance(value, (dict, list))} for split in ("test", "valid")}
    for split, found in sentences_also_in_training(parts_folder, parts).items():
        count = sum(found.values())
        metrics[split]["sentences_also_in_training"] = {
            "count": count, "share": count / manifest.sentences(split)}
    metrics |= {
        "headline": headline(vocabulary),
        "texts": texts,
        "confidence": _confidence(details["confidence"], last_run),
        "baselines": details["baselines"],
        "breakdowns": details["breakdowns"],
        "mixture": {**details["mixture"], "model": str(ngrams.relative_to(work))}
        if ngrams else None,
        "vocabulary": {"size": len(vocabulary),
                       "unknown_in_training": vocabulary.counts[vocabulary.unknown],
                       "words_not_in_training": len(vocabulary.absent)},
        "corpus": manifest.content["counts"],
        "train": {"model": str(model.relative_to(work)), **figures,
                  "started_from": {**ancestry[0], "ancestors": ancestry[1:]}
                  if ancestry else None},
    }
    with publish(path) as temporary:
        temporary.write_text(to_json(metrics, indent=1))


def _confidence(found: dict, last_run: dict | None) -> dict:
    """The intervals, with the name of the model of the last run where there is one."""
    if last_run is None or not found["last_run"]:
        return found
    return {**found, "last_run": {"model": last_run["model"], **found["last_run"]}}


def training_figures(log: Path) -> dict:
    """How much was trained, and how fast, from the training's log."""
    updates, _ = read_log(log)
    tokens = sum(entry["tokens"] for entry in updates)
    seconds = sum(entry["tokens"] / entry["tokens_per_second"] for entry in updates)
    return {"tokens_per_second": tokens / seconds, "updates": len(updates), "tokens": tokens,
            "epochs": updates[-1]["epoch"] + 1, "seconds": updates[-1]["seconds"]}
