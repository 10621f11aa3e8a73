"""Many training steps, one update with the average of their gradients.

The gradients of the steps are summed in shared variables, the accumulators, and never leave
Theano. Two sets of updates over the same accumulators make two compiled functions: one that is
called for every micro-batch and adds, one that is called once per window, hands the average to
an update rule of Lasagne, and clears.

Examples
--------
>>> accumulators = create_accumulators(params)
>>> accumulate = theano.function(
...     [x, y], loss, updates=accumulate_gradients(loss, params, accumulators, x.shape[0]))
>>> apply = theano.function(
...     [], updates=average_and_apply(params, accumulators, adagrad, learning_rate=0.005))
>>> for x, y in micro_batches:
...     accumulate(x, y)
>>> apply()
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from model import engine  # noqa: F401  isort: skip

import numpy as np
import theano
import theano.tensor as T
from lasagne.updates import get_or_compute_grads

from model.engine import accumulate, squares_before, sum_of_squares, update_in_one_pass

# What Lasagne's total_norm_constraint adds to a norm before it divides by it.
_EPSILON = 1e-7


@dataclass(frozen=True)
class Accumulators:
    """Sums over the steps since the last update.

    Parameters
    ----------
    gradients : list of shared variables
        One for each parameter, of its shape: the sum of the gradients.
    count : shared variable
        Integer scalar: how many terms the sums have, in the unit of the average (sentences or
        tokens).
    """

    gradients: list
    count: object


def create_accumulators(params: list) -> Accumulators:
    """Accumulators of zeros.

    Parameters
    ----------
    params : list of shared variables

    Returns
    -------
    Accumulators
        A sum for each parameter, of its shape and type, and the count.
    """
    return Accumulators(
        [theano.shared(np.zeros_like(param.get_value(borrow=True)),
                       broadcastable=param.broadcastable, name=f"{param.name}_gradients")
         for param in params],
        theano.shared(np.int64(0), name="count"),
    )


def accumulate_gradients(loss_or_grads, params: list, accumulators: Accumulators,
                         count) -> OrderedDict:
    """Updates that add the gradients of one step to the accumulators.

    Parameters
    ----------
    loss_or_grads : symbolic expression or list of expressions
        A scalar loss expression, *summed* over its terms, not averaged; or a list of its
        gradients.
    params : list of shared variables
        The variables to generate gradients for; they do not change.
    accumulators : Accumulators
        From `create_accumulators` for the same list.
    count : symbolic integer scalar
        Number of terms in the loss.

    Returns
    -------
    OrderedDict
        A dictionary mapping each accumulator to its update expression.
    """
    grads = get_or_compute_grads(loss_or_grads, params)
    updates = OrderedDict(
        zip(accumulators.gradients, accumulate(accumulators.gradients, grads)))
    updates[accumulators.count] = accumulators.count + T.cast(count, "int64")
    return updates


def average_and_apply(params: list, accumulators: Accumulators, update: Callable,
                      max_norm: float = 0, weight_decay=0, **kwargs) -> OrderedDict:
    """Updates that change the parameters once by the average gradients, and clear the sums.

    Parameters
    ----------
    params : list of shared variables
        The variables to generate update expressions for.
    accumulators : Accumulators
        Filled by the updates of `accumulate_gradients`.
    update : function
        An update rule of Lasagne: ``update(grads, params, **kwargs)``, as
        `lasagne.updates.adagrad`; it has to work element by element.
    max_norm : float
        Bound on the norm of the average gradient, of all parameters together: a longer one is
        scaled down, as by `lasagne.updates.total_norm_constraint`. 0 for none.
    weight_decay : float or symbolic scalar
        The share of each parameter that an update takes away, whatever its gradient is: decoupled
        weight decay (Loshchilov and Hutter, 2019). 0 for none.
    **kwargs
        For the update rule, as ``learning_rate``.

    Returns
    -------
    OrderedDict
        A dictionary mapping each parameter, each variable of the update rule's own state, and
        each accumulator to its update expression.

    Notes
    -----
    With the loss :math:`L = \\sum_n L_n` of the steps since the last update and their total
    count :math:`N`, the update rule receives :math:`\\frac{1}{N} \\sum_n \\nabla L_n`. Sums over
    unequal numbers of terms are divided once, by the total: the average is that of all terms, not a
    mean of means. With a count of zero it is not-a-number.

    References
    ----------
    I. Loshchilov, F. Hutter: Decoupled weight decay regularization. ICLR 2019.
    """
    averages = _average_gradients(accumulators)
    if max_norm:
        norm = _norm(map(sum_of_squares, accumulators.gradients), accumulators)
        factor = T.cast(T.clip(norm, 0, max_norm) / (norm + _EPSILON), theano.config.floatX)
        averages = [average * factor for average in averages]
    updates = update(averages, params, **kwargs)
    if weight_decay:
        for param in params:
            updates[param] -= weight_decay * param
    updates = update_in_one_pass(updates, accumulators.gradients)
    updates[accumulators.count] = T.zeros_like(accumulators.count)
    return updates


def average_norm(updates: OrderedDict, accumulators: Accumulators):
    """The norm of the average gradient that an update is made from, before it is bounded.

    Parameters
    ----------
    updates : OrderedDict
        See `average_and_apply`; the norm is for a function with these updates.
    accumulators : Accumulators
        What they average.

    Returns
    -------
    Theano scalar
        float64; finite where all gradients are.
    """
    return _norm((squares_before(updates[total]) for total in accumulators.gradients),
                 accumulators)


def _average_gradients(accumulators: Accumulators) -> list:
    count = T.cast(accumulators.count, theano.config.floatX)
    return [total / count for total in accumulators.gradients]


def _norm(squares: Iterable, accumulators: Accumulators):
    return T.sqrt(sum(squares)) / accumulators.count


def update_state(updates: OrderedDict, params: list, accumulators: Accumulators) -> list:
    """The shared variables that an update rule keeps from update to update.

    Parameters
    ----------
    updates : OrderedDict
        See `average_and_apply`.
    params : list of shared variable
        What they update.
    accumulators : Accumulators
        What they average.

    Returns
    -------
    list of shared variable
        In a fixed order; for AdaGrad the sums of squares, of the shapes of the parameters.
    """
    others = {*params, *accumulators.gradients, accumulators.count}
    return [variable for variable in updates if variable not in others]
