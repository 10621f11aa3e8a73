"""What training, evaluation and n-grams take on this machine, from a few of their steps.

Each part is the code that a run calls, on shards of a sample of its text: micro-batches in the
order of an epoch, updates, validation, a checkpoint, the counting and scoring of n-grams.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from .baselines import Bigrams, baselines, kneser_ney
from .checkpoint import Checkpoint, publish_model, write_checkpoint
from .configuration import NetworkConfig, TrainingConfig
from .data.batches import epoch_windows
from .data.shards import ShardReader
from .data.vocabulary import Vocabulary
from .device_memory import bytes_of_training
from .engine import open_device
from .evaluation import batches
from .kneser_ney import KneserNey, write_kneser_ney
from .network import build_network, compile_log_probabilities, compile_next_word
from .ngram_counting import SORTED_AT_A_TIME
from .trainer import Trainer

# The code that Theano compiles is the same for any number of units and words.
_SMALL_UNITS, _SMALL_VOCABULARY = 2, 5
_LEAST_UPDATES = 3  # that are timed
_FORGET_PEAK = "5"  # see proc(5)


@dataclass(frozen=True)
class MeasurementJob:
    """What is measured, and on what.

    Parameters
    ----------
    folder : path
        For a checkpoint and n-grams; what is written there is left.
    train_shards, valid_shards : list of path
        Of a sample of the text.
    vocabulary : Vocabulary
        Theirs.
    words, tokens : int
        Of the whole text: entries of its vocabulary, and tokens to train on.
    network : NetworkConfig
    training : TrainingConfig
    order : int
        Of the n-gram model; 0 for none.
    device : str
    seconds : float
        How long micro-batches are computed, about, and half as long sentences scored: one at least,
        however long it takes.
    """

    folder: Path
    train_shards: list[Path]
    valid_shards: list[Path]
    vocabulary: Vocabulary
    words: int
    tokens: int
    network: NetworkConfig
    training: TrainingConfig
    order: int
    device: str
    seconds: float


def measure(job: MeasurementJob,
            on_progress: Callable[[float, str], None] = lambda share, status: None) -> dict:
    """Measure the parts of a training and an evaluation.

    Parameters
    ----------
    job : MeasurementJob
    on_progress : function
        Called with the share that is done, 0 to 1, and a line on what is being done.

    Returns
    -------
    dict
        Seconds: "compiling" the functions of a training, "compiling_evaluation", with a compile
        cache that has them; "token" and "update" of training, without the time of the other;
        "scored_token" of a validation; "checkpoint" and "model", to write them; "baselines_token"
        and "counted_token", of training text, for bigrams and for the n-gram model;
        "ngram_scored_token", for all of these. Bytes: "checkpoint_bytes" and "model_bytes" of the
        files; "ngram_bytes", of the n-gram model's file by token of training text;
        "peak_bytes", the memory of the training; "counting_bytes", what counting n-grams takes.

    Raises
    ------
    UserError
        When there is no such device, or it has too little memory.
    """
    device = open_device(job.device, job.training.precision)
    device.check_memory(bytes_of_training(job.network, job.training, job.words))
    on_progress(0.0, "compiling")
    small = replace(job.network, num_units=_SMALL_UNITS)
    Trainer(small, job.training, _SMALL_VOCABULARY, device)
    compile_next_word(build_network(small, _SMALL_VOCABULARY, device))
    on_progress(0.3, "compiling once more, as a run does after this")
    started = time.monotonic()
    trainer = Trainer(job.network, job.training, job.words, device)
    found = {"compiling": time.monotonic() - started}
    on_progress(0.4, "training micro-batches")
    found |= _training(job, trainer)
    on_progress(0.7, "scoring sentences")
    reader = ShardReader(job.valid_shards, job.vocabulary.digest)
    found["scored_token"] = _scoring(trainer.log_probabilities, reader, job.seconds / 2)
    on_progress(0.8, "writing a checkpoint")
    found |= _checkpoint(job, trainer)
    found["peak_bytes"] = _memory("VmHWM")
    started = time.monotonic()
    network = build_network(job.network, job.words, device)
    compile_log_probabilities(network)
    compile_next_word(network)
    found["compiling_evaluation"] = time.monotonic() - started
    on_progress(0.9, "counting n-grams")
    return found | _ngrams(job, reader)


def _training(job: MeasurementJob, trainer: Trainer) -> dict:
    """Seconds of a token and of an update; the largest micro-batch is computed before, untimed."""
    config = job.training
    reader = ShardReader(job.train_shards, job.vocabulary.digest)
    trainer.accumulate(*_largest(reader, config), update=0, sentence=0)
    trainer.loss()
    trainer.apply(0.0)
    windows = epoch_windows(
        job.train_shards, job.vocabulary.digest, seed=config.seed, epoch=0, window=config.window,
        micro_batch_sentences=config.micro_batch_sentences,
        micro_batch_tokens=config.micro_batch_tokens, shards_in_memory=config.shards_in_memory)
    window = next(windows, None)
    computed, tokens, applied = 0.0, 0, list[float]()
    started = time.monotonic()
    end = started + job.seconds
    while window is not None and started < end:
        sentences = 0
        for batch in window:
            trainer.accumulate(batch.inputs, batch.targets, update=len(applied),
                               sentence=sentences)
            tokens += batch.inputs.size
            sentences += len(batch)
            if time.monotonic() >= end:
                break
        window = next(windows, None)
        trainer.loss()  # a card is done with all that it was given
        computed += time.monotonic() - started
        applied.append(_seconds(lambda: trainer.apply(0.0)))
        started = time.monotonic()
    while len(applied) < _LEAST_UPDATES:
        applied.append(_seconds(lambda: trainer.apply(0.0)))
    return {"token": computed / tokens, "update": float(np.mean(applied))}


def _largest(reader: ShardReader, config: TrainingConfig) -> tuple[np.ndarray, np.ndarray]:
    """A micro-batch of as many tokens as any can have: the memory depends on it."""
    def rows(steps: int) -> int:
        most = min(config.micro_batch_sentences, config.micro_batch_tokens // steps)
        return max(1, min(most, reader.step_counts[steps]))

    steps = max(reader.step_counts, key=lambda steps: steps * rows(steps))
    inputs, targets = reader.sentences(steps)
    return inputs[:rows(steps)], targets[:rows(steps)]


def _scoring(score: Callable[[np.ndarray, np.ndarray], np.ndarray], reader: ShardReader,
             seconds: float) -> float:
    """Seconds of a token that is scored, in batches as a validation has them."""
    found = list(batches(reader))
    spent, tokens = 0.0, 0
    for number in np.random.default_rng(0).permutation(len(found)):
        started = time.monotonic()
        score(*found[number])
        spent += time.monotonic() - started
        tokens += found[number][0].size
        if spent >= seconds:
            break
    return spent / tokens


def _checkpoint(job: MeasurementJob, trainer: Trainer) -> dict:
    checkpoint, model = job.folder / "checkpoint.h5", job.folder / "model.h5"
    state = trainer.state()
    content = Checkpoint(
        parameters=state.parameters, optimiser=state.optimiser, vocabulary=job.vocabulary,
        settings={"network": asdict(job.network), "training": asdict(job.training),
                  "tokenization": {}, "source": ""}, position={})
    return {"checkpoint": _seconds(lambda: write_checkpoint(checkpoint, content)),
            "model": _seconds(lambda: publish_model(checkpoint, model)),
            "checkpoint_bytes": checkpoint.stat().st_size, "model_bytes": model.stat().st_size}


def _ngrams(job: MeasurementJob, reader: ShardReader) -> dict:
    """Seconds of a token that is counted, and of one that is scored by n-grams of all orders."""
    shards, vocabulary = job.train_shards, job.vocabulary
    counted = sum(steps * count for steps, count in ShardReader(shards).step_counts.items())
    scored = sum(steps * count for steps, count in reader.step_counts.items())
    readers = {"valid": reader}
    started = time.monotonic()
    bigrams = Bigrams.count(shards, vocabulary)
    found = {"baselines_token": (time.monotonic() - started) / counted,
             "counted_token": 0.0, "ngram_bytes": 0.0, "counting_bytes": 0.0}
    started = time.monotonic()
    baselines(bigrams, reader, readers, vocabulary)
    if job.order:
        path = job.folder / "ngrams.h5"
        Path("/proc/self/clear_refs").write_text(_FORGET_PEAK)
        before = _memory("VmRSS")
        counting = _seconds(lambda: write_kneser_ney(shards, vocabulary, job.order, path))
        most = min(job.tokens, SORTED_AT_A_TIME) / min(counted, SORTED_AT_A_TIME)
        found |= {"counted_token": counting / counted,
                  "ngram_bytes": path.stat().st_size / counted,
                  "counting_bytes": most * (_memory("VmHWM") - before)}
        started += counting
        # Of the network's own scores the time does not depend.
        guessed = [np.full(inputs.shape, -1.0) for inputs, _ in batches(reader)]
        kneser_ney(KneserNey(path, vocabulary), {"valid": guessed}, readers, vocabulary,
                   job.folder)
    return found | {"ngram_scored_token": (time.monotonic() - started) / scored}


def _memory(kind: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most so far. See proc(5)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition(f"{kind}:")[2].split()[0])


def _seconds(function: Callable[[], object]) -> float:
    started = time.monotonic()
    function()
    return time.monotonic() - started
