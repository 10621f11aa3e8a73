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
    average_gradients,
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
    random_states : list of array
        Of the generators of dropout, in the network's order.
    """

    parameters: dict[str, np.ndarray]
    optimiser: list[np.ndarray]
    random_states: list[np.ndarray]


class Trainer:
    """Many steps, one update: compiled, with fresh parameters.

    Parameters
    ----------
    network : NetworkConfig
    training : TrainingConfig
    vocabulary_size : int
    """

    def __init__(self, network: NetworkConfig, training: TrainingConfig, vocabulary_size: int):
        lasagne.random.set_rng(np.random.RandomState(training.seed))
        self._network = build_network(network, vocabulary_size)
        params = self._network.parameters
        x, y = T.imatrices("inputs", "targets")
        loss = summed_loss(self._network, x, y)
        accumulators = create_accumulators(params)
        count = x.shape[0] if training.denominator == "sentences" else x.size
        self._accumulate = theano.function(
            [x, y], loss, updates=accumulate_gradients(loss, params, accumulators, count))
        self._rate = theano.shared(np.asarray(training.rate, theano.config.floatX), name="rate")
        updates = average_and_apply(params, accumulators,
                                    getattr(lasagne.updates, training.optimiser),
                                    learning_rate=self._rate)
        squares = sum(T.sqr(gradient).sum() for gradient in average_gradients(accumulators))
        self._apply = theano.function([], T.sqrt(squares), updates=updates)
        self._log_probabilities = compile_log_probabilities(self._network)
        self._accumulators = [*accumulators.gradients, accumulators.count]
        self._optimiser = update_state(updates, params, accumulators)
        known = {*all_parameters(self._network), *self._accumulators}
        self._random = [v for v in self._accumulate.get_shared() if v not in known]
        self._random_states = self._random_now()

    def accumulate(self, inputs: np.ndarray, targets: np.ndarray) -> float:
        """Add the gradients of a micro-batch to the sums.

        Parameters
        ----------
        inputs, targets : int32 arrays (sentences, steps)

        Returns
        -------
        float
            Its loss in nats, summed over all steps of all sentences.
        """
        return float(self._accumulate(inputs, targets))

    def apply(self, rate: float) -> float:
        """Update the parameters once, by the average of what was accumulated, and clear the sums.

        Parameters
        ----------
        rate : float
            Learning rate.

        Returns
        -------
        float
            The norm of the average gradient.
        """
        self._rate.set_value(np.asarray(rate, theano.config.floatX))
        norm = float(self._apply())
        self._random_states = self._random_now()
        return norm

    def log_probabilities(self, inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Score sentences without dropout: see `model.network.log_probabilities`."""
        return self._log_probabilities(inputs, targets)

    def state(self) -> State:
        """The state after the last update: of what was accumulated since then nothing is in it.

        No copies but of the small arrays: it is to be used before the next update.
        """
        return State({p.name: p.get_value(borrow=True) for p in all_parameters(self._network)},
                     [v.get_value(borrow=True) for v in self._optimiser], self._random_states)

    def restore(self, state: State) -> None:
        """Take a state, and clear the sums."""
        set_parameters(self._network, state.parameters)
        for variables, values in ((self._optimiser, state.optimiser),
                                  (self._random, state.random_states)):
            for variable, value in zip(variables, values, strict=True):
                variable.set_value(value)
        for variable in self._accumulators:
            variable.set_value(np.zeros_like(variable.get_value(borrow=True)))
        self._random_states = self._random_now()

    def _random_now(self) -> list[np.ndarray]:
        return [variable.get_value() for variable in self._random]
