"""Lasagne's LSTMLayer, corrected, with one-hot input as indices, and dropout that is repeatable."""

from __future__ import annotations

from dataclasses import dataclass

from model import engine  # noqa: F401  isort: skip

import lasagne
import theano
import theano.tensor as T

from model.engine import dropout, lstm_sequence

# Masks of outputs have the number of their layer as stream; those of weights come after.
_RECURRENT_STREAM = 1 << 16
_INPUT_STREAM = 1 << 17


@dataclass(frozen=True)
class Masks:
    """What the masks of dropout depend on, beside the layer and the place of a value.

    Parameters
    ----------
    seed : int
    update, sentence : Theano integer scalars
        How many updates there were, and the number of the first sentence among those of the update.
    """

    seed: int
    update: object
    sentence: object


class LSTMLayer(lasagne.layers.LSTMLayer):
    """LSTM layer of Graves (2013), eq. 7 to 11, with Lasagne's parameters and interface.

    Three things differ from the layer of Lasagne 0.1. The output gate sees the cell *before* its
    sigmoid, as in the paper; Lasagne 0.1 adds the peephole term after it. A one-hot input may
    be given as the indices of its hot columns: the product with the input weights is then the
    choice of their rows, which gives the same result without the zeros. And there are no masks:
    all sentences of a batch have the same length.

    Parameters
    ----------
    incoming : lasagne.layers.Layer
        A layer of output shape (sentences, steps, inputs).
    num_units : int
        Number of hidden units.
    grad_clipping : float
        The gradient of the gates' pre-activations is clipped to ``[-grad_clipping,
        grad_clipping]`` at every step; 0 for no clipping.
    peepholes : bool
        Whether the gates see the cell.
    learn_init : bool
        Whether the initial hidden state and cell are learned, or zero.
    recurrence : {"fused", "scan"}
        ``"fused"`` runs all steps in one Op of C code; ``"scan"`` is Theano's own loop, the
        reference. Both compute the same.
    recurrent_dropout : float
        Share of the recurrent weights that is dropped in training, the same ones for all steps and
        sentences of an update [2]_.
    input_dropout : float
        Share of the inputs that is dropped in training, each with its weights to all gates, the
        same ones for all steps and sentences of an update: of a one-hot input, words [2]_, [3]_.
    number : int
        Of the layer, counted from 0: each has masks of its own.
    masks : Masks, optional
        Needed for the dropout.
    **kwargs
        Gates, initial values and name, as `lasagne.layers.LSTMLayer` takes them.

    References
    ----------
    .. [1] Graves, A. (2013): Generating sequences with recurrent neural networks.
           arXiv:1308.0850.
    .. [2] Merity, S., Keskar, N., & Socher, R. (2018): Regularizing and optimizing LSTM language
           models. ICLR. Of the "weight-dropped LSTM", after L. Wan et al., DropConnect (ICML 2013).
    .. [3] Gal, Y., & Ghahramani, Z. (2016): A theoretically grounded application of dropout in
           recurrent neural networks. NIPS. Of dropped words, section 4.2.
    """

    def __init__(self, incoming, num_units, grad_clipping=0, peepholes=True, learn_init=False,
                 recurrence="fused", recurrent_dropout=0.0, input_dropout=0.0, number=0, masks=None,
                 **kwargs):
        super().__init__(incoming, num_units, grad_clipping=grad_clipping, peepholes=peepholes,
                         learn_init=learn_init, **kwargs)
        self.recurrence = recurrence
        self.recurrent_dropout = recurrent_dropout
        self.input_dropout = input_dropout
        self.number = number
        self.masks = masks

    def get_output_for(self, inputs, deterministic=False, **kwargs):
        """Compute the hidden states of all steps.

        Parameters
        ----------
        inputs : list of one Theano variable
            Floats (sentences, steps, inputs), or the integer indices (sentences, steps) of the
            hot columns of a one-hot input.
        deterministic : bool
            Whether nothing is dropped.

        Returns
        -------
        Theano variable
            Hidden states, (sentences, steps, num_units). In memory the steps come first, so
            that ``dimshuffle(1, 0, 2)`` of it costs nothing.
        """
        (inputs,) = inputs
        W_in, W_hid = self._of_gates("W_in_to"), self._of_gates("W_hid_to")
        if self.input_dropout and not deterministic:
            kept = self._kept_inputs(W_in[0].shape[0])
            W_in = [weights * kept for weights in W_in]
        if self.recurrent_dropout and not deterministic:
            W_hid = [self._dropped(weights, gate) for gate, weights in enumerate(W_hid)]
        compute = self._fused if self.recurrence == "fused" else self._scan
        hidden = compute(inputs, W_in, W_hid)
        return hidden.dimshuffle(1, 0, 2)

    def _of_gates(self, name):
        gates = ("ingate", "forgetgate", "cell", "outgate")
        return [getattr(self, f"{name}_{gate}") for gate in gates]

    def _dropped(self, weights, gate):
        """A gate's recurrent weights without a share of them: its rows are the generator's
        sentences, and the same ones, from 0, wherever the micro-batch stands in its window."""
        stream = _RECURRENT_STREAM + 4 * self.number + gate
        return dropout(weights.dimshuffle("x", 0, 1), self.masks.update, 0,
                       rate=self.recurrent_dropout, seed=self.masks.seed, stream=stream)[0]

    def _kept_inputs(self, inputs):
        """A column with 0 for each input that is dropped, and what the others are multiplied by."""
        ones = T.ones((1, inputs, 1), theano.config.floatX)
        mask = dropout(ones, self.masks.update, 0, rate=self.input_dropout, seed=self.masks.seed,
                       stream=_INPUT_STREAM + self.number)[0]
        return T.addbroadcast(mask, 1)

    def _peepholes(self):
        if not self.peepholes:
            return []
        return [self.W_cell_to_ingate, self.W_cell_to_forgetgate, self.W_cell_to_outgate]

    def _fused(self, inputs, W_in, W_hid):
        """Hidden states (steps, sentences, num_units) by one Op."""
        return lstm_sequence(
            inputs, W_in, W_hid, self._of_gates("b"),
            self._peepholes() or None, self.cell_init, self.hid_init, self.grad_clipping)

    def _scan(self, inputs, W_in, W_hid):
        """Hidden states (steps, sentences, num_units) by Theano's scan."""
        W_in, W_hid, b = (T.concatenate(of_gates, axis=-1) for of_gates in (
            W_in, W_hid, self._of_gates("b")))
        if inputs.ndim == 2:
            steps, sentences = inputs.shape[1], inputs.shape[0]
            projected = W_in[inputs.T.flatten()].reshape((steps, sentences, 4 * self.num_units))
        else:
            projected = T.dot(inputs.dimshuffle(1, 0, 2), W_in)
        projected += b

        def step(projected, cell_before, hidden_before, W_hid, *peepholes):
            gates = projected + T.dot(hidden_before, W_hid)
            if self.grad_clipping:
                gates = theano.gradient.grad_clip(gates, -self.grad_clipping, self.grad_clipping)
            ingate, forgetgate, candidate, outgate = (
                gates[:, n * self.num_units:(n + 1) * self.num_units] for n in range(4))
            if peepholes:
                ingate += cell_before * peepholes[0]
                forgetgate += cell_before * peepholes[1]
            cell = (T.nnet.sigmoid(forgetgate) * cell_before
                    + T.nnet.sigmoid(ingate) * T.tanh(candidate))
            if peepholes:
                outgate += cell * peepholes[2]
            return cell, T.nnet.sigmoid(outgate) * T.tanh(cell)

        ones = T.ones((projected.shape[1], 1))
        (_, hidden), _ = theano.scan(
            step,
            sequences=projected,
            outputs_info=[T.dot(ones, self.cell_init), T.dot(ones, self.hid_init)],
            non_sequences=[W_hid, *self._peepholes()],
            strict=True,
        )
        return hidden


class DropoutLayer(lasagne.layers.Layer):
    """Dropout as Lasagne's layer of this name, with masks that `model.engine.dropout` makes.

    Parameters
    ----------
    incoming : lasagne.layers.Layer
        A layer of output shape (sentences, steps, units).
    rate : float
        The share that is dropped in training.
    number : int
        Of the layer, counted from 0: each has masks of its own.
    masks : Masks
    **kwargs
        The name.
    """

    def __init__(self, incoming, rate, *, number, masks, **kwargs):
        super().__init__(incoming, **kwargs)
        self.rate = rate
        self.number = number
        self.masks = masks

    def get_output_for(self, input, deterministic=False, **kwargs):
        """Drop a share of the values, unless deterministic."""
        if deterministic:
            return input
        # The steps come first in memory, as `LSTMLayer` leaves them.
        masks = self.masks
        return dropout(input.dimshuffle(1, 0, 2), masks.update, masks.sentence, rate=self.rate,
                       seed=masks.seed, stream=self.number).dimshuffle(1, 0, 2)
