"""The compiled library behind the Ops of the LSTM and softmax layers: `source/native.cpp`."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import theano
from theano.gof.cmodule import GCC_compiler

from model.system.errors import UserError
from model.system.files import publish

_SOURCE = Path(__file__).parent / "source" / "native.cpp"
_DTYPES = {"float32": "float", "float64": "double"}


@functools.cache
def _load() -> tuple[ctypes.CDLL | None, str | None]:
    """The library and None, or None and the reason why there is none."""
    compiler = theano.config.cxx
    if not compiler:
        return None, "Theano found no C++ compiler"
    failure = ""
    for options in (["-fopenmp"], []):
        try:
            return compile_library(*options), None
        except subprocess.CalledProcessError as error:
            failure = error.stderr.strip()
        except (OSError, UserError) as error:
            failure = str(error)
    return None, f"{compiler} could not compile {_SOURCE.name}: {failure[:500]}"


def compile_library(*options: str) -> ctypes.CDLL:
    """Compile the library for this processor, unless it is there, and load it.

    It is kept in Theano's compile cache, under a name that depends on the source, the compiler,
    the options and the processor.

    Parameters
    ----------
    *options : str
        For the compiler, after what Theano found ``-march=native`` to mean here.

    Raises
    ------
    subprocess.CalledProcessError
        When the compiler refuses; its standard error is text.
    OSError
        When the library cannot be loaded.
    UserError
        When it cannot be kept.
    """
    processor = [flag for flag in GCC_compiler.compile_args() if flag.startswith("-m")]
    command = [theano.config.cxx, "-std=c++17", "-O3", "-shared", "-fPIC", *processor, *options]
    digest = hashlib.sha256("\0".join(command).encode())
    for file in sorted(_SOURCE.parent.iterdir()):
        digest.update(file.read_bytes())
    library = Path(theano.config.compiledir) / f"native-{digest.hexdigest()[:16]}.so"
    if not library.exists():
        with publish(library) as temporary:
            subprocess.run([*command, str(_SOURCE), "-o", str(temporary)],
                           check=True, capture_output=True, text=True)
    return ctypes.CDLL(str(library))


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
