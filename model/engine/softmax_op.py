"""The softmax layer and its cross-entropy in one Op, with all gradients in another."""

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
    give, but there is never an array of (rows, classes): logits, probabilities and their gradient
    are there for a block of rows at a time, from which all that is wanted is computed. And it is
    right where a probability is too small for its type.

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
    return SoftmaxCrossEntropy()(hidden, W, b, T.cast(targets, "int32"))


def _checked(hidden, W, b, targets) -> list:
    """Arrays that fit together, contiguous."""
    (rows, units), columns = hidden.shape, W.shape[1]
    if W.shape[0] != units or b.shape != (columns,) or targets.shape != (rows,):
        raise ValueError(f"shapes do not fit: hidden {hidden.shape}, W {W.shape}, "
                         f"b {b.shape}, targets {targets.shape}")
    check_indices(targets, columns, "targets")
    return [np.ascontiguousarray(array) for array in (hidden, W, b, targets)]


class SoftmaxCrossEntropy(theano.Op):
    """The losses (rows,): see `softmax_crossentropy`."""

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
        return theano.Apply(self, [hidden, W, b, targets], [T.TensorType(dtype, (False,))()])

    def infer_shape(self, node, shapes):
        return [shapes[0][:1]]

    def connection_pattern(self, node):
        return [[True], [True], [True], [False]]

    def perform(self, node, inputs, output_storage):
        hidden, W, b, targets = _checked(*inputs)
        losses = np.empty(len(hidden), W.dtype)
        native.call("softmax_forward", W.dtype.name, *hidden.shape, W.shape[1], hidden, W, b,
                    targets, losses)
        output_storage[0][0] = losses

    def L_op(self, inputs, outputs, output_gradients):
        hidden, W, b, targets = inputs
        d_W, d_b, d_hidden, _ = SoftmaxGradients()(W, b, hidden, targets, output_gradients[0])
        return [d_hidden, d_W, d_b, theano.gradient.DisconnectedType()()]


class SoftmaxGradients(WeightsGradient):
    """The gradients for W, b and hidden, and the losses; from what these are computed from.

    Inputs are W, b, hidden, targets and the gradient for the losses.
    """

    def weights(self, inputs):
        return inputs[:2]

    def others(self, inputs):
        return [inputs[2], inputs[4]]

    def add_gradients(self, inputs, gradients):
        hidden, W, b, targets = _checked(inputs[2], inputs[0], inputs[1], inputs[3])
        d_losses = np.ascontiguousarray(inputs[4])
        losses = np.empty(len(hidden), W.dtype)
        d_hidden = buffers.take(hidden.shape, W.dtype.name)
        native.call("softmax_gradients", W.dtype.name, *hidden.shape, W.shape[1], hidden, W, b,
                    targets, d_losses, losses, d_hidden, *gradients)
        return [d_hidden, losses]


@theano.gof.local_optimizer(None)
def _once(node):
    """Take from one node all that is computed from the same logits.

    A loss comes from the node of its gradients, and the gradient for the hidden states from the
    node that adds those for the weights to accumulators.
    """
    if isinstance(node.op, SoftmaxCrossEntropy):
        hidden, W, b, targets = node.inputs
        given, wanted = [W, b, hidden, targets], {3: node.outputs[0]}
    elif isinstance(node.op, SoftmaxGradients) and not node.op.accumulated:
        given, wanted = node.inputs, {2: node.outputs[2], 3: node.outputs[3]}
    else:
        return False
    for other, _ in given[2].clients:
        if other is node or other == "output" or not isinstance(other.op, SoftmaxGradients):
            continue
        first = len(other.op.accumulated)
        same = all(one is another for one, another in zip(given, other.inputs[first:]))
        # Where the gradient for the losses comes from the losses, these have to be there before.
        if same and not set(node.outputs) & set(theano.gof.graph.ancestors(other.inputs)):
            return {variable: other.outputs[place] for place, variable in wanted.items()}
    return False


# When it is in canonical form the gradient for a sum depends on no more than the losses' number.
theano.compile.optdb.register(
    "softmax_once", theano.gof.TopoOptimizer(_once, order="in_to_out"), 2.9, "fast_run")
