"""The compiled functions of a training and their state, behind the few verbs of the method.

Accumulate, apply; log-probabilities; state out, state in. The training loop knows nothing else of
how it is computed.
"""

from __future__ import annotations

from dataclasses import dataclass

from model import engine  # noqa: F401  isort: skip

import lasagne
import numpy as np
import theano
import theano.tensor as T

from model.configuration import NetworkConfig, TrainingConfig
from model.engine import Device
from model.network import (
    all_parameters,
    build_network,
    compile_log_probabilities,
    set_parameters,
    summed_loss,
)
from model.updater import (
    accumulate_gradients,
    average_and_apply,
    average_norm,
    create_accumulators,
    update_state,
)


@dataclass(frozen=True)
class State:
    """All that a training's functions keep from update to update.

    Parameters
    ----------
    parameters : dict of str to array
        All weights by name, fixed initial states among them.
    optimiser : list of array
        The update rule's own state, in its order.
    """

    parameters: dict[str, np.ndarray]
    optimiser: list[np.ndarray]


class Trainer:
    """Many steps, one update: compiled, with fresh parameters.

    Parameters
    ----------
    network : NetworkConfig
    training : TrainingConfig
    vocabulary_size : int
    device : Device
        Where to compute.
    """

    def __init__(self, network: NetworkConfig, training: TrainingConfig, vocabulary_size: int,
                 device: Device):
        self._device = device
        lasagne.random.set_rng(np.random.RandomState(training.seed))
        self._network = model = build_network(network, vocabulary_size, device, training.seed)
        params = model.parameters
        x, y = T.imatrices("inputs", "targets")
        loss = summed_loss(model, x, y)
        accumulators = create_accumulators(params)
        count = x.shape[0] if training.denominator == "sentences" else x.size
        self._loss = theano.shared(np.float64(0), name="loss")
        updates = accumulate_gradients(loss, params, accumulators, count)
        updates[self._loss] = self._loss + T.cast(loss, "float64")
        places = [model.masks.update, model.masks.sentence]
        self._accumulate = device.function([x, y, *places], updates=updates,
                                           on_unused_input="ignore")
        self._rate = theano.shared(np.asarray(training.rate, theano.config.floatX), name="rate")
        constants = {"beta1": training.beta1} if training.optimiser == "adam" else {}
        decay = training.weight_decay and self._rate * T.constant(training.weight_decay,
                                                                  dtype=theano.config.floatX)
        updates = average_and_apply(params, accumulators,
                                    getattr(lasagne.updates, training.optimiser),
                                    max_norm=training.max_norm, weight_decay=decay,
                                    learning_rate=self._rate, **constants)
        self._optimiser = update_state(updates, params, accumulators)
        self._apply = device.function([], average_norm(updates, accumulators), updates=updates)
        self._log_probabilities = compile_log_probabilities(model)
        self._sums = [*accumulators.gradients, accumulators.count, self._loss]

    def accumulate(self, inputs: np.ndarray, targets: np.ndarray, *, update: int,
                   sentence: int) -> None:
        """Add the gradients of a micro-batch to the sums, and its loss.

        Parameters
        ----------
        inputs, targets : int32 arrays (sentences, steps)
        update : int
            How many updates there were.
        sentence : int
            The number of the first of these sentences among those of the update.
        """
        self._accumulate(inputs, targets, update, sentence)

    def loss(self) -> float:
        """The loss in nats of all that was accumulated, summed over all steps of all sentences."""
        return float(self._device.value(self._loss))

    def take_sums(self) -> list:
        """The sums so far, where they were computed: gradients, count and loss; they begin anew."""
        return [self._device.take(variable) for variable in self._sums]

    def add_sums(self, sums: list) -> None:
        """Add sums that were taken to those of now."""
        for variable, value in zip(self._sums, sums, strict=True):
            self._device.add(variable, value)

    def sums(self) -> list[np.ndarray]:
        """The sums so far, as arrays; on the processor no copies."""
        return [np.asarray(self._device.value(variable)) for variable in self._sums]

    def set_sums(self, sums: list[np.ndarray]) -> None:
        """Take these for the sums so far."""
        for variable, value in zip(self._sums, sums, strict=True):
            variable.set_value(value, borrow=True)

    def apply(self, rate: float) -> float:
        """Update the parameters once, by the average of what was accumulated, and clear the sums.

        Parameters
        ----------
        rate : float
            Learning rate.

        Returns
        -------
        float
            The norm of the average gradient, before it is bounded.
        """
        self._rate.set_value(np.asarray(rate, theano.config.floatX))
        norm = float(self._apply())
        self._loss.set_value(0.0)
        return norm

    def log_probabilities(self, inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Score sentences without dropout: see `model.network.log_probabilities`."""
        return self._log_probabilities(inputs, targets)

    def state(self) -> State:
        """The state after the last update: of what was accumulated since then nothing is in it.

        On the processor these are no copies: it is to be used before the next update.
        """
        value = self._device.value
        return State({p.name: value(p) for p in all_parameters(self._network)},
                     [value(variable) for variable in self._optimiser])

    def restore(self, state: State) -> None:
        """Take a state, and clear the sums."""
        set_parameters(self._network, state.parameters)
        for variable, value in zip(self._optimiser, state.optimiser, strict=True):
            variable.set_value(value)
        for variable in self._sums:
            variable.set_value(np.zeros_like(self._device.value(variable)))
