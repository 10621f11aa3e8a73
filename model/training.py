"""The training loop: stream windows, accumulate, update, validate, keep checkpoints."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from model.checkpoint import Checkpoint, publish_model, read_checkpoint, write_checkpoint
from model.configuration import NetworkConfig, TrainingConfig
from model.data.batches import MicroBatch, epoch_windows
from model.data.shards import ShardReader
from model.data.vocabulary import Vocabulary
from model.device_memory import bytes_of_training
from model.engine import open_device
from model.evaluation import batches, evaluate, headline
from model.lineage import TrainingText
from model.processes import Alone
from model.schedule import end_share, learning_rate, planned_updates, share_done
from model.slots import PairwiseSums, check_processes, deal
from model.system.errors import BadInput, DamagedFile, UserError
from model.system.files import digest_file, publish_link, to_json
from model.trainer import State, Trainer
from model.training_log import NoLog, TrainingLog
from model.warm_start import carry_over
from model.work_clock import WorkClock

logger = logging.getLogger(__name__)

# A mean loss of so many times that of guessing, the logarithm of the vocabulary's size, is no
# longer a training.
_DIVERGED = 10


@dataclass(frozen=True)
class TrainingJob:
    """All that one training needs.

    Parameters
    ----------
    folder : path
        Where checkpoints, log and, at the end, ``model.h5`` go.
    train_shards, valid_shards : list of path
    vocabulary : Vocabulary
    network : NetworkConfig
    training : TrainingConfig
    tokenization : dict
        How text was made tokens; kept in the checkpoint.
    source : str
        Digest of what is trained on; kept in the checkpoint.
    checkpoint_minutes : float
        Longest time between two checkpoints; changes nothing of the result.
    text : TrainingText or None
        What is known of the text that is trained on; kept in the checkpoint.
    previous : path or None
        A checkpoint whose parameters the training starts from. Whether it may be one is for the
        caller to know: see `model.lineage`.
    device : str
        Where to compute: see `model.engine.open_device`. Another device can go on with a training.
    """

    folder: Path
    train_shards: list[Path]
    valid_shards: list[Path]
    vocabulary: Vocabulary
    network: NetworkConfig
    training: TrainingConfig
    tokenization: dict
    source: str
    checkpoint_minutes: float
    text: TrainingText | None = None
    previous: Path | None = None
    device: str = "cpu"

    @property
    def last(self) -> Path:
        """The checkpoint that an interrupted training goes on from."""
        return self.folder / "last.h5"

    @property
    def best(self) -> Path:
        """The checkpoint of the best validation."""
        return self.folder / "best.h5"

    @property
    def model(self) -> Path:
        """The result: the best checkpoint, published when the training has ended."""
        return self.folder / "model.h5"

    @property
    def log(self) -> Path:
        """One JSON object a line: every update, every validation."""
        return self.folder / "log.jsonl"

    @property
    def settings(self) -> dict:
        """What the checkpoint says of how it was made."""
        return {"network": asdict(self.network), "training": asdict(self.training),
                "tokenization": self.tokenization, "source": self.source}


@dataclass
class Position:
    """Where a training stands.

    Parameters
    ----------
    epoch, window : int
        The epoch, from 0, and how many of its windows are done.
    updates, sentences, tokens : int
        Done so far.
    halvings : int
        Of the rate: validations that were no better than the best.
    stalls : int
        How many of these came last, in a row.
    stalled_at : float or None
        The share of the training that was done when its patience ended.
    best_perplexity : float or None
        Of the validations so far: without `<unk>` where training holds none, see `headline`.
    validated_at : int or None
        The update of the last validation.
    finished : str or None
        Why the training has ended: "max_epochs", "max_minutes" or "stalled".
    """

    epoch: int = 0
    window: int = 0
    updates: int = 0
    sentences: int = 0
    tokens: int = 0
    halvings: int = 0
    stalls: int = 0
    stalled_at: float | None = None
    best_perplexity: float | None = None
    validated_at: int | None = None
    finished: str | None = None


class Diverged(BadInput):
    """The training has no sense any more: nothing is published, the last good state is kept."""


class Stopped(UserError):
    """The training was asked to stop; a checkpoint is written and the next run goes on."""


def train(job: TrainingJob, *, processes: Alone | None = None,
          should_stop: Callable[[], bool] = lambda: False,
          on_progress: Callable[[float, str], None] = lambda share, status: None) -> dict:
    """Train to the end, or go on where an earlier run of the same training stopped.

    A training that is stopped at any moment and run again ends with the same parameters,
    optimiser state and log, bit for bit, on machines of one kind with any number of processes and
    threads; unless it is so slow that `max_minutes` and not `max_epochs` ends it, for then its
    length and its rate depend on the clock.

    A training that begins with another's weights is validated before its first update: where
    nothing better comes of it, these weights are its result.

    Parameters
    ----------
    job : TrainingJob
    processes : Alone, optional
        Those that train together, each of which calls this: see `model.mpi`.
    should_stop : function
        Asked after each micro-batch, of several processes after each slot; when true of one of
        them, a checkpoint is written and `Stopped` raised.
    on_progress : function
        Called with the share that is done, 0 to 1, and a line on what is being done.

    Returns
    -------
    dict
        What it was computed on: see `model.engine.Device.facts`, and the table of `processes`. The
        model is `TrainingJob.model`.

    Raises
    ------
    Stopped
        When `should_stop` said so.
    Diverged
        When a window's loss, the gradient's norm or a validation is not finite, or a window's mean
        loss is above ten times the logarithm of the vocabulary's size; at the end, when no
        validation was better than guessing. The last good checkpoint stays.
    DamagedFile
        When a shard or a checkpoint is damaged.
    UserError
        When there is no such device, or it has too little memory.
    """
    config, processes = job.training, processes or Alone()
    check_processes(processes.count, config.slots)
    device = open_device(job.device, config.precision)
    device.check_memory(bytes_of_training(job.network, config, len(job.vocabulary)))
    on_progress(0.0, "compiling the network")
    trainer = Trainer(job.network, config, len(job.vocabulary), device)
    run = _Run(job, trainer, processes, should_stop, on_progress)
    position = run.position
    while True:
        run.finish_if_due()
        if run.is_validation_due():
            run.validate()
        if position.finished is not None:
            break
        window = run.next_window()

        started = time.monotonic()
        rate = learning_rate(config, run.share(), position.halvings, position.stalled_at)
        tokens, sentences = sum(batch.inputs.size for batch in window), sum(map(len, window))
        run.accumulate(window)
        run.look_ahead()
        processes.add_up(trainer)
        loss = trainer.loss() / tokens
        run.check_loss(loss)
        run.checkpoint_if_due()
        gradient_norm = trainer.apply(rate)
        run.check_gradient(gradient_norm)

        position.window += 1
        position.updates += 1
        position.sentences += sentences
        position.tokens += tokens
        run.tell(epoch=position.epoch, sentences=sentences, tokens=tokens, loss=loss,
                 gradient_norm=gradient_norm, rate=rate, elapsed=time.monotonic() - started)
    run.publish()
    return {**device.facts(), "processes": processes.table()}


class _Run:
    """One run of a training: what lasts from update to update, beside the compiled functions."""

    def __init__(self, job: TrainingJob, trainer: Trainer, processes: Alone,
                 should_stop: Callable[[], bool], on_progress: Callable[[float, str], None]):
        self._job, self._trainer, self._processes = job, trainer, processes
        self._should_stop, self._on_progress = should_stop, on_progress
        config = job.training
        train_set = ShardReader(job.train_shards, job.vocabulary.digest)
        self._valid_set = ShardReader(job.valid_shards, job.vocabulary.digest)
        self._windows_per_epoch = math.ceil(sum(train_set.step_counts.values()) / config.window)
        self._planned_updates = planned_updates(config.max_epochs, self._windows_per_epoch)
        self._validate_every = math.ceil(self._windows_per_epoch / config.validations_per_epoch)
        self._windows: Iterator[list[MicroBatch]] | None = None
        self._ahead: list[MicroBatch] | None = None

        self.position = Position()
        self._history: list[dict] = []
        self._ancestry: list[dict] = []
        self._ancestors_text: TrainingText | None = None
        first = processes.is_first
        processes.begin()
        if (resumed := processes.of_first(_resume(job) if first else None)) is not None:
            trainer.restore(State(resumed.parameters, resumed.optimiser))
            self.position, self._history = Position(**resumed.position), resumed.history
            self._ancestry, self._ancestors_text = resumed.ancestry, resumed.ancestors_text
        elif job.previous is not None:
            parent, digest = processes.of_first(
                (read_checkpoint(job.previous), digest_file(job.previous)) if first else None)
            self._ancestry, self._ancestors_text = _start_warm(job, parent, digest, trainer)

        self._log = (TrainingLog(job.log, self.position.updates, self.position.validated_at)
                     if first else NoLog())
        self._clock = WorkClock(self._log.seconds)
        self._last_checkpoint = time.monotonic()

    def share(self) -> float:
        """How much of the training is done, 0 to 1, or beyond where a budget was outlasted."""
        return share_done(self._job.training, self.position.updates, self._planned_updates,
                          self._processes.of_first(self._clock.seconds()))

    def finish_if_due(self) -> None:
        """Note that the training has ended, and why, when it has; never before its first update."""
        position = self.position
        end = end_share(self._job.training, position.stalled_at)
        if position.finished is None and position.updates and self.share() >= end:
            position.finished = ("stalled" if end < 1 else "max_epochs"
                                 if position.updates == self._planned_updates else "max_minutes")

    def is_validation_due(self) -> bool:
        """Whether to validate now: so often an epoch, at the end, and before a warm start."""
        position = self.position
        if position.validated_at == position.updates:
            return False
        if position.finished is not None:
            return True
        if position.updates == 0:
            return bool(self._ancestry)
        return position.updates % self._validate_every == 0

    def next_window(self) -> list[MicroBatch]:
        """The micro-batches of the next window, of the next epoch where this one has ended."""
        job, config, position = self._job, self._job.training, self.position
        while True:
            if self._windows is None:
                self._windows = epoch_windows(
                    job.train_shards, job.vocabulary.digest, seed=config.seed,
                    epoch=position.epoch, window=config.window,
                    micro_batch_sentences=config.micro_batch_sentences,
                    micro_batch_tokens=config.micro_batch_tokens,
                    shards_in_memory=config.shards_in_memory, first_window=position.window)
            self.look_ahead()
            window, self._ahead = self._ahead, None
            if window is not None:
                return window
            position.epoch, position.window, self._windows = position.epoch + 1, 0, None

    def look_ahead(self) -> None:
        """Gather the next window of this epoch: a card computes meanwhile what it was given."""
        if self._windows is not None and self._ahead is None:
            self._ahead = next(self._windows, None)

    def accumulate(self, window: list[MicroBatch]) -> None:
        """Add the gradients of this process's slots of a window to the sums."""
        position, several = self.position, self._processes.count > 1
        first = np.cumsum([0, *map(len, window)])  # the number of each micro-batch's first sentence
        slots = self._processes.own(deal(window, self._job.training.slots))
        sums = PairwiseSums(self._trainer, len(slots))
        for slot in slots:
            for place in slot:
                batch = window[place]
                self._trainer.accumulate(batch.inputs, batch.targets, update=position.updates,
                                         sentence=int(first[place]))
                if not several:
                    self.stop_if_asked()
            sums.end_slot()
            if several:  # all have as many slots, but not as many micro-batches
                self.stop_if_asked()

    def validate(self) -> None:
        """Score the validation text, and keep a checkpoint, the best one where it is that."""
        job, position = self._job, self.position
        self._on_progress(min(1.0, self.share()), "validating")
        self._processes.check_same(self._trainer.state())
        scores = self._processes.in_order(
            self._trainer.log_probabilities, batches(self._valid_set), self.stop_if_asked)
        totals = evaluate(lambda *_: next(scores), self._valid_set, job.vocabulary).totals
        perplexity = totals.figures()[headline(job.vocabulary)]
        if not math.isfinite(perplexity):
            raise self._diverged("the perplexity of the validation is not finite")
        position.validated_at = position.updates
        improved = position.best_perplexity is None or perplexity < position.best_perplexity
        if improved:
            position.best_perplexity, position.stalls = perplexity, 0
        else:
            position.stalls += 1
            position.halvings += 1
        if position.stalls >= job.training.patience and position.stalled_at is None:
            position.stalled_at = self.share()
        entry = {"update": position.updates, "tokens": position.tokens,
                 "validation_perplexity": perplexity, "halvings": position.halvings}
        self._history.append(entry)
        self._log.write({**entry, "seconds": self._clock.seconds()})
        self.finish_if_due()  # the time budget may have ended meanwhile
        if improved:
            self._checkpoint(job.best)
            if self._processes.is_first:
                publish_link(job.best, job.last)
        else:
            self._checkpoint(job.last)

    def check_loss(self, loss: float) -> None:
        """Raise `Diverged` for a mean loss that is absurd, or no number."""
        if not loss <= _DIVERGED * math.log(len(self._job.vocabulary)):
            raise self._diverged(f"the mean loss is {loss:.3g}")

    def check_gradient(self, norm: float) -> None:
        """Raise `Diverged` for a norm that is not finite."""
        if not math.isfinite(norm):
            raise self._diverged(f"the norm of the gradient is {norm}")

    def stop_if_asked(self) -> None:
        """Keep the state of the window's start and raise `Stopped`; the window is done again."""
        self._clock.seconds()
        if self._processes.any(self._should_stop()):
            self._checkpoint(self._job.last)
            raise Stopped(f"training stopped after {self.position.updates} updates; the next run "
                          f"goes on from {self._job.last}")

    def checkpoint_if_due(self) -> None:
        """Keep the state of the window's start: that it is good is known from the window's sums."""
        due = 60 * self._job.checkpoint_minutes
        if self._processes.is_first and time.monotonic() - self._last_checkpoint >= due:
            self._checkpoint(self._job.last)

    def tell(self, *, elapsed: float, **figures: float) -> None:
        """Log an update, and show how far the training is."""
        position, speed = self.position, figures["tokens"] / elapsed
        self._log.write({"update": position.updates, **figures, "seconds": self._clock.seconds(),
                         "tokens_per_second": speed})
        best = position.best_perplexity
        self._on_progress(min(1.0, self.share()), (
            f"epoch {position.epoch + 1}, window {position.window}/{self._windows_per_epoch}, "
            f"perplexity {math.exp(min(figures['loss'], 50)):.1f}, {speed:,.0f} tokens/s"
            + (f", best validation {best:.2f}" if best else "")))

    def publish(self) -> None:
        """Make the best checkpoint the result, unless nothing was learned."""
        self._log.sync()
        job, best = self._job, self.position.best_perplexity
        assert best is not None  # a training ends with a validation
        if best > len(job.vocabulary):
            raise Diverged(f"the training has learned nothing: its best validation, a perplexity "
                           f"of {best:,.5g}, is worse than guessing, {len(job.vocabulary):,}. "
                           f"Change [training] rate, which is {job.training.rate}, or train "
                           f"longer. Nothing was published; its state is kept: {job.last}")
        if self._processes.is_first:
            _publish_best(job)

    def _checkpoint(self, path: Path) -> None:
        if not self._processes.is_first:
            return
        job, state = self._job, self._trainer.state()
        self._log.sync()
        write_checkpoint(path, Checkpoint(
            parameters=state.parameters, optimiser=state.optimiser, vocabulary=job.vocabulary,
            settings=job.settings, position=asdict(self.position), history=self._history,
            ancestry=self._ancestry, text=job.text, ancestors_text=self._ancestors_text))
        self._last_checkpoint = time.monotonic()

    def _diverged(self, what: str) -> Diverged:
        job = self._job
        kept = (f"the last good state is kept: {job.last}" if job.last.exists()
                else "there was no good state to keep yet")
        return Diverged(f"the training has diverged from update {self.position.updates} on: "
                        f"{what}. Lower [training] rate, which is {job.training.rate}. Nothing was "
                        f"published; {kept}")


