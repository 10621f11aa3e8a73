"""A whole LSTM sequence in one Op, its gradient in two.

`lstm_sequence` makes the node of the forward pass. Its gradient is a node for all that goes back
through the steps, and one that makes the gradients for the weights of all steps at once, which
`model.engine.accumulate` can let add to accumulators in place.
"""

from __future__ import annotations

import numpy as np
import theano
import theano.tensor as T

from model.engine import native
from model.engine.native import buffers, check_indices
from model.engine.weights_gradient import WeightsGradient


def lstm_sequence(inputs, W_in: list, W_hid: list, b: list, peepholes: list | None, cell_init,
                  hid_init, grad_clipping: float = 0):
    """Hidden states of an LSTM, for all steps of sentences of one length.

    All lists are in the order ingate, forgetgate, cell, outgate, as are Lasagne's layers.

    Parameters
    ----------
    inputs : Theano variable
        Floats (sentences, steps, inputs), or integers (sentences, steps): the indices of the hot
        columns of a one-hot input.
    W_in : list of 4 Theano matrices
        (inputs, units)
    W_hid : list of 4 Theano matrices
        (units, units)
    b : list of 4 Theano vectors
        (units,)
    peepholes : list of 3 Theano vectors or None
        (units,), from the cell to ingate, forgetgate and outgate.
    cell_init, hid_init : Theano matrices
        (1, units), the state before the first step, the same for all sentences.
    grad_clipping : float
        The gradient of the gates' pre-activations is clipped to ``[-grad_clipping,
        grad_clipping]`` at every step; 0 for no clipping.

    Returns
    -------
    Theano variable
        (steps, sentences, units)

    Raises
    ------
    IndexError
        When it is computed with an index that `W_in` has no row for.

    Notes
    -----
    With the pre-activations :math:`a = x_t W_{in} + h_{t-1} W_{hid} + b` of each gate,

    .. math::
        i_t &= \\sigma(a_i + p_i c_{t-1}) \\\\
        f_t &= \\sigma(a_f + p_f c_{t-1}) \\\\
        c_t &= f_t c_{t-1} + i_t \\tanh(a_c) \\\\
        o_t &= \\sigma(a_o + p_o c_t) \\\\
        h_t &= o_t \\tanh(c_t)

    Clipping acts on the gradient for :math:`a`, as `theano.gradient.grad_clip` does in Lasagne's
    layer: the gradients for the peepholes, and for the cell through them, are not clipped.

    References
    ----------
    .. [1] Graves, A. (2013): Generating sequences with recurrent neural networks.
           arXiv:1308.0850, equations 7 to 11.
    """
    inputs = T.as_tensor_variable(inputs)
    if inputs.ndim == 2:
        inputs = T.cast(inputs, "int32")
    # The library walks through the steps: give it an array that begins with them.
    inputs = inputs.dimshuffle(1, 0, *range(2, inputs.ndim))
    op = LSTMSequence(peepholes is not None, float(grad_clipping or 0))
    return op(inputs, *W_in, *W_hid, *b, *(peepholes or ()), cell_init, hid_init)[0]


def _contiguous(arrays) -> list:
    return [np.ascontiguousarray(array) for array in arrays]


def _pointers(inputs: np.ndarray) -> tuple:
    """The inputs as the library's functions take them: number of inputs, indices, floats."""
    if inputs.ndim == 2:
        return 0, inputs, None
    return inputs.shape[2], None, inputs


class LSTMSequence(theano.Op):
    """The forward pass; see `lstm_sequence`.

    Outputs are the hidden states (steps, sentences, units), and for the gradient the cells
    (steps, sentences, units) and the activations of the gates (steps, sentences, 4 * units).

    Parameters
    ----------
    peepholes : bool
    grad_clipping : float
    """

    __props__ = ("peepholes", "grad_clipping")

    def __init__(self, peepholes: bool, grad_clipping: float):
        self.peepholes = peepholes
        self.grad_clipping = grad_clipping

    def split(self, inputs: list) -> tuple:
        """Inputs, W_in, W_hid, b, peepholes, [cell_init, hid_init]."""
        return (inputs[0], inputs[1:5], inputs[5:9], inputs[9:13], inputs[13:-2], inputs[-2:])

    def make_node(self, *inputs):
        inputs = [T.as_tensor_variable(variable) for variable in inputs]
        dtype = inputs[1].dtype
        if dtype not in ("float32", "float64"):
            raise TypeError(f"weights must be float32 or float64, not {dtype}")
        ndims = [2] * 8 + [1] * (7 if self.peepholes else 4) + [2, 2]
        for variable, ndim in zip(inputs[1:], ndims, strict=True):
            if variable.dtype != dtype or variable.ndim != ndim:
                raise TypeError(f"{variable} is of {variable.ndim} dimensions and {variable.dtype}"
                                f", expected were {ndim} and {dtype}")
        if (inputs[0].ndim, inputs[0].dtype) not in ((2, "int32"), (3, dtype)):
            raise TypeError(f"inputs must be int32 of two dimensions or {dtype} of three, not "
                            f"{inputs[0].dtype} of {inputs[0].ndim}")
        outputs = [T.TensorType(dtype, (False,) * 3)() for _ in range(3)]
        return theano.Apply(self, inputs, outputs)

    def infer_shape(self, node, shapes):
        steps, sentences = shapes[0][:2]
        units = shapes[5][0]
        return [(steps, sentences, units)] * 2 + [(steps, sentences, 4 * units)]

    def connection_pattern(self, node):
        # Only the hidden states are results; cells and gates are for the gradient alone.
        floats = node.inputs[0].ndim == 3
        return [[floats, False, False]] + [[True, False, False]] * (len(node.inputs) - 1)

    def perform(self, node, inputs, output_storage):
        dtype = node.outputs[0].dtype
        inputs, W_in, W_hid, b, peepholes, (cell_init, hid_init) = self.split(_contiguous(inputs))
        steps, sentences = inputs.shape[:2]
        rows, units = W_in[0].shape
        if inputs.ndim == 2:
            check_indices(inputs, rows, "inputs")
        elif inputs.shape[2] != rows:
            raise ValueError(f"{inputs.shape[2]} inputs, but the input weights have {rows} rows")
        _check_shapes(W_in, (rows, units))
        _check_shapes(W_hid, (units, units))
        _check_shapes([*b, *peepholes], (units,))
        _check_shapes([cell_init, hid_init], (1, units))
        for storage in output_storage:
            storage[0] = None
        hidden, cells = (buffers.take((steps, sentences, units), dtype) for _ in range(2))
        gates = buffers.take((steps, sentences, 4 * units), dtype)
        inputs_count, indices, dense = _pointers(inputs)
        native.call("lstm_forward", dtype, steps, sentences, inputs_count, units, indices, dense,
                    W_in, W_hid, b, peepholes or None, cell_init, hid_init, gates, cells, hidden)
        for storage, result in zip(output_storage, (hidden, cells, gates)):
            storage[0] = result

    def L_op(self, inputs, outputs, output_gradients):
        variable, W_in, W_hid, b, peepholes, (cell_init, hid_init) = self.split(inputs)
        hidden, cells, gates = outputs
        results = LSTMGradient(self.peepholes, self.grad_clipping, variable.ndim == 3)(
            *W_in, *W_hid, *peepholes, cell_init, cells, gates, output_gradients[0],
            return_list=True)
        d_gates, d_b, d_peepholes, d_cell_init, d_hid_init, *d_inputs = results
        d_weights = LSTMWeightsGradient()(*W_in, *W_hid, variable, hid_init, hidden, d_gates,
                                          return_list=True)
        if not d_inputs:
            d_inputs = [theano.gradient.DisconnectedType()()]
        return [*d_inputs, *d_weights, *(d_b[n] for n in range(4)),
                *(d_peepholes[n] for n in range(len(peepholes))),
                T.patternbroadcast(d_cell_init, cell_init.broadcastable),
                T.patternbroadcast(d_hid_init, hid_init.broadcastable)]


