"""Dropout in one Op, whose masks are a function of where a number stands."""

from __future__ import annotations

import numpy as np
import theano
import theano.tensor as T

from model.engine import native
from model.engine.native import buffers

_WORD = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
# Of Philox4x32: the multipliers, and what is added to the key from round to round.
_MULTIPLIERS = np.array([0xD2511F53, 0xCD9E8D57], "uint64")
_WEYL = np.array([0x9E3779B9, 0xBB67AE85], "uint64")
_ROUNDS = 10


def dropout(values, update, sentence, *, rate: float, seed: int, stream: int):
    """Values of which a share is dropped, the others scaled up so that the mean stays.

    The masks depend on nothing but what is given here and the place of a value: they are the same
    on every machine, for every number of threads, and however sentences are put together to
    batches.

    Parameters
    ----------
    values : Theano tensor3
        (steps, sentences, units)
    update : Theano integer scalar
        How many updates of the parameters there were.
    sentence : Theano integer scalar
        The number of the first of these sentences among those of the update.
    rate : float
        The share that is dropped, at least 0 and below 1.
    seed : int
        Of 32 bits.
    stream : int
        Tells the masks of one update from each other: the number of the layer.

    Returns
    -------
    Theano variable
        As values. A value is kept where its number is below ``2**32 * (1 - rate)``. The numbers are
        those of Philox4x32-10 [1]_ with the key (seed, update) and the counter (unit // 4, step,
        sentence, stream), of whose four words the unit takes the one with the number unit % 4.

    References
    ----------
    .. [1] Salmon, J., Moraes, M., Dror, R., & Shaw, D. (2011): Parallel random numbers: as easy as
           1, 2, 3. SC '11.
    """
    return Dropout(rate, seed, stream)(values, T.cast(update, "int64"), T.cast(sentence, "int64"))


class Dropout(theano.Op):
    """See `dropout`. It is its own gradient, for the masks are made again."""

    __props__ = ("rate", "seed", "stream")

    def __init__(self, rate: float, seed: int, stream: int):
        self.rate = rate
        self.seed = seed
        self.stream = stream

    @property
    def keep_below(self) -> int:
        """What the number of a value that is kept is below, an integer of 32 bits."""
        return min(int(_WORD), round((1 - self.rate) * 2**32))

    @property
    def scale(self) -> float:
        """What a value that is kept is multiplied by."""
        return 1 / (1 - self.rate)

    def make_node(self, values, update, sentence):
        values = T.as_tensor_variable(values)
        if values.ndim != 3 or values.dtype not in ("float32", "float64"):
            raise TypeError(f"values must be float32 or float64 of three dimensions, not "
                            f"{values.dtype} of {values.ndim}")
        return theano.Apply(self, [values, update, sentence], [values.type()])

    def infer_shape(self, node, shapes):
        return [shapes[0]]

    def connection_pattern(self, node):
        return [[True], [False], [False]]

    def perform(self, node, inputs, output_storage):
        values = np.ascontiguousarray(inputs[0])
        update, sentence = int(inputs[1]), int(inputs[2])
        output_storage[0][0] = None
        result = buffers.take(values.shape, values.dtype.name)
        if native.available() is None:
            key = np.array([self.seed, update, sentence, self.stream, self.keep_below], "uint32")
            native.call("dropout", values.dtype.name, *values.shape, values, key,
                        np.array(self.scale), result)
        else:
            steps, sentences, units = values.shape
            counter = [np.arange(-(-units // 4)), np.arange(steps)[:, np.newaxis, np.newaxis],
                       sentence + np.arange(sentences)[:, np.newaxis], self.stream]
            words = np.stack(np.broadcast_arrays(*philox(counter, [self.seed, update])), axis=-1)
            numbers = words.reshape(steps, sentences, -1)[:, :, :units]
            np.multiply(values, (numbers < self.keep_below) * values.dtype.type(self.scale),
                        out=result)
        output_storage[0][0] = result

    def L_op(self, inputs, outputs, output_gradients):
        return [self(output_gradients[0], *inputs[1:]),
                *(theano.gradient.DisconnectedType()() for _ in range(2))]


def philox(counter: list, key: list) -> list:
    """Philox4x32-10 in numpy, for where there is no compiled library; see `dropout`.

    Parameters
    ----------
    counter : list of 4 integer arrays or integers
        That fit together by numpy's rules.
    key : list of 2 integers

    Returns
    -------
    list of 4 uint64 arrays
        Numbers of 32 bits.
    """
    first, second, third, fourth = (np.asarray(word, "uint64") for word in counter)
    keys = np.array(key, "uint64")
    for _ in range(_ROUNDS):
        left, right = _MULTIPLIERS[0] * first, _MULTIPLIERS[1] * third
        first, second = right >> _HALF ^ second ^ keys[0], right & _WORD
        third, fourth = left >> _HALF ^ fourth ^ keys[1], left & _WORD
        keys = (keys + _WEYL) & _WORD
    return [first, second, third, fourth]
