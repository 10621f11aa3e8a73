"""Gradients for weights that are added to accumulators in place."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import theano


class WeightsGradient(theano.Op):
    """Base of Ops that compute gradients for weights and can add them to accumulators.

    The node's inputs are the accumulators named by `accumulated`, then what `add_gradients`
    takes; its outputs are the gradients for all weights, each with its accumulator added if it
    has one, and then what else `add_gradients` returns.

    Parameters
    ----------
    accumulated : tuple of int
        Which outputs have accumulators.
    in_place : bool
        Whether these outputs take the memory of their accumulators. Theano's optimizer sets it
        where nothing else needs the accumulators' old content.
    """

    __props__ = ("accumulated", "in_place")

    def __init__(self, accumulated: tuple[int, ...] = (), in_place: bool = False):
        self.accumulated = accumulated
        self.in_place = in_place
        if in_place:
            self.destroy_map = {output: [n] for n, output in enumerate(accumulated)}

    def weights(self, inputs: list) -> list:
        """Those of the inputs of `add_gradients` that the outputs are the gradients for."""
        raise NotImplementedError

    def others(self, inputs: list) -> list:
        """Those of the inputs whose types and shapes the further outputs have."""
        return []

    def add_gradients(self, inputs: list, gradients: list) -> list:
        """Add the gradients for the weights, computed from arrays, to arrays in place.

        Parameters
        ----------
        inputs : list of array
            Values of the node's inputs, without the accumulators.
        gradients : list of array
            What to add to, of the weights' shapes.

        Returns
        -------
        list of array
            The further outputs.
        """
        raise NotImplementedError

    def make_node(self, *inputs):
        inputs = [theano.tensor.as_tensor_variable(variable) for variable in inputs]
        given = inputs[len(self.accumulated):]
        types = [like.type for like in (*self.weights(given), *self.others(given))]
        for accumulator, output in zip(inputs, self.accumulated):
            if accumulator.type != types[output]:
                raise TypeError(f"the accumulator {accumulator} is of type {accumulator.type}, "
                                f"its gradient is of type {types[output]}")
        return theano.Apply(self, inputs, [type() for type in types])

    def infer_shape(self, node, shapes):
        given = shapes[len(self.accumulated):]
        return [*self.weights(given), *self.others(given)]

    def perform(self, node, inputs, output_storage):
        count = len(self.accumulated)
        accumulators, inputs = inputs[:count], inputs[count:]
        given = dict(zip(self.accumulated, accumulators))
        gradients = [
            np.zeros_like(weight, order="C") if n not in given
            else np.ascontiguousarray(given[n]) if self.in_place
            else given[n].copy(order="C")
            for n, weight in enumerate(self.weights(inputs))]
        for storage in output_storage[len(gradients):]:
            storage[0] = None
        results = [*gradients, *self.add_gradients(inputs, gradients)]
        for storage, result in zip(output_storage, results, strict=True):
            storage[0] = result


@theano.gof.local_optimizer(None)
def _weights_gradient_in_place(node):
    if isinstance(node.op, WeightsGradient) and node.op.accumulated and not node.op.in_place:
        return type(node.op)(node.op.accumulated, in_place=True)(*node.inputs, return_list=True)
    return False


theano.compile.optdb.register(
    "weights_gradient_in_place",
    theano.gof.TopoOptimizer(_weights_gradient_in_place,
                             failure_callback=theano.gof.TopoOptimizer.warn_inplace),
    75, "fast_run", "inplace")


def accumulate(accumulators: list, gradients: list) -> list:
    """Expressions for the sums of accumulators and gradients, for use as updates.

    They are what ``accumulator + gradient`` is. But where a gradient comes from an Op that can
    add it to its accumulator, this Op is made to: in a function that updates the accumulator
    with the sum it then happens in place, and no array of the parameter's size is needed for the
    gradient.

    Parameters
    ----------
    accumulators : list of Theano variables
        Of the types of the parameters.
    gradients : list of symbolic expressions
        As `theano.grad` returns them, before any compilation.

    Returns
    -------
    list of symbolic expressions

    Examples
    --------
    >>> gradients = theano.grad(loss, parameters)
    >>> updates = list(zip(accumulators, accumulate(accumulators, gradients)))
    """
    sums = [accumulator + gradient for accumulator, gradient in zip(accumulators, gradients)]
    outputs: dict = defaultdict(dict)
    for n, gradient in enumerate(gradients):
        if gradient.owner is not None and isinstance(gradient.owner.op, WeightsGradient):
            outputs[gradient.owner][gradient.index] = n
    for node, numbers in outputs.items():
        accumulated = tuple(sorted(numbers))
        given = [accumulators[numbers[output]] for output in accumulated]
        results = type(node.op)(accumulated)(*given, *node.inputs, return_list=True)
        for output in accumulated:
            sums[numbers[output]] = results[output]
    return sums