def _publish_best(job: TrainingJob) -> None:
    """Make the best checkpoint the result; where it is damaged or gone, begin anew next time.

    The last checkpoint is no way to get it back: it belongs to a training that has ended.
    """
    try:
        publish_model(job.best, job.model)
    except (FileNotFoundError, DamagedFile) as error:
        for path in (job.best, job.last):
            if path.exists():
                os.replace(path, path.with_suffix(".damaged"))
        fault = error.reason if isinstance(error, DamagedFile) else "it is gone"
        raise DamagedFile(job.best, f"{fault}, and the training that it is the result of has "
                                    "ended") from error


def _resume(job: TrainingJob) -> Checkpoint | None:
    """The checkpoint to go on from. A damaged one is set aside, so that the next run passes it."""
    for path in (job.last, job.best):
        if path.exists():
            try:
                checkpoint = read_checkpoint(path)
            except DamagedFile as error:
                aside = path.with_suffix(".damaged")
                os.replace(path, aside)
                raise DamagedFile(path, f"{error} It now lies in {aside}") from error
            if checkpoint.settings != json.loads(to_json(job.settings)):
                raise UserError(f"{path} belongs to a training with other settings")
            return checkpoint
    return None


def _start_warm(job: TrainingJob, parent: Checkpoint, digest: str,
                trainer: Trainer) -> tuple[list[dict], TrainingText | None]:
    """Carry the parameters over from another model; what the checkpoints say of it.

    Raises
    ------
    UserError
        When its network is of another shape.
    """
    fresh = trainer.state()
    carried = carry_over(parent, fresh.parameters, job.vocabulary)
    if carried is None:
        raise UserError(f"the training cannot start from {job.previous}: its network is of another "
                        "shape. Name another [training] warm_start, or change [network]")
    trainer.restore(replace(fresh, parameters=carried))
    told = {"model": digest,
            "source": parent.settings["source"], "updates": parent.position["updates"],
            "best_perplexity": parent.position["best_perplexity"]}
    return [told, *parent.ancestry], parent.seen_text
