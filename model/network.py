"""The language model as a Lasagne network, and the expressions computed from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from model import engine  # noqa: F401  isort: skip

import lasagne
import numpy as np
import theano.tensor as T
from lasagne.layers import DenseLayer, DimshuffleLayer, InputLayer, ReshapeLayer

from model.configuration import NetworkConfig
from model.engine import PROCESSOR, Device, softmax_crossentropy
from model.layers import DropoutLayer, LSTMLayer, Masks


@dataclass(frozen=True)
class Network:
    """The layers of a language model that the expressions below start from.

    Parameters
    ----------
    input, rows, output : lasagne.layers.Layer
    device : Device
        What functions of the network are compiled for.
    recurrence : {"fused", "scan"}
        How it is computed there.
    masks : Masks
        What dropout depends on.
    """

    input: InputLayer
    rows: ReshapeLayer
    output: DenseLayer
    device: Device
    recurrence: str
    masks: Masks

    @property
    def parameters(self) -> list:
        """The trainable parameters, in a fixed order."""
        return lasagne.layers.get_all_params(self.output, trainable=True)


def build_network(config: NetworkConfig, vocabulary_size: int, device: Device = PROCESSOR,
                  seed: int = 0) -> Network:
    """Build the network, with new parameters drawn from Lasagne's random state.

    ::

        InputLayer((None, None, vocabulary_size))
        -> LSTMLayer(num_units, grad_clipping)      once or several times
        -> the steps of all sentences as rows
        -> DenseLayer(vocabulary_size, softmax)

    Recurrent weights are drawn with a standard deviation of ``num_units ** -0.5``, which keeps
    the size of the state from step to step whatever the number of units; Lasagne's own 0.1 is
    that of 100 units. The forget gate's bias begins at 1, so that the cell remembers from the
    start [1]_.

    Parameters
    ----------
    config : NetworkConfig
    vocabulary_size : int
        Entries of the vocabulary, the special symbols included.
    device : Device
    seed : int
        Of dropout.

    Returns
    -------
    Network

    References
    ----------
    .. [1] Jozefowicz, R., Zaremba, W., & Sutskever, I. (2015): An empirical exploration of
           recurrent network architectures. ICML.
    """

    def gate(**kwargs):
        W_hid = lasagne.init.Normal(config.num_units**-0.5)
        return lasagne.layers.Gate(W_in=W_in, W_hid=W_hid, **kwargs)

    recurrence = device.recurrence(config.recurrence)
    masks = Masks(seed, *T.lscalars("update", "sentence"))
    layer = input_layer = InputLayer((None, None, vocabulary_size))
    for number in range(config.num_layers):
        # A row of the first layer's input weights serves one word; those above sum num_units.
        W_in = lasagne.init.Normal(0.1 if number == 0 else config.num_units**-0.5)
        layer = LSTMLayer(
            layer,
            config.num_units,
            grad_clipping=config.grad_clipping,
            peepholes=config.peepholes,
            learn_init=config.learn_init,
            recurrence=recurrence,
            recurrent_dropout=config.recurrent_dropout,
            input_dropout=config.input_dropout if number == 0 else 0.0,
            number=number,
            masks=masks,
            ingate=gate(),
            forgetgate=gate(b=lasagne.init.Constant(1.0)),
            cell=gate(W_cell=None, nonlinearity=lasagne.nonlinearities.tanh),
            outgate=gate(),
            name=f"lstm{number + 1}",
        )
        if config.dropout:
            layer = DropoutLayer(layer, config.dropout, number=number, masks=masks)
    # Steps first, as the hidden states lie in memory: then the rows are a view of them.
    rows = ReshapeLayer(DimshuffleLayer(layer, (1, 0, 2)), (-1, config.num_units))
    output = DenseLayer(rows, vocabulary_size, nonlinearity=lasagne.nonlinearities.softmax,
                        name="softmax")
    return Network(input_layer, rows, output, device, recurrence, masks)


def summed_loss(network: Network, inputs, targets):
    """Categorical cross-entropy in nats, summed over all steps of all sentences, for training.

    With dropout it depends on what the network's `masks` name, too.

    Parameters
    ----------
    network : Network
    inputs : Theano variable
        Integer indices (sentences, steps), or one-hot floats (sentences, steps, vocabulary).
    targets : Theano variable
        Integer indices (sentences, steps) of the words to predict.

    Returns
    -------
    Theano scalar
    """
    return _losses(network, inputs, targets).sum()


def log_probabilities(network: Network, inputs, targets):
    """Natural logarithm of the probability of each target, without dropout.

    Parameters
    ----------
    network : Network
    inputs, targets : Theano variables
        As for `summed_loss`.

    Returns
    -------
    Theano variable
        (sentences, steps)
    """
    losses = _losses(network, inputs, targets, deterministic=True)
    return -losses.reshape((targets.shape[1], targets.shape[0])).T


def compile_log_probabilities(network: Network) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Compile the scoring of sentences: see `log_probabilities`."""
    x, y = T.imatrices("inputs", "targets")
    return network.device.function([x, y], log_probabilities(network, x, y))


def compile_next_word(network: Network) -> Callable[[np.ndarray], np.ndarray]:
    """Compile the prediction of the word after some others.

    Parameters
    ----------
    network : Network

    Returns
    -------
    function
        From inputs, int32 (sentences, steps) beginning with ``<s>``, to the probabilities of each
        word as the next one, (sentences, vocabulary).
    """
    x = T.imatrix("inputs")
    rows = lasagne.layers.get_output(network.rows, {network.input: x}, deterministic=True)
    # The rows have the steps first: the last step of all sentences is at the end.
    probabilities = network.output.get_output_for(rows[-x.shape[0]:], deterministic=True)
    return network.device.function([x], probabilities)


def all_parameters(network: Network) -> list:
    """All weights, fixed initial states among them, in a fixed order."""
    return lasagne.layers.get_all_params(network.output)


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
    for parameter in all_parameters(network):
        parameter.set_value(values[parameter.name])


def _losses(network: Network, inputs, targets, **kwargs):
    """Cross-entropy of each row of the network, the first step of all sentences first."""
    targets = targets.T.flatten()
    if network.recurrence == "fused":
        hidden = lasagne.layers.get_output(network.rows, {network.input: inputs}, **kwargs)
        return softmax_crossentropy(hidden, network.output.W, network.output.b, targets)
    probabilities = lasagne.layers.get_output(network.output, {network.input: inputs}, **kwargs)
    return lasagne.objectives.categorical_crossentropy(probabilities, targets)
