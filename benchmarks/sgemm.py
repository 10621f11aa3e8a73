"""The rate of single-precision matrix products alone: what training is measured against."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.extent import Shape

# Importing it sets Theano up, which takes no part in what is timed.
from model.engine import load_openblas
from model.system.errors import UserError

_ROW_MAJOR, _AS_IT_IS, _TRANSPOSED = 101, 111, 112  # the values of the C interface of BLAS


@dataclass(frozen=True)
class Product:
    """A product (rows, inner) x (inner, columns) that training needs.

    Parameters
    ----------
    name : str
    rows, inner, columns : int
    transposed : {"", "left", "right"}
        The factor that lies transposed in memory.
    operations : int
        What a token needs of it.
    """

    name: str
    rows: int
    inner: int
    columns: int
    transposed: str
    operations: int


def products(shape: Shape) -> list[Product]:
    """All products of a training step: three for each layer, those of the forward pass first."""
    units, gates, words = shape.units, 4 * shape.units, shape.vocabulary
    recurrent, softmax = shape.recurrent_operations // 3, shape.softmax_operations // 3
    return [
        Product("recurrent forward", shape.sentences, units, gates, "", recurrent),
        Product("softmax forward", shape.tokens, units, words, "", softmax),
        Product("recurrent backward", shape.sentences, gates, units, "right", recurrent),
        Product("recurrent weights", units, shape.tokens, gates, "left", recurrent),
        Product("softmax backward", shape.tokens, words, units, "right", softmax),
        Product("softmax weights", units, shape.tokens, words, "left", softmax),
    ]


FORWARD = 2  # so many of the products are those of the forward pass


def combined_rate(shape: Shape, rates: dict[str, float], count: int | None = None) -> float:
    """The rate of several products one after the other, each as often as training needs it.

    Parameters
    ----------
    shape : Shape
    rates : dict
        Operations per second by the product's name.
    count : int or None
        How many of `products` are taken; None for all.

    Returns
    -------
    float
        Operations per second.
    """
    chosen = products(shape)[:count]
    seconds = sum(product.operations / rates[product.name] for product in chosen)
    return sum(product.operations for product in chosen) / seconds


class OpenBLAS:
    """The sgemm that Theano's compiled code calls, called without Theano."""

    def __init__(self):
        library = load_openblas()
        if library is None:
            raise UserError("the package scipy-openblas32 is missing; 'make setup' installs it")
        self._library = library
        integer, real, pointer = ctypes.c_int, ctypes.c_float, ctypes.c_void_p
        self._sgemm = self.routine("sgemm", *[integer] * 6, real, pointer, integer, pointer,
                                   integer, real, pointer, integer)

    def routine(self, name: str, *types: type) -> Callable[..., None]:
        """A routine of its C interface, with the types of what it takes."""
        found = self._library[f"scipy_cblas_{name}"]
        found.argtypes = types
        return found

    def description(self) -> str:
        """Version, the processor whose kernels it has chosen, and threads in use."""
        texts = []
        for name in ("config", "corename"):
            describe = self._library[f"scipy_openblas_get_{name}"]
            describe.restype = ctypes.c_char_p
            texts.append(describe().decode())
        version = " ".join(texts[0].split()[:2])  # what follows is the processor of its makers
        return (f"{version}, kernels for {texts[1]}, "
                f"{self._library.scipy_openblas_get_num_threads()} threads")

    def rate(self, product: Product, seconds: float) -> float:
        """Operations per second of one product, repeated for at least so many seconds."""
        call = self._call(product)
        call()  # pages, caches and threads are warm from here on
        started, count = time.perf_counter(), 0
        while True:
            call()
            count += 1
            elapsed = time.perf_counter() - started
            if elapsed >= seconds:
                return 2 * product.rows * product.inner * product.columns * count / elapsed

    def _call(self, product: Product) -> Callable[[], None]:
        random = np.random.default_rng(1)
        left, right = (product.rows, product.inner), (product.inner, product.columns)
        left_order = right_order = _AS_IT_IS
        if product.transposed == "left":
            left, left_order = left[::-1], _TRANSPOSED
        elif product.transposed == "right":
            right, right_order = right[::-1], _TRANSPOSED
        a, b = (random.standard_normal(size, dtype=np.float32) for size in (left, right))
        result = np.empty((product.rows, product.columns), np.float32)

        def call() -> None:
            self._sgemm(_ROW_MAJOR, left_order, right_order, product.rows, product.columns,
                        product.inner, 1.0, a.ctypes.data, left[1], b.ctypes.data, right[1], 0.0,
                        result.ctypes.data, product.columns)

        return call
