"""A process that does one thing at a time when asked to: ``python -m benchmarks.worker JOB``.

It says in one line of JSON that it is ready, and then answers each line on standard input, a
number of seconds, with a line of JSON.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.extent import CARD_CONTENDERS, Shape
from benchmarks.machine import peak_memory
from benchmarks.micro_batches import micro_batch, one_hot
from benchmarks.sgemm import OpenBLAS, products
from model.system.errors import UserError

# One training step; returns the summed loss.
Step = Callable[[], float]

_answers = sys.stdout


def theano_step(task: str, shape: Shape) -> tuple[dict, Step]:
    """The function `accumulate` of training: loss, and gradients added to the accumulators.

    Parameters
    ----------
    task : {"fused", "lookup-scan", "dense-scan"}
        The inputs of the last are one-hot floats, made before the clock starts.
    shape : Shape

    Returns
    -------
    told : dict
        Seconds of import and compilation.
    step : function
    """
    started = time.perf_counter()
    from model import engine  # noqa: F401  isort: skip
    import lasagne
    import theano
    import theano.tensor as T

    from model.engine import available
    from model.network import NetworkConfig, build_network, summed_loss
    from model.updater import accumulate_gradients, create_accumulators

    imported = time.perf_counter()
    if task == "fused" and (reason := available()):
        raise UserError(f"there is nothing to compare: {reason}")
    lasagne.random.set_rng(np.random.RandomState(1))
    recurrence = "fused" if task == "fused" else "scan"
    network = build_network(NetworkConfig(shape.units, recurrence=recurrence), shape.vocabulary)
    x = T.tensor3("inputs") if task == "dense-scan" else T.imatrix("inputs")
    y = T.imatrix("targets")
    loss = summed_loss(network, x, y)
    accumulators = create_accumulators(network.parameters)
    accumulate = theano.function([x, y], loss, updates=accumulate_gradients(
        loss, network.parameters, accumulators, x.shape[0]))
    compiled = time.perf_counter()

    inputs, targets = micro_batch(shape)
    if task == "dense-scan":
        inputs = one_hot(inputs, shape.vocabulary)
    told = {"import_seconds": imported - started, "compile_seconds": compiled - imported}
    return told, lambda: float(accumulate(inputs, targets))


def torch_step(task: str, shape: Shape) -> tuple[dict, Step]:
    """PyTorch's LSTM with a softmax layer: loss, and gradients added to those of before.

    Parameters
    ----------
    task : {"torch-one-hot", "torch-embedding"}
        See `TorchLSTM`.
    shape : Shape

    Returns
    -------
    told : dict
        Seconds of import, and PyTorch's BLAS.
    step : function
    """
    started = time.perf_counter()
    import torch

    from benchmarks.torch_lstm import TorchLSTM

    told = {"import_seconds": time.perf_counter() - started,
            "blas": torch.__config__.show()}
    network = TorchLSTM(task, shape)
    done = 0.0

    def step() -> float:
        nonlocal done
        network.accumulate()
        before, done = done, network.loss()
        return done - before

    return told, step


def time_step(make: Callable[[str, Shape], tuple[dict, Step]], job: dict) -> None:
    """Answer with the seconds that a step takes, and the most memory it has taken."""
    shape = Shape(**job["shape"])
    told, step = make(job["task"], shape)
    loss = step() / shape.tokens
    if not math.isfinite(loss):
        raise UserError(f"{job['task']} computes a loss of {loss}")
    _say({**told, "loss": loss, "peak_memory_mb": peak_memory()})
    for line in sys.stdin:
        step()  # after the pause caches and threads are cold
        started, count = time.perf_counter(), 0
        while True:
            step()
            count += 1
            elapsed = time.perf_counter() - started
            if elapsed >= float(line):
                break
        _say({"seconds": elapsed / count, "peak_memory_mb": peak_memory()})


def time_sgemm(job: dict) -> None:
    """Answer with the rate of each product that a step needs, in operations per second."""
    blas, wanted = OpenBLAS(), products(Shape(**job["shape"]))
    _say({"blas": blas.description()})
    for line in sys.stdin:
        _say({product.name: blas.rate(product, float(line) / len(wanted)) for product in wanted})


def describe_card(job: dict) -> None:
    """Say what there is of a device, or why it is refused."""
    from model.engine import open_device

    try:
        open_device(job["device"])
    except UserError as error:
        _say({"refused": str(error)})
        return
    from benchmarks.on_card import describe

    _say(describe(job["device"]))


def time_on_card(contender: str, job: dict) -> None:
    """Answer with the timings of a contender, as `benchmarks.on_card.Timing` takes them."""
    from benchmarks.on_card import Timing

    timing = Timing(contender, Shape(**job["shape"]), job["device"], job["precision"],
                    job["window"])
    _say(timing.start())
    for line in sys.stdin:
        _say(timing.turn(float(line)))
    _say(timing.end())


def time_products_on_card(job: dict) -> None:
    """Answer with the rate of each product that a step needs, in operations per second."""
    from benchmarks.on_card import Products

    alone = Products(Shape(**job["shape"]), job["device"], job["precision"])
    _say({})
    for line in sys.stdin:
        _say(alone.rates(float(line)))


def time_parts(job: dict) -> None:
    """Answer with the seconds of each part of `accumulate`, and of `apply`."""
    from model.engine import native

    spent: dict[str, float] = defaultdict(float)
    call = native.call

    def timed_call(name: str, dtype: str, *arguments: Any) -> None:
        started = time.perf_counter()
        call(name, dtype, *arguments)
        spent[name] += time.perf_counter() - started

    native.call = timed_call
    shape = Shape(**job["shape"])
    trainer, config = _trainer(shape.vocabulary, num_units=shape.units, dropout=0.0,
                               recurrent_dropout=0.0)
    inputs, targets = micro_batch(shape)
    trainer.accumulate(inputs, targets, update=0, sentence=0)
    trainer.apply(config.rate)
    _say({})
    for line in sys.stdin:
        spent.clear()
        accumulate, apply, count = 0.0, 0.0, 0
        while accumulate + apply < float(line):
            started = time.perf_counter()
            trainer.accumulate(inputs, targets, update=0, sentence=0)
            accumulated = time.perf_counter()
            trainer.apply(config.rate)
            accumulate += accumulated - started
            apply += time.perf_counter() - accumulated
            count += 1
        rest = accumulate - sum(spent.values())
        _say({name: seconds / count for name, seconds in
              {**spent, "rest of accumulate": rest, "apply": apply}.items()})


def time_update(job: dict) -> None:
    """Answer with the seconds of an update, of sums that a micro-batch was added to."""
    shape = Shape(**job["shape"])
    trainer, config = _trainer(
        shape.vocabulary, {"optimiser": job["optimiser"], "max_norm": job["max_norm"]},
        num_units=shape.units, dropout=0.0,
        recurrent_dropout=0.0)
    inputs, targets = micro_batch(shape)
    _say({})
    for line in sys.stdin:
        spent, count = 0.0, 0
        while spent < float(line):
            trainer.accumulate(inputs, targets, update=0, sentence=0)
            started = time.perf_counter()
            trainer.apply(config.rate)
            spent += time.perf_counter() - started
            count += 1
        _say({"seconds": spent / count})


def time_training(job: dict) -> None:
    """Answer with the timings of a window: see `benchmarks.vocabularies.TrainingTurns`."""
    from benchmarks.vocabularies import TrainingTurns
    from model.data.vocabulary import read_vocabulary

    vocabulary = Path(job["vocabulary"])
    trainer, config = _trainer(len(read_vocabulary(vocabulary)), num_units=job["units"],
                               dropout=0.0, recurrent_dropout=0.0)
    turns = TrainingTurns(trainer, config, job["units"], vocabulary,
                          [Path(path) for path in job["shards"]])
    turns.turn()
    _say({})
    for _ in sys.stdin:
        _say(turns.turn())


def time_stream(job: dict) -> None:
    """Answer with the rates of loops over the memory, in bytes per second."""
    from benchmarks.apply import Stream

    stream = Stream(job["count"])
    _say({"blas": stream.description})
    for line in sys.stdin:
        _say(stream.rates(float(line)))


def compile_training(job: dict) -> None:
    """Say how long a training takes until all its functions are there."""
    started = time.perf_counter()
    _trainer(job["vocabulary"])
    _say({"seconds": time.perf_counter() - started})


def training_pass(job: dict) -> None:
    """Go through all windows of an epoch, train on some of them, and say the memory it took."""
    from model.data.batches import epoch_windows
    from model.data.shards import ShardReader
    from model.data.vocabulary import read_vocabulary

    vocabulary = read_vocabulary(Path(job["vocabulary"]))
    shards = [Path(path) for path in job["shards"]]
    sentences = sum(ShardReader(shards, vocabulary.digest).step_counts.values())
    trainer, config = _trainer(len(vocabulary))
    stride = max(1, math.ceil(sentences / config.window) // job["passes"])
    updates = 0
    for number, window in enumerate(epoch_windows(
            shards, vocabulary.digest, seed=1, epoch=0, window=config.window,
            micro_batch_sentences=config.micro_batch_sentences,
            micro_batch_tokens=config.micro_batch_tokens,
            shards_in_memory=config.shards_in_memory)):
        if number % stride == 0:
            for batch in window:
                trainer.accumulate(batch.inputs, batch.targets, update=updates, sentence=0)
            trainer.apply(config.rate)
            updates += 1
    _say({"sentences": sentences, "updates": updates, "peak_memory_mb": peak_memory()})


def _trainer(vocabulary: int, training: dict | None = None, **network: int | float):
    """What luigi.cfg describes, `training` and `network` aside; and the training's settings."""
    from model.configuration import NetworkConfig, TrainingConfig
    from model.engine import open_device
    from model.trainer import Trainer
    from pipeline import settings

    config = TrainingConfig(**{**settings.training_values(), **(training or {})})
    described = {**settings.values(settings.network), **network}
    return Trainer(NetworkConfig(**described), config, vocabulary, open_device("cpu")), config


TASKS: dict[str, Callable[[dict], None]] = {
    **dict.fromkeys(("fused", "lookup-scan", "dense-scan"), partial(time_step, theano_step)),
    **dict.fromkeys(("torch-one-hot", "torch-embedding"), partial(time_step, torch_step)),
    "sgemm": time_sgemm,
    "card": describe_card,
    **{f"card-{name}": partial(time_on_card, name) for name in CARD_CONTENDERS},
    "card-products": time_products_on_card,
    "breakdown": time_parts,
    "apply": time_update,
    "stream": time_stream,
    "training": time_training,
    "compile-training": compile_training,
    "training-pass": training_pass,
}


def _say(answer: dict) -> None:
    _answers.write(json.dumps(answer) + "\n")
    _answers.flush()


if __name__ == "__main__":
    # Whatever a library prints goes to standard error, not among the answers.
    _answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _job = json.loads(sys.argv[1])
    try:
        TASKS[_job["task"]](_job)
    except UserError as error:
        sys.exit(f"error: {error}")
