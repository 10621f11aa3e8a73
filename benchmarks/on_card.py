"""What the processes of the card's section time: a training, PyTorch's LSTM, products alone.

PyTorch is imported here: only where it is to be timed.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import Protocol

from model import engine  # noqa: F401  isort: skip

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.extent import Shape
from benchmarks.machine import driver
from benchmarks.micro_batches import micro_batch
from benchmarks.sgemm import Product, products
from benchmarks.torch_lstm import TorchLSTM, settings
from model.configuration import PRECISIONS, NetworkConfig, TrainingConfig
from model.engine import open_device
from model.system.errors import BadInput, UserError
from model.trainer import Trainer

_TIMES = 3  # of what is done once in a window, in each turn


def describe(device: str) -> dict:
    """A device that is there, by its name and versions, and the precisions that it has."""
    facts = open_device(device).facts()
    precisions = []
    for precision in PRECISIONS:
        try:
            open_device(device, precision)
        except BadInput:
            continue
        precisions.append(precision)
    try:
        import triton
    except ImportError:
        triton = None
    return {"device": facts["device"], "precisions": precisions, "versions": {
        "driver": driver(), "PyTorch": torch.__version__,
        "CUDA": torch.version.cuda or torch.version.hip or "none",
        "cuDNN": torch.backends.cudnn.version() or "none",
        "Triton": triton.__version__ if triton else "none"}}


class Contender(Protocol):
    """Adds up gradients and losses, micro-batch by micro-batch."""

    def accumulate(self) -> None:
        """Queue a micro-batch."""

    def loss(self) -> float:
        """Wait for all micro-batches; the sum of their losses since the last update."""


class Training:
    """A training of the project, without dropout, with Adam.

    Parameters
    ----------
    shape : Shape
    device : {"torch-cpu", "cuda", "cuda:N"}
    precision : {"single", "tf32", "bf16"}
    """

    def __init__(self, shape: Shape, device: str, precision: str):
        config = TrainingConfig(
            optimiser="adam", rate=0.004, window=shape.sentences, denominator="sentences",
            micro_batch_sentences=shape.sentences, micro_batch_tokens=shape.tokens, max_epochs=1,
            max_minutes=0, cooldown=0, validations_per_epoch=1, patience=1, shards_in_memory=1,
            seed=1, precision=precision)
        self._inputs, self._targets = micro_batch(shape)
        self._trainer = Trainer(NetworkConfig(shape.units), config, shape.vocabulary,
                                open_device(device, precision))
        self._rate = config.rate

    def accumulate(self) -> None:
        self._trainer.accumulate(self._inputs, self._targets, update=0, sentence=0)

    def loss(self) -> float:
        return self._trainer.loss()

    def apply(self) -> None:
        """Update the parameters, and wait until it is done; not without a micro-batch before."""
        self._trainer.apply(self._rate)


class Timing:
    """Timings of a contender.

    Parameters
    ----------
    task : {"training", "torch-one-hot", "torch-embedding"}
    shape : Shape
    device : {"torch-cpu", "cuda", "cuda:N"}
    precision : {"single", "tf32", "bf16"}
    window : int
        Micro-batches that are queued before the loss is asked for.
    """

    def __init__(self, task: str, shape: Shape, device: str, precision: str, window: int):
        self._device, _ = settings(device, precision)
        self._contender: Contender = (Training(shape, device, precision) if task == "training"
                                      else TorchLSTM(task, shape, device, precision))
        self._shape, self._window = shape, window

    def start(self) -> dict:
        """Do everything once: the loss of a token, and peaks of a card's memory in MB.

        Raises
        ------
        UserError
            When the loss is not finite.
        """
        contender = self._contender
        contender.accumulate()
        loss = contender.loss() / self._shape.tokens
        if not math.isfinite(loss):
            raise UserError(f"the loss is {loss}")
        told = {"loss": loss, "peak_memory_mb": self._peak(self._pass)}
        if isinstance(contender, Training):
            contender.apply()  # what the optimiser keeps comes onto the card
            contender.accumulate()
            told["peak_memory_of_apply_mb"] = self._peak(contender.apply)
        return told

    def turn(self, seconds: float) -> dict:
        """Seconds of a micro-batch: of many in windows, and of single ones when nothing is queued.

        Parameters
        ----------
        seconds : float
            Windows are repeated for at least so long.

        Returns
        -------
        dict
            ``seconds`` of a micro-batch in windows. Of single ones ``queued_seconds`` until the
            call comes back, and ``done_seconds`` until the device is done: lists. Of a training
            ``apply_seconds`` too.
        """
        contender = self._contender
        contender.accumulate()
        contender.loss()
        started, windows = time.perf_counter(), 0
        while True:
            self._pass()
            windows += 1
            elapsed = time.perf_counter() - started
            if elapsed >= seconds:
                break
        told: dict = {"seconds": elapsed / windows / self._window,
                      "queued_seconds": [], "done_seconds": []}
        for _ in range(_TIMES):
            started = time.perf_counter()
            contender.accumulate()
            told["queued_seconds"].append(time.perf_counter() - started)
            contender.loss()
            told["done_seconds"].append(time.perf_counter() - started)
        if isinstance(contender, Training):
            told["apply_seconds"] = []
            for _ in range(_TIMES):
                contender.accumulate()
                contender.loss()
                started = time.perf_counter()
                contender.apply()
                told["apply_seconds"].append(time.perf_counter() - started)
        return told

    def end(self) -> dict:
        """What would disturb the timings: kernels and copies that a micro-batch starts on a card.

        None on the processor, and where the card lets nobody count.
        """
        if self._device.type == "cpu":
            return {"kernels": None}
        try:
            with profile(activities=[ProfilerActivity.CUDA]) as profiler:
                self._contender.accumulate()
                self._contender.loss()
        except RuntimeError as error:  # drivers may keep their counters from users
            print(f"kernels are not counted: {error}", file=sys.stderr)
            return {"kernels": None}
        count = sum(event.device_type == DeviceType.CUDA for event in profiler.events())
        return {"kernels": count or None}

    def _pass(self) -> None:
        for _ in range(self._window):
            self._contender.accumulate()
        self._contender.loss()

    def _peak(self, action: Callable[[], None]) -> float | None:
        if self._device.type == "cpu":
            return None
        torch.cuda.reset_peak_memory_stats(self._device)
        action()
        return torch.cuda.max_memory_allocated(self._device) / 2**20


class Products:
    """The products that a step needs, alone, on a device.

    Parameters
    ----------
    shape : Shape
    device : {"torch-cpu", "cuda", "cuda:N"}
    precision : {"single", "tf32", "bf16"}
        In ``bf16`` factors and results are of that type.
    """

    def __init__(self, shape: Shape, device: str, precision: str):
        self._device, self._dtype = settings(device, precision)
        self._products = products(shape)

    def rates(self, seconds: float) -> dict[str, float]:
        """Operations per second by the product's name; all together take at least so long."""
        return {product.name: self._rate(product, seconds / len(self._products))
                for product in self._products}

    def _rate(self, product: Product, seconds: float) -> float:
        left, right, result = self._matrices(product)
        torch.mm(left, right, out=result)
        count = 1
        while True:
            self._wait()
            started = time.perf_counter()
            for _ in range(count):
                torch.mm(left, right, out=result)
            self._wait()
            elapsed = time.perf_counter() - started
            if elapsed >= seconds:
                return 2 * product.rows * product.inner * product.columns * count / elapsed
            count *= 2

    def _matrices(self, product: Product) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        def matrix(rows: int, columns: int, transposed: bool = False) -> torch.Tensor:
            if transposed:
                return matrix(columns, rows).T
            return torch.randn(rows, columns, dtype=self._dtype, device=self._device)

        return (matrix(product.rows, product.inner, product.transposed == "left"),
                matrix(product.inner, product.columns, product.transposed == "right"),
                matrix(product.rows, product.columns))

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
