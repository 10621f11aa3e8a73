"""The compiled library behind the Ops of the LSTM and softmax layers, and what these share."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from model import engine  # noqa: F401  isort: skip

import numpy as np
import theano
from theano.gof.cmodule import GCC_compiler

from model.system.errors import UserError
from model.system.files import publish

_SOURCE = Path(__file__).with_name("native.cpp")
_DTYPES = {"float32": "float", "float64": "double"}


@functools.cache
def _load() -> tuple[ctypes.CDLL | None, str | None]:
    """The library and None, or None and the reason why there is none.

    It is kept in Theano's compile cache, under a name that depends on the source, the compiler
    and the processor.
    """
    compiler = theano.config.cxx
    if not compiler:
        return None, "Theano found no C++ compiler"
    # What Theano found -march=native to mean here.
    processor = [flag for flag in GCC_compiler.compile_args() if flag.startswith("-m")]
    command = [compiler, "-std=c++17", "-O3", "-shared", "-fPIC", *processor]
    failure = ""
    for options in (["-fopenmp"], []):
        digest = hashlib.sha256("\0".join([*command, *options]).encode()
                                + _SOURCE.read_bytes()).hexdigest()
        library = Path(theano.config.compiledir) / f"native-{digest[:16]}.so"
        try:
            if not library.exists():
                with publish(library) as temporary:
                    subprocess.run([*command, *options, str(_SOURCE), "-o", str(temporary)],
                                   check=True, capture_output=True, text=True)
            return ctypes.CDLL(str(library)), None
        except subprocess.CalledProcessError as error:
            failure = error.stderr.strip()
        except (OSError, UserError) as error:
            failure = str(error)
    return None, f"{compiler} could not compile {_SOURCE.name}: {failure[:500]}"


def available() -> str | None:
    """Why the compiled library cannot be used on this machine, or None if it can.

    The first call compiles the library if the compile cache does not hold it.
    """
    return _load()[1]


def call(name: str, dtype: str, *arguments) -> None:
    """Call a function of the library.

    Parameters
    ----------
    name : str
        Name of the function without its type.
    dtype : {"float32", "float64"}
        Type of all arrays of numbers.
    *arguments : int, numpy array, list of numpy arrays or None
        Arrays must be C-contiguous; a list becomes an array of pointers.

    Raises
    ------
    RuntimeError
        When the library cannot be compiled here.
    MemoryError
        When there is no memory for the function's work space.
    """
    library, reason = _load()
    if library is None:
        raise RuntimeError(reason)

    def converted(argument):
        if argument is None:
            return ctypes.c_void_p()
        if isinstance(argument, int):
            return ctypes.c_long(argument)
        if isinstance(argument, list):
            return (ctypes.c_void_p * len(argument))(*(array.ctypes.data for array in argument))
        return ctypes.c_void_p(argument.ctypes.data)

    if library[f"{name}_{_DTYPES[dtype]}"](*map(converted, arguments)):
        raise MemoryError(f"no memory for the work space of {name}")


class _Buffers:
    """Memory for large results, kept from call to call.

    A fresh array of many megabytes costs a page fault for each of its pages. Here an array's
    memory is used again once nothing refers to the array any more.
    """

    def __init__(self):
        self._blocks = [np.empty(0, np.uint8)]
        # What a block counts when only this list refers to it.
        self._free = sys.getrefcount(self._blocks[0])

    def take(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """An array of undefined content, aligned to cache lines."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        free = [index for index in range(len(self._blocks))
                if sys.getrefcount(self._blocks[index]) == self._free]
        free.sort(key=lambda index: self._blocks[index].size)
        fitting = [index for index in free if self._blocks[index].size >= size + 64]
        if fitting:
            index = fitting[0]
        else:
            # Grow the largest that is too small, so that the number of blocks stays the number
            # of arrays in use at once.
            index = free[-1] if free else len(self._blocks)
            self._blocks[index:index + 1] = [np.empty(0, np.uint8)]
            self._blocks[index] = np.empty(size + 64, np.uint8)
        block = self._blocks[index]
        start = -block.ctypes.data % 64
        return block[start:start + size].view(dtype).reshape(shape)


buffers = _Buffers()


def check_indices(indices: np.ndarray, count: int, name: str) -> None:
    """Look at indices before the library uses them, for it does not.

    Parameters
    ----------
    indices : integer array of any shape
    count : int
        What they must be below.
    name : str
        What the error calls them.

    Raises
    ------
    IndexError
        When one is negative, or not below the count.
    """
    if indices.size and not 0 <= indices.min() <= indices.max() < count:
        raise IndexError(f"{name} must be from 0 to {count - 1}, but are from {indices.min()} "
                         f"to {indices.max()}")


class WeightsGradient(theano.Op):
    """Base of Ops that compute gradients for weights and can add them to accumulators.

    The node's inputs are the accumulators named by `accumulated`, then what `add_gradients`
    takes; its outputs are the gradients for all weights, each with its accumulator added if it
    has one.

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

    def add_gradients(self, inputs: list, gradients: list) -> None:
        """Add the gradients for the weights, computed from arrays, to arrays in place.

        Parameters
        ----------
        inputs : list of array
            Values of the node's inputs, without the accumulators.
        gradients : list of array
            What to add to, of the weights' shapes.
        """
        raise NotImplementedError

    def make_node(self, *inputs):
        inputs = [theano.tensor.as_tensor_variable(variable) for variable in inputs]
        types = [weight.type for weight in self.weights(inputs[len(self.accumulated):])]
        for accumulator, output in zip(inputs, self.accumulated):
            if accumulator.type != types[output]:
                raise TypeError(f"the accumulator {accumulator} is of type {accumulator.type}, "
                                f"its gradient is of type {types[output]}")
        return theano.Apply(self, inputs, [type() for type in types])

    def infer_shape(self, node, shapes):
        return self.weights(shapes[len(self.accumulated):])

    def perform(self, node, inputs, output_storage):
        count = len(self.accumulated)
        accumulators, inputs = inputs[:count], inputs[count:]
        given = dict(zip(self.accumulated, accumulators))
        gradients = [
            np.zeros_like(weight, order="C") if n not in given
            else np.ascontiguousarray(given[n]) if self.in_place
            else given[n].copy(order="C")
            for n, weight in enumerate(self.weights(inputs))]
        self.add_gradients(inputs, gradients)
        for storage, gradient in zip(output_storage, gradients):
            storage[0] = gradient


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
