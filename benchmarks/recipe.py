"""One training of a study of the recipe: ``python -m benchmarks.recipe MODEL [CHANGE ...]``.

MODEL is a model where a run has left it, as data/work/models/current; its training is done again
from random weights, on the same text and with the same settings but for the changes: settings, as
training.rate=0.02, and what is no setting, as beta2=0.99 (see `KNOBS`). It goes through all its
epochs, whatever the time, and what it ends with is evaluated: a line of JSON with the perplexities
of the validation and the test text.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from model import engine  # isort: skip

import lasagne
import numpy as np
import theano.tensor as T

from model import layers
from model.configuration import NetworkConfig, TrainingConfig, rules
from model.data.batches import MicroBatch, epoch_windows
from model.data.shards import ShardReader
from model.data.vocabulary import Vocabulary, read_vocabulary
from model.evaluation import evaluate
from model.schedule import learning_rate, planned_updates
from model.system.errors import BadInput, UserError
from model.trainer import Trainer

KNOBS = {
    "average": "decay of an exponential average of the weights, which is evaluated",
    "beta2": "Adam's second constant",
    "cosine": "1 for a cooldown along half a cosine",
    "epsilon": "Adam's third constant",
    "forget_bias": "bias of the forget gate at the start",
    "growth": "the window grows from its size divided by this to its size times this",
    "input_scale": "standard deviation of the first layer's input weights at the start",
    "input_tokens": "share of the input words that are <unk> in training, each occurrence alone",
    "input_words": "share of the input words that are <unk> for a whole update",
    "orthogonal": "gain of orthogonal recurrent weights at the start",
    "shared_masks": "1 for masks of outputs that are the same for all steps of a sentence",
    "warm_up": "share of the training over which the rate rises from zero",
}
# Before this share of a training no average of its weights is begun.
_AVERAGED_FROM = 0.3


def main(model: str, *changes: str) -> None:
    """Train once, and print a line."""
    job = _job(Path(model))
    knobs = _change(job, changes)
    network, training = NetworkConfig(**job["network"]), TrainingConfig(**job["training"])
    words = read_vocabulary(Path(job["vocabulary"]))
    _change_rules(knobs, len(words))
    trainer = Trainer(network, training, len(words), engine.open_device("cpu"))
    begun = time.perf_counter()
    study = _Study(trainer, training, words, job["train_shards"], knobs)
    study.run()
    found = {name: study.perplexity(job[f"{name}_shards"]) for name in ("valid", "test")}
    print(json.dumps({"changes": list(changes), **study.done,
                      "seconds": round(time.perf_counter() - begun, 1), **found}), flush=True)


def _job(model: Path) -> dict:
    """What the training of a model was told, and the text that it was tested with."""
    folder = model.resolve().parent
    job = json.loads((folder / "job.json").read_text())
    job["test_shards"] = json.loads((folder / "evaluate.json").read_text())["sets"]["test"]
    return job


def _change(job: dict, changes: tuple[str, ...]) -> dict[str, float]:
    """Change the settings of a job; returns the values of the knobs."""
    knobs = {}
    configs = {"network": NetworkConfig, "training": TrainingConfig}
    for change in changes:
        name, _, text = change.partition("=")
        section, _, setting = name.rpartition(".")
        if section in configs and setting in {field.name for field in fields(configs[section])}:
            job[section][setting] = rules(configs[section])[setting].parse(text)
        elif name in KNOBS:
            knobs[name] = float(text)
        else:
            raise BadInput(f"{name} is no setting of [network] or [training], and none of "
                           f"{', '.join(KNOBS)}")
    return knobs


def _change_rules(knobs: dict[str, float], words: int) -> None:
    """Put other initial values, masks and another Adam in the place of those that there are."""
    adam, normal, constant = (lasagne.updates.adam, lasagne.init.Normal, lasagne.init.Constant)
    constants = {name: knobs[name] for name in ("beta2", "epsilon") if name in knobs}

    class Normal(lasagne.init.Normal):
        def sample(self, shape: tuple[int, ...]) -> np.ndarray:
            if "orthogonal" in knobs and len(shape) == 2 and shape[0] == shape[1]:
                return lasagne.init.Orthogonal(knobs["orthogonal"]).sample(shape)
            if "input_scale" in knobs and len(shape) == 2 and shape[0] == words:
                return normal(knobs["input_scale"]).sample(shape)
            return super().sample(shape)

    def shared_masks(self: Any, input: Any, deterministic: bool = False, **kwargs: Any) -> Any:
        if deterministic:
            return input
        masks, steps_first = self.masks, input.dimshuffle(1, 0, 2)
        mask = engine.dropout(T.ones_like(steps_first[:1]), masks.update, masks.sentence,
                              rate=self.rate, seed=masks.seed, stream=self.number)
        return (steps_first * T.addbroadcast(mask, 0)).dimshuffle(1, 0, 2)

    lasagne.updates.adam, lasagne.init.Normal = partial(adam, **constants), Normal
    if "forget_bias" in knobs:  # the only constant of 1
        lasagne.init.Constant = lambda value=0.0: constant(
            knobs["forget_bias"] if value == 1.0 else value)
    if knobs.get("shared_masks"):
        setattr(layers.DropoutLayer, "get_output_for", shared_masks)  # noqa: B010


class _Study:
    """A training by its plan alone: no clock, no checkpoints, no early end."""

    def __init__(self, trainer: Trainer, config: TrainingConfig, words: Vocabulary,
                 shards: list[str], knobs: dict[str, float]):
        self._trainer, self._config, self._words, self._knobs = trainer, config, words, knobs
        self._shards = [Path(shard) for shard in shards]
        self._random = np.random.default_rng(config.seed)
        self._average: dict[str, np.ndarray] | None = None
        self._growth = knobs.get("growth", 1.0)
        # The smallest that there will be: an update may take several.
        self._window = round(config.window / max(self._growth, 1 / self._growth))
        sentences = sum(ShardReader(self._shards, words.digest).step_counts.values())
        self._windows = planned_updates(config.max_epochs, math.ceil(sentences / self._window))
        self._windows_done = 0
        self.done = {"updates": 0, "tokens": 0}

    def run(self) -> None:
        """Train to the end; the trainer has then the weights to evaluate."""
        config = self._config
        for epoch in range(math.ceil(config.max_epochs)):
            windows = epoch_windows(
                self._shards, self._words.digest, seed=config.seed, epoch=epoch,
                window=self._window, micro_batch_sentences=config.micro_batch_sentences,
                micro_batch_tokens=config.micro_batch_tokens,
                shards_in_memory=config.shards_in_memory)
            while joined := list(islice(windows, self._next_windows())):
                self._update(joined)
        if self._average is not None:
            self._trainer.restore(replace(self._trainer.state(), parameters=self._average))

    def _share(self) -> float:
        return self._windows_done / self._windows

    def _next_windows(self) -> int:
        """How many windows make the next update; none at the end."""
        size = self._config.window * self._growth ** (2 * self._share() - 1)
        return min(round(size / self._window), self._windows - self._windows_done)

    def _update(self, windows: list[list[MicroBatch]]) -> None:
        dropped, sentence = self._dropping(), 0
        for batch in chain.from_iterable(windows):
            self._trainer.accumulate(dropped(batch.inputs), batch.targets,
                                     update=self.done["updates"], sentence=sentence)
            sentence += len(batch)
            self.done["tokens"] += batch.inputs.size
        self._trainer.apply(self._rate())
        self.done["updates"] += 1
        self._windows_done += len(windows)
        if "average" in self._knobs and self._share() >= _AVERAGED_FROM:
            parameters = self._trainer.state().parameters
            if self._average is None:
                self._average = {name: value.copy() for name, value in parameters.items()}
            for name, value in self._average.items():
                value += np.float32(1 - self._knobs["average"]) * (parameters[name] - value)

    def _dropping(self) -> Callable[[np.ndarray], np.ndarray]:
        """What makes <unk> of some of an update's input words, never of the first one."""
        of_words = self._random.random(len(self._words)) < self._knobs.get("input_words", 0)
        of_tokens = self._knobs.get("input_tokens", 0)

        def drop(inputs: np.ndarray) -> np.ndarray:
            where = of_words[inputs] | (self._random.random(inputs.shape) < of_tokens)
            return np.where(where & (inputs != self._words.start), np.int32(self._words.unknown),
                            inputs)

        return drop

    def _rate(self) -> float:
        share, config = self._share(), self._config
        rate = learning_rate(config, share, 0)
        if self._knobs.get("cosine"):
            rate = config.rate * (1 - math.cos(math.pi * rate / config.rate)) / 2
        if warm_up := self._knobs.get("warm_up"):
            rate *= min(1.0, (share + 1 / self._windows) / warm_up)
        return rate

    def perplexity(self, shards: list[str]) -> float:
        """Of the text in some shards, <unk> counted."""
        reader = ShardReader([Path(shard) for shard in shards], self._words.digest)
        return evaluate(self._trainer.log_probabilities, reader,
                        self._words).totals.figures()["perplexity"]


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")
