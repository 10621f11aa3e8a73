"""The softmax layer and its cross-entropy in one Op, its gradient in two."""

from __future__ import annotations

import numpy as np
import theano
import theano.tensor as T

from model.engine import native
from model.engine.native import buffers, check_indices
from model.engine.weights_gradient import WeightsGradient


def softmax_crossentropy(hidden, W, b, targets):
    """Cross-entropy in nats of a softmax layer's outputs, row by row.

    It is what Lasagne's ``DenseLayer(nonlinearity=softmax)`` and ``categorical_crossentropy``
    give, but of (rows, classes) it keeps one array only, which holds the logits, then the
    probabilities, then the gradient for the logits; and it is right where a probability is too
    small for its type.

    Parameters
    ----------
    hidden : Theano matrix
        (rows, units)
    W : Theano matrix
        (units, classes)
    b : Theano vector
        (classes,)
    targets : Theano vector
        Integers, (rows,)

    Returns
    -------
    Theano vector
        ``-log(softmax(hidden W + b))[row, target]``, (rows,)

    Raises
    ------
    IndexError
        When it is computed with a target that is no class.
    """
    return SoftmaxCrossEntropy()(hidden, W, b, T.cast(targets, "int32"))[0]


class SoftmaxCrossEntropy(theano.Op):
    """The forward pass; see `softmax_crossentropy`.

    Outputs are the losses (rows,), and for the gradient the probabilities less the one-hot
    targets (rows, classes).
    """

    __props__ = ()

    def make_node(self, *inputs):
        hidden, W, b, targets = (T.as_tensor_variable(variable) for variable in inputs)
        dtype = W.dtype
        if dtype not in ("float32", "float64"):
            raise TypeError(f"weights must be float32 or float64, not {dtype}")
        for variable, ndim in ((hidden, 2), (W, 2), (b, 1)):
            if variable.dtype != dtype or variable.ndim != ndim:
                raise TypeError(f"{variable} is of {variable.ndim} dimensions and {variable.dtype}"
                                f", expected were {ndim} and {dtype}")
        if targets.dtype != "int32" or targets.ndim != 1:
            raise TypeError("targets must be an int32 vector")
        outputs = [T.TensorType(dtype, (False,))(), T.TensorType(dtype, (False, False))()]
        return theano.Apply(self, [hidden, W, b, targets], outputs)

    def infer_shape(self, node, shapes):
        rows, columns = shapes[0][0], shapes[1][1]
        return [(rows,), (rows, columns)]

    def connection_pattern(self, node):
        return [[True, False], [True, False], [True, False], [False, False]]

    def perform(self, node, inputs, output_storage):
        hidden, W, b, targets = (np.ascontiguousarray(array) for array in inputs)
        (rows, units), columns = hidden.shape, W.shape[1]
        if W.shape[0] != units or b.shape != (columns,) or targets.shape != (rows,):
            raise ValueError(f"shapes do not fit: hidden {hidden.shape}, W {W.shape}, "
                             f"b {b.shape}, targets {targets.shape}")
        check_indices(targets, columns, "targets")
        for storage in output_storage:
            storage[0] = None
        losses = np.empty(rows, W.dtype)
        d_logits = buffers.take((rows, columns), W.dtype.name)
        native.call("softmax_forward", W.dtype.name, rows, units, columns, hidden, W, b, targets,
                    losses, d_logits)
        output_storage[0][0], output_storage[1][0] = losses, d_logits

    def L_op(self, inputs, outputs, output_gradients):
        hidden, W, b, _ = inputs
        d_logits = outputs[1]
        d_losses = output_gradients[0]
        d_hidden = SoftmaxGradient()(W, d_logits, d_losses)
        d_W, d_b = SoftmaxWeightsGradient()(W, b, hidden, d_logits, d_losses)
        return [d_hidden, d_W, d_b, theano.gradient.DisconnectedType()()]


def _scaled(d_logits: np.ndarray, d_losses: np.ndarray) -> np.ndarray:
    """Rows times the gradient for their losses, which is one when the losses are summed."""
    d_logits = np.ascontiguousarray(d_logits)
    return d_logits if (d_losses == 1).all() else d_logits * d_losses[:, np.newaxis]


class SoftmaxGradient(theano.Op):
    """The gradient for the hidden units, from W, d_logits and the gradient for the losses."""

    __props__ = ()

    def make_node(self, *inputs):
        W, d_logits, d_losses = (T.as_tensor_variable(variable) for variable in inputs)
        return theano.Apply(self, [W, d_logits, d_losses],
                            [T.TensorType(W.dtype, (False, False))()])

    def infer_shape(self, node, shapes):
        return [(shapes[1][0], shapes[0][0])]

    def perform(self, node, inputs, output_storage):
        W, d_logits, d_losses = inputs
        W = np.ascontiguousarray(W)
        d_logits = _scaled(d_logits, d_losses)
        (rows, columns), units = d_logits.shape, W.shape[0]
        output_storage[0][0] = None
        d_hidden = buffers.take((rows, units), W.dtype.name)
        native.call("softmax_backward", W.dtype.name, rows, units, columns, W, d_logits, d_hidden)
        output_storage[0][0] = d_hidden


class SoftmaxWeightsGradient(WeightsGradient):
    """The gradients for W and b, from W, b, hidden, d_logits and the gradient for the losses."""

    def weights(self, inputs):
        return inputs[:2]

    def add_gradients(self, inputs, gradients):
        hidden = np.ascontiguousarray(inputs[2])
        d_logits = _scaled(*inputs[3:])
        (rows, units), columns = hidden.shape, d_logits.shape[1]
        native.call("softmax_weights", hidden.dtype.name, rows, units, columns, hidden, d_logits,
                    *gradients)
