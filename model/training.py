"""The training loop: stream windows, accumulate, update, validate, keep checkpoints."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from model import engine  # noqa: F401  isort: skip

import lasagne
import numpy as np
import theano
import theano.tensor as T

from model.checkpoint import Checkpoint, publish_model, read_checkpoint, write_checkpoint
from model.configuration import NetworkConfig, TrainingConfig
from model.data.batches import epoch_windows
from model.data.shards import ShardReader
from model.data.vocabulary import Vocabulary
from model.evaluation import evaluate, headline
from model.lineage import TrainingText
from model.network import Network, build_network, log_probabilities, summed_loss
from model.schedule import end_share, learning_rate, share_done
from model.system.errors import BadInput, DamagedFile, UserError
from model.system.files import digest_file, publish, publish_link, to_json
from model.updater import (
    accumulate_gradients,
    average_and_apply,
    average_gradients,
    create_accumulators,
    update_state,
)

logger = logging.getLogger(__name__)

# A mean loss of so many times that of guessing, the logarithm of the vocabulary's size, is no
# longer a training.
_DIVERGED = 10
# A gap between two micro-batches is no work when it is longer than this, in seconds, and the
# process computed in less than this share of it.
_GAP_SECONDS = 5.0
_GAP_SHARE = 0.1


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


class Trainer:
    """The compiled functions of a training, and the variables that they share.

    Parameters
    ----------
    network : NetworkConfig
    training : TrainingConfig
    vocabulary_size : int
    """

    def __init__(self, network: NetworkConfig, training: TrainingConfig, vocabulary_size: int):
        lasagne.random.set_rng(np.random.RandomState(training.seed))
        self.network = build_network(network, vocabulary_size)
        params = self.network.parameters
        x, y = T.imatrices("inputs", "targets")
        loss = summed_loss(self.network, x, y)
        accumulators = create_accumulators(params)
        count = x.shape[0] if training.denominator == "sentences" else x.size
        self.accumulate = theano.function(
            [x, y], loss, updates=accumulate_gradients(loss, params, accumulators, count))
        self.rate = theano.shared(np.asarray(training.rate, theano.config.floatX), name="rate")
        updates = average_and_apply(params, accumulators,
                                    getattr(lasagne.updates, training.optimiser),
                                    learning_rate=self.rate)
        squares = sum(T.sqr(gradient).sum() for gradient in average_gradients(accumulators))
        self.apply = theano.function([], T.sqrt(squares), updates=updates)
        self.log_probabilities = compile_log_probabilities(self.network)
        self._accumulators = [*accumulators.gradients, accumulators.count]
        self._optimiser = update_state(updates, params, accumulators)
        known = {*self.parameters, *self._accumulators}
        self._random = [v for v in self.accumulate.get_shared() if v not in known]

    @property
    def parameters(self) -> list:
        """All weights, fixed initial states among them."""
        return lasagne.layers.get_all_params(self.network.output)

    def random_states(self) -> list[np.ndarray]:
        """The states of the generators of dropout."""
        return [variable.get_value() for variable in self._random]

    def capture(self) -> dict:
        """Everything that a checkpoint keeps of the functions' variables.

        No copies but of the small ones: it is to be written before the next update.
        """
        return {"parameters": {p.name: p.get_value(borrow=True) for p in self.parameters},
                "optimiser": [v.get_value(borrow=True) for v in self._optimiser],
                "random_states": self.random_states()}

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take everything back from a checkpoint, and clear the accumulators."""
        set_parameters(self.network, checkpoint.parameters)
        for variables, values in ((self._optimiser, checkpoint.optimiser),
                                  (self._random, checkpoint.random_states)):
            for variable, value in zip(variables, values, strict=True):
                variable.set_value(value)
        for variable in self._accumulators:
            variable.set_value(np.zeros_like(variable.get_value(borrow=True)))


