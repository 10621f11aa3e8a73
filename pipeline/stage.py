"""What a stage is: a Luigi task that says what it needs, and why what it makes is not whole.

Two questions are asked of a stage, and no third: `Stage.needs` and `Stage.fault`. All that Luigi
asks of a task follows from these. A stage is complete when all that it needs is, and it has no
fault. So a change shows from the root, and an intermediate file that was damaged is made again even
where the results that came of it are still right.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import html
import logging
import math
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

import luigi
import luigi.interface
import luigi.rpc
from luigi.parameter import ParameterVisibility

from model.system import environment
from model.system.errors import DamagedFile, UserError
from pipeline.artifacts import Artifact

logger = logging.getLogger("pipeline")

# In seconds: after this, as when the machine was suspended, the daemon may have taken the task
# for dead.
_LONG_SILENCE = 30

# What is known of stages while one question after completeness is answered: each is looked at once.
_answers: ContextVar[dict[str, bool] | None] = ContextVar("answers", default=None)


class Stage(luigi.Task):
    """A stage of the job; subclasses give `needs`, `fault` and `mend`."""

    @classmethod
    @functools.cache
    def get_params(cls) -> list[tuple[str, luigi.Parameter]]:
        """Luigi's own list, kept: it goes through the whole class each time a task is named."""
        return super().get_params()

    def needs(self) -> Sequence[Stage]:
        """The stages that this one needs, as far as they are known: some only when others are done.
        """
        return []

    def fault(self) -> str | None:
        """Why what the stage makes is not whole, in a line; None when it is.

        Asked only where all that it needs is complete.

        Raises
        ------
        UserError
            When that cannot be known, because of what the user gave.
        """
        raise NotImplementedError

    def mend(self) -> None:
        """Make what has a fault."""
        raise NotImplementedError

    # What Luigi asks

    def complete(self) -> bool:
        """Whether the stage has no fault, nor any that it needs."""
        with _one_question() as known:
            if self.task_id not in known:
                known[self.task_id] = (all(stage.complete() for stage in self.needs())
                                       and not self._has_fault())
            return known[self.task_id]

    def requires(self) -> Sequence[Stage]:
        """What the stage needs, but for parts: many of these are known only when it runs."""
        return [stage for stage in self.needs() if not isinstance(stage, PartStage)]

    def output(self) -> list:
        """Nothing for Luigi to look at: see `complete`."""
        return []

    def run(self) -> Iterator[Sequence[luigi.Task]] | None:
        """Let the parts be made that are known only now, then mend the stage."""
        # Luigi calls it once more when these are made: then none is missing.
        missing = self._missing_parts()
        if missing:
            self.say(f"waiting for {len(missing)} groups of parts")
        yield missing
        fault = self.fault()
        if fault is None:
            self.say("all that it needs is there", 1.0)
            return None
        self.say(f"because {fault}", 0.0)
        logger.info("%s: %s", self.task_family, fault)
        self.mend()
        return None

    def _missing_parts(self) -> list[PartStage]:
        with _one_question():
            return _together([stage for stage in dict.fromkeys(self.needs())
                              if isinstance(stage, PartStage) and not stage.complete()])

    def _has_fault(self) -> bool:
        try:
            return self.fault() is not None
        except UserError:
            return True  # `run` meets the error, and tells it

    # What is shown

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


@contextlib.contextmanager
def _one_question() -> Iterator[dict[str, bool]]:
    """What is known already of the completeness of stages, within one question after it."""
    known = _answers.get()
    if known is not None:
        yield known
        return
    token = _answers.set(known := {})
    try:
        yield known
    finally:
        _answers.reset(token)


class ArtifactStage(Stage):
    """A stage that makes one artifact; subclasses give `artifact` and `make`."""

    working_folder = luigi.Parameter(default=environment.work_folder(),
                           description="working folder: where everything that is made lies")
    settings_digest = luigi.Parameter(
        default="", description="which settings of `pipeline.job_settings` the run has; empty "
                                "where no other host is to help it")

    @property
    def folder(self) -> Path:
        """The working folder."""
        return Path(self.working_folder)

    def artifact(self) -> Artifact:
        """What the stage makes, where all that it needs is complete; may raise UserError."""
        raise NotImplementedError

    def make(self, artifact: Artifact) -> dict | None:
        """Make the artifact's file; returns what its receipt is to note."""
        raise NotImplementedError

    def fault(self) -> str | None:
        return self.artifact().fault()

    def mend(self) -> None:
        """Make the artifact, whether it is whole or not, and publish its receipt."""
        started = time.monotonic()
        artifact = self.artifact()
        try:
            notes = self.make(artifact) or {}
        except DamagedFile as error:
            # Without the file, the stage that made it is no longer complete.
            error.path.unlink(missing_ok=True)
            raise
        seconds = time.monotonic() - started
        artifact.record(seconds, **notes, peak_memory_mb=_peak_memory())
        self.say(f"made in {seconds:,.1f} s", 1.0)


