"""What a run will take, told before it: measured on a sample of the text, by the run's code."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from model.checkpoint import read_checkpoint
from model.data.shards import ShardReader, write_shard
from model.data.vocabulary import Vocabulary, write_vocabulary
from model.schedule import planned_updates
from model.system.errors import UserError
from pipeline import disk_space, settings
from pipeline.corpus.files import Corpus, find_corpus
from pipeline.corpus.king_james import extract_kjv
from pipeline.corpus.parts import part_file
from pipeline.corpus.publishing import split_corpus
from pipeline.corpus.splits import SPLITS
from pipeline.model_process import run_model_command
from pipeline.report.plots import Plots
from pipeline.sampling import take_sample
from pipeline.stage import Stage, all_needs
from pipeline.tasks import DownloadCorpus, SplitCorpus, TrainModel, report_of
from pipeline.tokens import Types, read_types, write_tokens
from pipeline.vocabulary import build_vocabulary

_SECONDS = 5.0  # of micro-batches that are measured
_PLOTS = 10  # of the report
_BUSY = 2.5  # the load of a machine from which on its speed is not its own: a plan's makes 2
# What a plan is made of, and the stage that does it: all before it is done when that is.
_STAGES = {"preparation": "EncodeCorpus", "n-grams": "CountNGrams", "training": "TrainModel",
           "evaluation": "EvaluatePerplexity", "report": "WriteReport"}


class Prepared(NamedTuple):
    """A sample that has gone through the stages before the training, and what they took.

    Attributes
    ----------
    shards : dict
        For each split the shards' files.
    vocabulary : Vocabulary
        Of the sample.
    words : int
        Entries of the whole text's vocabulary, about.
    sentences, tokens : dict
        Of the whole text, by split, about; the ends of the sentences are tokens.
    seconds : float
        Of the whole text, for one process.
    bytes : float
        Of the whole text's parts, tokens and shards.
    whole : bool
        Whether the sample is the whole text.
    """

    shards: dict[str, list[Path]]
    vocabulary: Vocabulary
    words: int
    sentences: dict[str, int]
    tokens: dict[str, int]
    seconds: float
    bytes: float
    whole: bool


def prepare(corpus: Corpus, folder: Path, *, reading: dict, tokens: dict,
            vocabulary: dict) -> Prepared:
    """Take a sample of a corpus through the stages that come before the training.

    Parameters
    ----------
    corpus : Corpus
    folder : pathlib.Path
        Where the sample is written, and all that is made of it.
    reading : dict
        For `split_corpus`. Bad lines are left out here, and are for the run to tell.
    tokens, vocabulary : dict
        The sections of the settings.

    Raises
    ------
    UserError
        On a corpus that cannot be read, or a word list that cannot be used.
    """
    sample, shares = take_sample(corpus, folder / "text")
    scale = {split: 1 / shares[split if split in shares else "train"] for split in SPLITS}
    seconds = dict.fromkeys(SPLITS, 0.0)
    started = time.monotonic()
    manifest = split_corpus(sample, folder / "parts", folder / "rejected.tsv",
                            **{**reading, "on_bad_line": "set_aside"})
    # Nearly all of it is training text.
    seconds["train"] += time.monotonic() - started
    sides = manifest["sides"]
    files = {split: [folder / "tokens" / f"{part['digest']}.h5" for part in sides[split]]
             for split in SPLITS}
    for split in SPLITS:
        started = time.monotonic()
        for part, path in zip(sides[split], files[split]):
            write_tokens(part_file(folder / "parts", part["digest"]), path, **tokens)
        seconds[split] += time.monotonic() - started
    started = time.monotonic()
    types = [read_types(path) for path in files["train"]]
    sampled = build_vocabulary(types, sum(part["sentences"] for part in sides["train"]),
                               scratch=folder / "words", **tokens,
                               **{**vocabulary, "word_list": vocabulary["word_list"] or None})
    seconds["train"] += time.monotonic() - started
    shards = {split: [folder / "shards" / path.name for path in files[split]] for split in SPLITS}
    for split in SPLITS:
        started = time.monotonic()
        for path, shard in zip(files[split], shards[split]):
            write_shard(path, sampled, shard)
        seconds[split] += time.monotonic() - started
    counts = {split: ShardReader(shards[split]).step_counts for split in SPLITS}
    written = {split: sum(part["bytes"] for part in sides[split]) + sum(
        path.stat().st_size for path in (*files[split], *shards[split])) for split in SPLITS}
    return Prepared(
        shards, sampled, _words(sampled, types, vocabulary["size"], scale["train"]),
        {split: round(scale[split] * sum(counts[split].values())) for split in SPLITS},
        {split: round(scale[split] * sum(steps * count for steps, count in counts[split].items()))
         for split in SPLITS},
        sum(scale[split] * seconds[split] for split in SPLITS),
        sum(scale[split] * written[split] for split in SPLITS), max(scale.values()) == 1)


def _words(vocabulary: Vocabulary, types: list[Types], size: int | str, scale: float) -> int:
    """How large the whole text's vocabulary is, by Heaps's law: types are a power of tokens."""
    if scale == 1 or size == len(vocabulary) or len(types) < 2:
        return len(vocabulary)
    half = len({word for part in types[:len(types) // 2] for word in part.words()})
    every = len({word for part in types for word in part.words()})
    counts = [int(part.counts.sum()) for part in types]
    exponent = math.log(every / half) / math.log(sum(counts) / sum(counts[:len(types) // 2]))
    found = round(len(vocabulary) * scale**exponent)
    return found if size == "all" else min(int(size), found)


@dataclass(frozen=True)
class Plan:
    """What a run will take.

    Parameters
    ----------
    prepared : Prepared
    measured : dict
        See `model.measurement.measure`; besides "starting", the seconds until a process of the
        model's has begun, and "report".
    training : dict
        The section of the settings.
    workers : int
        Processes side by side.
    done : frozenset of str
        The names of the stages, as the rows have them, that a run would find done.
    updates_done : int
        Of a training that was begun.
    """

    prepared: Prepared
    measured: dict[str, float]
    training: dict
    workers: int
    done: frozenset[str] = frozenset()
    updates_done: int = 0

    @property
    def updates(self) -> int:
        """Those of all epochs."""
        return planned_updates(self.training["max_epochs"], self._windows)

    @property
    def _windows(self) -> int:
        return math.ceil(self.prepared.sentences["train"] / self.training["window"])

    @property
    def validations(self) -> int:
        """As many as there are where the training is not ended early."""
        every = math.ceil(self._windows / self.training["validations_per_epoch"])
        return math.ceil(self.updates / every)

    def training_seconds(self) -> float:
        """Those of all epochs that count for a time budget: without start and compilation."""
        each, tokens = self.measured, self.prepared.tokens
        of_updates = (tokens["train"] * self.training["max_epochs"] * each["token"]
                      + self.updates * each["update"])
        rest = self.training["checkpoint_minutes"] * 60
        checkpoints = self.validations + (of_updates / rest if rest else self.updates)
        return (of_updates + self.validations * tokens["valid"] * each["scored_token"]
                + checkpoints * each["checkpoint"])

    def rows(self, budget: float = 0.0) -> dict[str, float]:
        """Seconds by stage.

        Parameters
        ----------
        budget : float
            Minutes of the training, as ``max_minutes``; 0 for none.
        """
        each, tokens = self.measured, self.prepared.tokens
        held_out = tokens["valid"] + tokens["test"]
        training = self.training_seconds()
        if budget and 60 * budget < training:
            # It ends with a validation.
            training = 60 * budget + tokens["valid"] * each["scored_token"]
        training *= 1 - min(1.0, self.updates_done / self.updates)
        found = {
            "preparation": self.prepared.seconds / min(self.workers, os.cpu_count() or 1),
            # The training has the processor for itself otherwise.
            "n-grams": tokens["train"] * each["counted_token"],
            "training": each["starting"] + each["compiling"] + training + each["model"],
            "evaluation": each["starting"] + each["compiling_evaluation"]
            + held_out * (each["scored_token"] + each["ngram_scored_token"])
            + tokens["train"] * each["baselines_token"],
            "report": each["report"],
        }
        return {name: 0.0 if name in self.done else seconds for name, seconds in found.items()}

    def disk_bytes(self) -> float:
        """What is in the working folder, at most at a time, but for compiled code."""
        each = self.measured
        return (self.prepared.bytes + self.prepared.tokens["train"] * each["ngram_bytes"]
                + disk_space.CHECKPOINTS_AT_A_TIME * each["checkpoint_bytes"]
                + each["model_bytes"])


def make_plan(work: Path, folder: Path, workers: int, say: Callable[[str, float], None]
              ) -> Plan | None:
    """Measure what a run with the settings in force would take; None where it would do nothing.

    Parameters
    ----------
    work : pathlib.Path
        Working folder.
    folder : pathlib.Path
        For all that is made meanwhile.
    workers : int
        Processes side by side.
    say : function
        Called with a status line and the share that is done, 0 to 1.

    Raises
    ------
    UserError
        Where the run would fail as well; where the corpus lies at an address and was never fetched.
    """
    root = report_of(work)
    if root.complete():
        return None
    stages = {type(stage).__name__ for stage in all_needs(root) if stage.complete()}
    done = frozenset(name for name, stage in _STAGES.items() if stage in stages)
    split = root.clone(SplitCorpus)
    say("preparing a sample", 0.0)
    prepared = prepare(_corpus(split, folder), folder, reading=split.reading(),
                       tokens=settings.values(settings.tokens),
                       vocabulary=settings.values(settings.vocabulary))
    write_vocabulary(prepared.vocabulary, folder / "vocabulary.tsv")
    network, training = settings.values(settings.network), settings.values(settings.training)
    job: dict[str, Any] = {
        "folder": str(folder), "vocabulary": str(folder / "vocabulary.tsv"),
        "train_shards": [str(path) for path in prepared.shards["train"]],
        "valid_shards": [str(path) for path in prepared.shards["valid"]],
        "words": prepared.words, "tokens": prepared.tokens["train"], "network": network,
        "training": settings.training_values(), "seconds": _SECONDS,
        "order": settings.values(settings.baseline)["order"],
        "device": settings.values(settings.run)["device"]}
    called, began = time.monotonic(), list[float]()

    def hear(status: str, share: float) -> None:
        began.append(time.monotonic())
        say(status, 0.1 + 0.8 * share)

    measured = run_model_command("measure", job, folder / "job.json", hear)
    say("drawing", 0.95)
    return Plan(
        prepared, {**measured, "starting": began[0] - called, "report": _report_seconds(prepared)},
        training, workers, done, _updates_done(root) if "preparation" in done else 0)


def _corpus(split: SplitCorpus, folder: Path) -> Corpus:
    """The files of the corpus; UserError where they are still to be fetched."""
    _, valid, test = split.inputs()
    for source in split.needs():
        if not source.complete():
            if isinstance(source, DownloadCorpus):
                raise UserError(f"what lies at {source.url} is known when it has been fetched: "
                                "the run does that first")
            extract_kjv(folder / "kjv.txt")
            return find_corpus(str(folder / "kjv.txt"), valid, test)
    return split.files()


def _updates_done(root: Stage) -> int:
    """Of a training that was begun, and would go on."""
    last = root.clone(TrainModel).training().artifact.path.with_name("last.h5")
    return read_checkpoint(last).position["updates"] if last.exists() else 0


def _report_seconds(prepared: Prepared) -> float:
    """Of one plot with the import of what draws it, and of all the others."""
    counts = {steps - 1: count
              for steps, count in ShardReader(prepared.shards["train"]).step_counts.items()}
    times = []
    for _ in range(2):
        started = time.monotonic()
        Plots(None).sentence_lengths(counts)
        times.append(time.monotonic() - started)
    return times[0] + (_PLOTS - 1) * times[1]


def as_text(plan: Plan, work: Path) -> str:
    """A plan for people.

    Parameters
    ----------
    plan : Plan
    work : pathlib.Path
        Working folder, of whose disk the free room is told.
    """
    prepared, each = plan.prepared, plan.measured
    about = "" if prepared.whole else "about "
    lines = [
        f"sentences    {_by_split(prepared.sentences, about)}",
        f"tokens       {_by_split(prepared.tokens, about)}; </s> included",
        f"vocabulary   {about}{prepared.words:,} words",
        f"memory       {_megabytes(each['peak_bytes'])} for the training"
        + (f", {_megabytes(each['counting_bytes'])} while n-grams are counted"
           if each["counting_bytes"] else ""),
        f"disk         {_megabytes(plan.disk_bytes())} in {work}, where "
        f"{_megabytes(shutil.disk_usage(work).free)} are free",
        f"updates      {plan.updates:,} and {plan.validations:,} validations in "
        f"{plan.training['max_epochs']:g} epochs, {1 / each['token']:,.0f} tokens/s between updates"
        + (f"; {plan.updates_done:,} updates are done" if plan.updates_done else ""),
        "",
        f"{'minutes':12} {'no time budget':>14}"]
    columns = [plan.rows()]
    if budget := plan.training["max_minutes"]:
        columns.append(plan.rows(budget))
        lines[-1] += f"  {f'max_minutes = {budget:g}':>18}"
    for name in columns[0]:
        lines.append(f"{name:12} " + "  ".join(
            f"{seconds / 60:>{width}.2f}" for seconds, width in zip(
                (column[name] for column in columns), (14, 18)))
            + ("  (done)" if name in plan.done else ""))
    lines.append(f"{'in all':12} " + "  ".join(
        f"{sum(column.values()) / 60:>{width}.2f}" for column, width in zip(columns, (14, 18))))
    lines += ["", "Where validations get no better the training ends earlier."]
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > _BUSY:
        lines.append(f"Other work was going on (load {load:.1f} on {cores} cores, this plan's own "
                     "included): the minutes hold while it does.")
    return "\n".join(lines) + "\n"


def _by_split(counts: dict[str, int], about: str) -> str:
    return (f"{about}{counts['train']:,} for training, {counts['valid']:,} for validation, "
            f"{counts['test']:,} for the test")


def _megabytes(number: float) -> str:
    return f"{number / 1e6:,.0f} MB"