def compile_log_probabilities(network: Network) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Compile the scoring of sentences: see `model.network.log_probabilities`."""
    x, y = T.imatrices("inputs", "targets")
    return theano.function([x, y], log_probabilities(network, x, y))


def set_parameters(network: Network, values: dict[str, np.ndarray]) -> None:
    """Set a network's weights.

    Parameters
    ----------
    network : Network
    values : dict
        An array for each parameter, by its name, of its shape.

    Raises
    ------
    KeyError
        When there is none for a parameter.
    """
    for parameter in lasagne.layers.get_all_params(network.output):
        parameter.set_value(values[parameter.name])


def carry_over(previous: Checkpoint, network: Network, vocabulary: Vocabulary) -> bool:
    """Start a network from another's weights, matching words by their spelling.

    Words that the previous vocabulary does not have keep their fresh weights.

    Parameters
    ----------
    previous : Checkpoint
    network : Network
        With fresh weights.
    vocabulary : Vocabulary
        Of the new network.

    Returns
    -------
    bool
        False when the two networks differ in more than the vocabulary; then nothing is carried.
    """
    place = {word: n for n, word in enumerate(previous.vocabulary.words)}
    shared = [(n, place[word]) for n, word in enumerate(vocabulary.words) if word in place]
    new, old = (np.array(column) for column in zip(*shared, strict=True))
    values = {}
    for parameter in lasagne.layers.get_all_params(network.output):
        value, before = parameter.get_value(), previous.parameters.get(parameter.name)
        if before is None or before.ndim != value.ndim:
            return False
        words = _vocabulary_axis(parameter.name)
        if words is None:
            value = before if before.shape == value.shape else None
        elif np.delete(before.shape, words).tolist() == np.delete(value.shape, words).tolist():
            np.moveaxis(value, words, 0)[new] = np.moveaxis(before, words, 0)[old]
        else:
            value = None
        if value is None:
            return False
        values[parameter.name] = value
    set_parameters(network, values)
    return True


def _vocabulary_axis(name: str) -> int | None:
    """Which axis of a parameter counts words: rows into the network, columns out of it."""
    if name.startswith("lstm1.W_in_to_"):
        return 0
    return {"softmax.W": 1, "softmax.b": 0}.get(name)


def train(job: TrainingJob, *, should_stop: Callable[[], bool] = lambda: False,
          on_progress: Callable[[float, str], None] = lambda share, status: None) -> Path:
    """Train to the end, or go on where an earlier run of the same training stopped.

    A training that is stopped at any moment and run again ends with the same parameters,
    optimiser state and log, bit for bit, on the same machine with the same number of threads;
    unless it is so slow that `max_minutes` and not `max_epochs` ends it, for then its length and
    its rate depend on the clock.

    A training that begins with another's weights is validated before its first update: where
    nothing better comes of it, these weights are its result.

    Parameters
    ----------
    job : TrainingJob
    should_stop : function
        Asked after each micro-batch; when true, a checkpoint is written and `Stopped` raised.
    on_progress : function
        Called with the share that is done, 0 to 1, and a line on what is being done.

    Returns
    -------
    pathlib.Path
        The published model.

    Raises
    ------
    Stopped
        When `should_stop` said so.
    Diverged
        Within a window, when a loss, the gradient's norm or a validation is not finite, or a
        window's mean loss is above ten times the logarithm of the vocabulary's size; at the end,
        when no validation was better than guessing. The last good checkpoint stays.
    DamagedFile
        When a shard or a checkpoint is damaged.
    """
    config = job.training
    train_set = ShardReader(job.train_shards, job.vocabulary.digest)
    valid_set = ShardReader(job.valid_shards, job.vocabulary.digest)
    sentences = sum(train_set.step_counts.values())
    windows_per_epoch = math.ceil(sentences / config.window)
    planned_updates = windows_per_epoch * config.max_epochs
    validate_every = math.ceil(windows_per_epoch / config.validations_per_epoch)
    largest_loss = _DIVERGED * math.log(len(job.vocabulary))

    on_progress(0.0, "compiling the network")
    trainer = Trainer(job.network, config, len(job.vocabulary.words))
    position = Position()
    history: list[dict] = []
    resumed = _resume(job)
    if resumed is not None:
        trainer.restore(resumed)
        position, history = Position(**resumed.position), resumed.history
        ancestry, ancestors_text = resumed.ancestry, resumed.ancestors_text
    elif job.previous is not None:
        ancestry, ancestors_text = _start_warm(job, job.previous, trainer)
    else:
        ancestry, ancestors_text = [], None
    log = _Log(job.log, position)
    clock = WorkClock(log.seconds)
    last_checkpoint = time.monotonic()
    random_states = trainer.random_states()

    def share() -> float:
        return share_done(config, position.updates, planned_updates, clock.seconds())

    def checkpoint(path: Path) -> None:
        state = {**trainer.capture(), "random_states": random_states}
        log.sync()
        write_checkpoint(path, Checkpoint(
            **state, vocabulary=job.vocabulary, settings=job.settings, position=asdict(position),
            history=history, ancestry=ancestry, text=job.text, ancestors_text=ancestors_text))

    def stop_if_asked() -> None:
        # Within a window nothing has changed but the sums and the random states: the checkpoint
        # is that of the window's start, and the window is done again.
        clock.seconds()
        if should_stop():
            checkpoint(job.last)
            raise Stopped(f"training stopped after {position.updates} updates; the next run "
                          f"goes on from {job.last}")

    def diverged(what: str) -> Diverged:
        kept = (f"the last good state is kept: {job.last}" if job.last.exists()
                else "there was no good state to keep yet")
        return Diverged(f"the training has diverged from update {position.updates} on: {what}. "
                        f"Lower [training] rate, which is {config.rate}. Nothing was published; "
                        f"{kept}")

    def finish_if_due() -> None:
        end = end_share(config, position.stalled_at)
        if position.finished is None and share() >= end:
            position.finished = ("stalled" if end < 1 else "max_epochs"
                                 if position.updates == planned_updates else "max_minutes")

    def validate() -> None:
        def score(inputs, targets):
            stop_if_asked()
            return trainer.log_probabilities(inputs, targets)

        on_progress(min(1.0, share()), "validating")
        totals = evaluate(score, valid_set, job.vocabulary).totals
        perplexity = totals.figures()[headline(job.vocabulary)]
        if not math.isfinite(perplexity):
            raise diverged("the perplexity of the validation is not finite")
        position.validated_at = position.updates
        improved = position.best_perplexity is None or perplexity < position.best_perplexity
        if improved:
            position.best_perplexity, position.stalls = perplexity, 0
        else:
            position.stalls += 1
            position.halvings += 1
        if position.stalls >= config.patience and position.stalled_at is None:
            position.stalled_at = share()
        entry = {"update": position.updates, "tokens": position.tokens,
                 "validation_perplexity": perplexity, "halvings": position.halvings}
        history.append(entry)
        log.write({**entry, "seconds": clock.seconds()})
        finish_if_due()  # the time budget may have ended meanwhile
        if improved:
            checkpoint(job.best)
            publish_link(job.best, job.last)
        else:
            checkpoint(job.last)

    windows = None
    while True:
        finish_if_due()
        due = (position.finished is not None
               or (position.updates % validate_every == 0 if position.updates
                   else bool(ancestry)))
        if due and position.validated_at != position.updates:
            validate()
            last_checkpoint = time.monotonic()
        if position.finished is not None:
            break

        if windows is None:
            windows = epoch_windows(
                job.train_shards, job.vocabulary.digest, seed=config.seed,
                epoch=position.epoch, window=config.window,
                micro_batch_sentences=config.micro_batch_sentences,
                micro_batch_tokens=config.micro_batch_tokens,
                shards_in_memory=config.shards_in_memory, first_window=position.window)
        window = next(windows, None)
        if window is None:
            position.epoch, position.window, windows = position.epoch + 1, 0, None
            continue

        started = time.monotonic()
        rate = learning_rate(config, share(), position.halvings, position.stalled_at)
        trainer.rate.set_value(np.asarray(rate, theano.config.floatX))
        loss, tokens, count = 0.0, 0, 0
        for batch in window:
            loss += float(trainer.accumulate(batch.inputs, batch.targets))
            tokens += batch.inputs.size
            count += len(batch)
            if not loss / tokens <= largest_loss:  # or it is no number
                raise diverged(f"the mean loss is {loss / tokens:.3g}")
            stop_if_asked()
        if time.monotonic() - last_checkpoint >= 60 * job.checkpoint_minutes:
            # Only now is it known that the state at the window's start is a good one.
            checkpoint(job.last)
            last_checkpoint = time.monotonic()
        gradient_norm = float(trainer.apply())
        if not math.isfinite(gradient_norm):
            raise diverged(f"the norm of the gradient is {gradient_norm}")
        random_states = trainer.random_states()
        position.window += 1
        position.updates += 1
        position.sentences += count
        position.tokens += tokens
        elapsed = time.monotonic() - started
        log.write({"update": position.updates, "epoch": position.epoch,
                   "sentences": count, "tokens": tokens, "loss": loss / tokens,
                   "gradient_norm": gradient_norm, "rate": rate, "seconds": clock.seconds(),
                   "tokens_per_second": tokens / elapsed})
        on_progress(min(1.0, share()), _status(position, windows_per_epoch, loss / tokens,
                                               tokens / elapsed))
    log.sync()
    best = position.best_perplexity
    assert best is not None  # a training ends with a validation
    if best > len(job.vocabulary):
        raise Diverged(f"the training has learned nothing: its best validation, a perplexity of "
                       f"{best:,.5g}, is worse than guessing, {len(job.vocabulary):,}. Change "
                       f"[training] rate, which is {config.rate}, or train longer. Nothing was "
                       f"published; its state is kept: {job.last}")
    _publish_best(job)
    return job.model


class WorkClock:
    """Seconds of work: not those in which the process was stopped, or the machine slept.

    Parameters
    ----------
    seconds : float
        Of earlier runs of the same training.
    """

    def __init__(self, seconds: float = 0.0):
        self._seconds = seconds
        self._wall, self._computed = time.monotonic(), time.process_time()

    def seconds(self) -> float:
        """The seconds so far; to be asked after each micro-batch."""
        wall, computed = time.monotonic(), time.process_time()
        gap, work = wall - self._wall, computed - self._computed
        if gap > _GAP_SECONDS and work < _GAP_SHARE * gap:
            logger.warning("for %.0f s the training did not run (suspended?); they do not count "
                           "for its time budget", gap - work)
            gap = work
        self._wall, self._computed = wall, computed
        self._seconds += gap
        return self._seconds


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


def _status(position: Position, windows_per_epoch: int, loss: float, speed: float) -> str:
    best = position.best_perplexity
    return (f"epoch {position.epoch + 1}, window {position.window}/{windows_per_epoch}, "
            f"perplexity {math.exp(min(loss, 50)):.1f}, {speed:,.0f} tokens/s"
            + (f", best validation {best:.2f}" if best else ""))


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


def _start_warm(job: TrainingJob, previous: Path,
                trainer: Trainer) -> tuple[list[dict], TrainingText | None]:
    """Carry the parameters over from another model; what the checkpoints say of it.

    Raises
    ------
    UserError
        When its network is of another shape.
    """
    parent = read_checkpoint(previous)
    if not carry_over(parent, trainer.network, job.vocabulary):
        raise UserError(f"the training cannot start from {previous}: its network is of another "
                        "shape. Name another [training] warm_start, or change [network]")
    told = {"model": digest_file(previous),
            "source": parent.settings["source"], "updates": parent.position["updates"],
            "best_perplexity": parent.position["best_perplexity"]}
    return [told, *parent.ancestry], parent.seen_text


class _Log:
    """The log of a training, one JSON object a line, cut back to where the training resumes.

    Parameters
    ----------
    path : path
    position : Position
        Where the training resumes: lines of later updates and validations, and what a killed
        run left unfinished, are dropped.
    """

    def __init__(self, path: Path, position: Position):
        kept, self.seconds = [], 0.0
        if path.exists():
            for line in path.read_text().splitlines(keepends=True):
                try:
                    entry = json.loads(line)
                except ValueError:
                    break
                is_validation = "validation_perplexity" in entry
                reached = position.validated_at if is_validation else position.updates
                if reached is None or entry["update"] > reached or not line.endswith("\n"):
                    break
                kept.append(line)
                self.seconds = entry["seconds"]
        with publish(path) as temporary:
            temporary.write_text("".join(kept))
        self._file = open(path, "a")  # noqa: SIM115

    def write(self, entry: dict) -> None:
        try:
            self._file.write(to_json(entry) + "\n")
            self._file.flush()
        except OSError as error:
            raise self._failure(error) from error

    def sync(self) -> None:
        """Make what is written so far survive a loss of power, before a checkpoint counts on it."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> UserError:
        return UserError(f"cannot write the log {self._file.name}: {error}. The last checkpoint "
                         "is kept; the next run goes on from there.")