def _peak_memory() -> int:
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(kind).ru_maxrss for kind in kinds) // 1024


class NamedPart(NamedTuple):
    """A part of the corpus: its split, its number there, from 1, and the digest of its text."""

    split: str
    number: int
    digest: str


class PartStage(ArtifactStage):
    """A stage that makes one artifact for each part of the corpus.

    Several parts at a time are given to one process: starting it takes longer than a part does.
    Not by Luigi's own batches: where one is run again, by another worker than the first time, the
    daemon hands it out again and again.
    """

    part = luigi.Parameter(description="the parts' numbers, and the beginning of a digest")
    contents = luigi.Parameter(
        visibility=ParameterVisibility.HIDDEN,
        description="split, number and digest of a part, as in train/3/8d5e957f297893fd; several "
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

    def fault(self) -> str | None:
        """The first fault of what is made of one of the parts."""
        return next((fault for _, fault in self._faults()), None)

    def requires(self) -> Sequence[Stage]:
        """The parts that are missing: all are known before it runs."""
        return self._missing_parts()

    def run(self) -> None:
        """Mend what has a fault."""
        started = time.monotonic()
        missing = list(self._faults())
        for title, fault in _joined(missing):
            logger.info("%s: %s", title, fault)
        for number, (single, _) in enumerate(missing):
            self.say(f"{self.doing} part {number + 1} of {len(missing)}", number / len(missing))
            single.mend()
        self.say(f"{len(missing)} made in {time.monotonic() - started:,.1f} s", 1.0)

    def _faults(self) -> Iterator[tuple[PartStage, str]]:
        for part in self.named:
            single = self.clone(**part_parameters([part]))
            fault = single.artifact().fault()
            if fault is not None:
                yield single, fault


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


_MOST_PARTS_TOGETHER = 16  # of a million sentences each worker gets two such groups


def _together(stages: Sequence[PartStage]) -> list[PartStage]:
    """Stages for single parts as fewer ones for several, about as many for each worker."""
    workers = luigi.interface.core().workers
    rounds = math.ceil(len(stages) / (workers * _MOST_PARTS_TOGETHER))
    size = math.ceil(len(stages) / (workers * rounds)) if stages else 1
    groups = [stages[first:first + size] for first in range(0, len(stages), size)]
    return [group[0].clone(**part_parameters([stage.named[0] for stage in group]))
            for group in groups]


def throttled(function: Callable[..., None]) -> Callable[..., None]:
    """Call a function at most once a second; a status for Luigi is a call over the network."""
    last = 0.0

    def call(*values: float | None) -> None:
        nonlocal last
        if time.monotonic() - last >= 1:
            last = time.monotonic()
            function(*values)

    return call


def all_needs(root: Stage) -> list[Stage]:
    """A stage and all that it needs, as far as known, each once and after what it needs."""
    found: dict[str, Stage] = {}

    def visit(stage: Stage) -> None:
        if stage.task_id not in found:
            for needed in stage.needs():
                visit(needed)
            found[stage.task_id] = stage

    with _one_question():
        visit(root)
    return list(found.values())


def faults(root: Stage) -> Iterator[tuple[str, str]]:
    """What a run would do and why, without doing it, as far as can be known before.

    Yields
    ------
    title, fault : str
        In the order of a run. What depends on the outcome of these stages comes last.

    Raises
    ------
    UserError
        Where a stage's fault cannot be known.
    """
    ready, waiting = [], []
    with _one_question():
        for stage in all_needs(root):
            if stage.complete():
                continue
            if all(needed.complete() for needed in stage.needs()):
                ready.append((stage, stage.fault() or ""))
            else:
                waiting.append((stage, "depends on what the tasks above make"))
    yield from _joined([*ready, *waiting])


def _joined(faults: Iterable[tuple[Stage, str]]) -> Iterator[tuple[str, str]]:
    """Titles of stages, and their faults; parts with the same fault come together."""
    alike: dict[tuple[str, str], list[Stage]] = {}
    for stage, fault in faults:
        alike.setdefault((stage.task_family, fault), []).append(stage)
    for (family, fault), stages in alike.items():
        places = _places(part for stage in stages if isinstance(stage, PartStage)
                         for part in stage.named)
        yield f"{family} {places}".strip(), fault
