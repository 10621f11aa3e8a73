"""The network in numpy alone: it is used so where there is no Theano, and word by word.

Everything is computed in single precision, for sentences of one length side by side, so that nearly
all of the work is in products of matrices.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .configuration import NetworkConfig

# The first three are sigmoids, the last a hyperbolic tangent.
_GATES = ("ingate", "forgetgate", "outgate", "cell")
# Numbers of the output layer that are in memory at a time: 8 MB, about a processor's cache.
_OUTPUTS_AT_A_TIME = 1 << 21


class State(NamedTuple):
    """What the recurrent layers carry from a word to the next.

    Parameters
    ----------
    hidden, cell : float32 arrays (layers, sentences, units)
    """

    hidden: np.ndarray
    cell: np.ndarray


class NumpyNetwork:
    """A trained network: LSTM layers with or without peepholes, and a softmax over the vocabulary.

    See `model.network.build_network`, which is the same in Theano.

    Parameters
    ----------
    config : NetworkConfig
    parameters : dict of str to float32 array
        By the names and of the shapes that `NetworkConfig.parameter_shapes` lists.

    References
    ----------
    Graves, A. (2013): Generating sequences with recurrent neural networks. arXiv:1308.0850, eq. 7
    to 11.
    """

    def __init__(self, config: NetworkConfig, parameters: dict[str, np.ndarray]):
        self._layers = [_Layer(f"lstm{number + 1}", parameters, config.peepholes)
                        for number in range(config.num_layers)]
        self._output, self._output_bias = parameters["softmax.W"], parameters["softmax.b"]

    def start(self, sentences: int = 1) -> State:
        """The state before the first word, for some sentences."""
        return State(*(np.stack([np.repeat(initial, sentences, axis=0) for initial in each])
                       for each in zip(*(layer.initial for layer in self._layers))))

    def log_probabilities(self, inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Natural logarithm of the probability of each target.

        Parameters
        ----------
        inputs, targets : integer arrays (sentences, steps)
            Indices of words; the first input is ``<s>``.

        Returns
        -------
        float32 array (sentences, steps)
        """
        hidden, _ = self._hidden(inputs, self.start(len(inputs)))
        steps, sentences, units = hidden.shape
        found = self._outputs(hidden.reshape(-1, units), targets.T.ravel())
        return found.reshape(steps, sentences).T

    def next_word(self, inputs: np.ndarray) -> np.ndarray:
        """The probability of each word as the next one.

        Parameters
        ----------
        inputs : integer array (sentences, steps)

        Returns
        -------
        float32 array (sentences, vocabulary)
        """
        hidden, _ = self._hidden(inputs, self.start(len(inputs)))
        return np.exp(self._outputs(hidden[-1]))

    def step(self, words: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        """Read one word of each sentence.

        Parameters
        ----------
        words : integer array (sentences,)
            Indices; the first is ``<s>``.
        state : State
            It stays as it is.

        Returns
        -------
        float32 array (sentences, vocabulary), State
            Natural logarithms of the probabilities of the words after these, and the next state.
        """
        hidden, state = self._hidden(words[:, None], state)
        return self._outputs(hidden[-1]), state

    def _hidden(self, inputs: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        """The outputs of the last recurrent layer (steps, sentences, units), and the last state."""
        states = []
        below: np.ndarray = inputs.T
        for layer, hidden, cell in zip(self._layers, *state):
            below, last = layer.run(below, hidden, cell)
            states.append(last)
        return below, State(*(np.stack(each) for each in zip(*states)))

    def _outputs(self, hidden: np.ndarray, targets: np.ndarray | None = None) -> np.ndarray:
        """Log-probabilities after the states (rows, units): of a target each, or of all words."""
        size = len(self._output_bias)
        found = np.empty(hidden.shape[:1] if targets is not None else (len(hidden), size),
                         "float32")
        rows = max(1, _OUTPUTS_AT_A_TIME // size)
        for begin in range(0, len(hidden), rows):
            part = slice(begin, begin + rows)
            logits = hidden[part] @ self._output
            logits += self._output_bias
            logits -= logits.max(axis=1, keepdims=True)
            if targets is None:
                found[part] = logits
            else:
                found[part] = logits[np.arange(len(logits)), targets[part]]
            normalizers = np.log(np.exp(logits, out=logits).sum(axis=1))
            found[part] -= normalizers if targets is not None else normalizers[:, None]
        return found


class _Layer:
    """One recurrent layer, its gates side by side.

    A sigmoid is computed as ``(tanh(x / 2) + 1) / 2``, which numpy does faster; what is summed up
    for these gates is halved before, in the weights, which changes no digit.
    """

    def __init__(self, name: str, parameters: dict[str, np.ndarray], peepholes: bool):
        def side_by_side(kind: str) -> np.ndarray:
            return np.concatenate(
                [parameters[f"{name}.{kind}_{gate}"] * np.float32(1 if gate == "cell" else 0.5)
                 for gate in _GATES], axis=-1)

        self._inputs, self._recurrent = side_by_side("W_in_to"), side_by_side("W_hid_to")
        self._bias = side_by_side("b")
        self._peepholes = [parameters[f"{name}.W_cell_to_{gate}"] * np.float32(0.5)
                           for gate in _GATES[:3]] if peepholes else None
        self._takes_words = name == "lstm1"
        self.initial = parameters[f"{name}.hid_init"], parameters[f"{name}.cell_init"]

    def run(self, inputs: np.ndarray, hidden: np.ndarray, cell: np.ndarray
            ) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """The outputs of all steps (steps, sentences, units), and the last hidden state and cell.

        Parameters
        ----------
        inputs : array (steps, sentences), or (steps, sentences, units)
            Words, of the first layer; else the outputs of the layer below.
        hidden, cell : float32 arrays (sentences, units)
        """
        units = hidden.shape[1]
        outputs = np.empty((len(inputs), *hidden.shape), "float32")
        for step, given in enumerate(inputs):
            gates = hidden @ self._recurrent
            gates += self._inputs[given] if self._takes_words else given @ self._inputs
            gates += self._bias
            sigmoids, outgate = gates[:, :2 * units], gates[:, 2 * units:3 * units]
            if self._peepholes:
                gates[:, :units] += cell * self._peepholes[0]
                gates[:, units:2 * units] += cell * self._peepholes[1]
            _sigmoid(sigmoids)
            candidate = np.tanh(gates[:, 3 * units:])
            candidate *= gates[:, :units]
            cell = cell * gates[:, units:2 * units]
            cell += candidate
            if self._peepholes:
                outgate += cell * self._peepholes[2]
            hidden = np.tanh(cell, out=outputs[step])
            hidden *= _sigmoid(outgate)
        return outputs, (hidden, cell)


def _sigmoid(halves: np.ndarray) -> np.ndarray:
    """The sigmoids of the doubles of some numbers, in their place."""
    np.tanh(halves, out=halves)
    halves += 1
    halves *= 0.5
    return halves