class LSTMGradient(theano.Op):
    """The backward pass through the steps.

    Inputs are W_in, W_hid, the peepholes, the initial cell, the cells and gates of the forward
    pass, and the gradient for the hidden states. Outputs are the gradients for the gates'
    pre-activations (steps, sentences, 4 * units), the biases (4, units), the peepholes (3,
    units), the initial cell and hidden state (1, units), and for the inputs if these are dense.

    Parameters
    ----------
    peepholes : bool
    grad_clipping : float
    dense : bool
        Whether the inputs are floats.
    """

    __props__ = ("peepholes", "grad_clipping", "dense")

    def __init__(self, peepholes: bool, grad_clipping: float, dense: bool):
        self.peepholes = peepholes
        self.grad_clipping = grad_clipping
        self.dense = dense

    def make_node(self, *inputs):
        inputs = [T.as_tensor_variable(variable) for variable in inputs]
        dtype = inputs[0].dtype
        outputs = [T.TensorType(dtype, (False,) * ndim)() for ndim in (3, 2, 2, 2, 2)]
        if self.dense:
            outputs.append(T.TensorType(dtype, (False,) * 3)())
        return theano.Apply(self, inputs, outputs)

    def infer_shape(self, node, shapes):
        (rows, units), (steps, sentences, width) = shapes[0], shapes[-2]
        result = [(steps, sentences, width), (4, units), (3, units), (1, units), (1, units)]
        return result + [(steps, sentences, rows)] * self.dense

    def perform(self, node, inputs, output_storage):
        dtype = node.outputs[0].dtype
        inputs = _contiguous(inputs)
        W_in, W_hid, peepholes = inputs[:4], inputs[4:8], inputs[8:-4]
        cell_init, cells, gates, d_hidden = inputs[-4:]
        steps, sentences, units = cells.shape
        rows = W_in[0].shape[0]
        for storage in output_storage:
            storage[0] = None
        d_gates = buffers.take((steps, sentences, 4 * units), dtype)
        vectors = [np.empty((count, units), dtype) for count in (4, 3, 1, 1)]
        d_inputs = buffers.take((steps, sentences, rows), dtype) if self.dense else None
        clip = np.array(self.grad_clipping or np.inf)
        native.call("lstm_backward", dtype, steps, sentences, rows, units, W_in, W_hid,
                    peepholes or None, cell_init, clip, gates, cells, d_hidden, d_gates, d_inputs,
                    *vectors)
        for storage, result in zip(output_storage, (d_gates, *vectors, d_inputs)):
            storage[0] = result


class LSTMWeightsGradient(WeightsGradient):
    """The gradients for W_in and W_hid.

    Inputs are W_in, W_hid, the inputs, the initial and all hidden states, and the gradient for
    the gates' pre-activations.
    """

    def weights(self, inputs):
        return inputs[:8]

    def add_gradients(self, inputs, gradients):
        inputs, hid_init, hidden, d_gates = _contiguous(inputs[8:])
        steps, sentences, units = hidden.shape
        native.call("lstm_weights", hidden.dtype.name, steps, sentences,
                    inputs.shape[2] if inputs.ndim == 3 else 0, units,
                    *_pointers(inputs)[1:], hid_init, hidden, d_gates, gradients[:4],
                    gradients[4:])
        return []


def _check_shapes(arrays: list, shape: tuple[int, ...]) -> None:
    for array in arrays:
        if array.shape != shape:
            raise ValueError(f"a parameter has the shape {array.shape}, expected was {shape}")
