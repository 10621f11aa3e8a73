"""Where functions are computed: by Theano's compiled code, or on PyTorch's tensors.

=============  ====================================================================================
``cpu``        Theano's compiled code and the project's, on the processor
``cuda``       PyTorch, on the first graphics card; ``cuda:1`` on the second, and so on
``torch-cpu``  PyTorch, on the processor: what a card would do, to be tried without one
=============  ====================================================================================
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import theano

from model.engine.native import available
from model.system.errors import BadInput, UserError

# What PyTorch, its libraries and the card's driver take beside all tensors.
_BYTES_OF_LIBRARIES = 800 << 20


class Device:
    """Theano's own compiled code, on the processor.

    Parameters
    ----------
    name : str
    precision : str
    """

    def __init__(self, name: str = "cpu", precision: str = "single"):
        self.name = name
        self.precision = precision

    def recurrence(self, asked: str) -> str:
        """How a recurrence is computed: as asked, or by Theano's loop where the Op cannot be.

        Parameters
        ----------
        asked : {"fused", "scan"}
        """
        if asked == "fused" and (reason := available()) is not None:
            warnings.warn(f"training takes Theano's slower loop, because {reason}", stacklevel=2)
            return "scan"
        return asked

    def function(self, inputs: list, outputs=None, **options) -> Callable:
        """Compile a function, as `theano.function`; its results are numpy arrays."""
        return theano.function(inputs, outputs, **options)

    def value(self, variable) -> np.ndarray:
        """What a shared variable of such functions holds; no copy where there need be none."""
        return variable.get_value(borrow=True)

    def take(self, variable):
        """What a shared variable holds, where it is computed; zeros come in its place."""
        storage = variable.container.storage
        taken, storage[0] = storage[0], self._zeros_like(storage[0])
        return taken

    def _zeros_like(self, value):
        return np.zeros_like(value)

    def add(self, variable, value) -> None:
        """Add to a shared variable what was taken of it."""
        variable.container.storage[0] += value

    def facts(self) -> dict:
        """What the figures of a training say of the device; peak memory in bytes, of a card."""
        return {"device": self.name, "precision": self.precision, "peak_device_memory": None}

    def check_memory(self, needed: int) -> None:
        """Raise UserError where so many bytes are more than a card has free."""


class _TorchDevice(Device):
    """PyTorch's tensors, on the processor or on a card."""

    def __init__(self, name: str, precision: str):
        super().__init__(name, precision)
        # A sum is to be the same each time; cuBLAS reads it when it starts.
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        try:
            import torch
        except ImportError as error:
            raise UserError(f"device = {name} needs PyTorch, which is not installed here "
                            f"({error}): 'make run DEVICE={name}' installs it") from None
        from model.engine import on_torch

        self._torch, self._on_torch = torch, on_torch
        if name == "torch-cpu":
            device = torch.device("cpu")
        else:
            device = torch.device("cuda", int(name.partition(":")[2] or 0))
            self._check_card(device.index)
        torch.use_deterministic_algorithms(True)
        deterministic: Any = torch.utils.deterministic
        deterministic.fill_uninitialized_memory = False  # all of ours is written before it is read
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        self._device = device
        self._context = on_torch.Context(device, precision, pinned=device.type != "cpu")

    def _check_card(self, number: int) -> None:
        torch = self._torch
        if torch.version.cuda is None and torch.version.hip is None:
            raise UserError(f"device = {self.name}: PyTorch {torch.__version__} here is the build "
                            "for the processor alone; docs/device.md says how to install the other")
        if not torch.cuda.is_available():
            reason = "there is no graphics card, or no driver for it"
            try:
                torch.cuda.init()
            except (RuntimeError, AssertionError) as error:
                reason = str(error).splitlines()[0]
            raise UserError(f"device = {self.name}: PyTorch {torch.__version__} finds no card that "
                            f"it can use: {reason}")
        if number >= (count := torch.cuda.device_count()):
            raise UserError(f"device = {self.name}: there are {count} cards here, counted from 0: "
                            + ", ".join(torch.cuda.get_device_name(n) for n in range(count)))
        if self.precision == "tf32" and torch.cuda.get_device_capability(number) < (8, 0):
            raise BadInput(f"precision = tf32: {torch.cuda.get_device_name(number)} has no such "
                           "products; take single")

    def recurrence(self, asked: str) -> str:
        return asked  # no compiler is needed

    def function(self, inputs: list, outputs=None, **options) -> Callable:
        return theano.function(inputs, outputs, mode=self._on_torch.mode(self._context), **options)

    def value(self, variable) -> np.ndarray:
        return self._on_torch.to_array(variable.get_value(borrow=True))

    def _zeros_like(self, value):
        is_tensor = isinstance(value, self._torch.Tensor)  # from the first call of a function on
        return self._torch.zeros_like(value) if is_tensor else super()._zeros_like(value)

    def facts(self) -> dict:
        if self._device.type == "cpu":
            return super().facts()
        cuda = self._torch.cuda
        return {"device": f"{self.name}, {cuda.get_device_name(self._device)}",
                "precision": self.precision,
                "peak_device_memory": cuda.max_memory_allocated(self._device)}

    def check_memory(self, needed: int) -> None:
        if self._device.type == "cpu":
            return
        free, total = self._torch.cuda.mem_get_info(self._device)
        needed += _BYTES_OF_LIBRARIES
        if free < needed:
            raise UserError(
                f"device = {self.name}: {self._torch.cuda.get_device_name(self._device)} has "
                f"{free / 1e9:.1f} GB of {total / 1e9:.1f} GB free, and this training needs about "
                f"{needed / 1e9:.1f} GB. Take another card, end what else runs there (nvidia-smi "
                "shows it), or lower [training] micro_batch_tokens or [network] num_units")


PROCESSOR = Device()


def count_cards() -> int:
    """How many graphics cards PyTorch finds here; 0 without it."""
    try:
        import torch
    except ImportError:
        return 0
    return torch.cuda.device_count()


def open_device(name: str, precision: str = "single") -> Device:
    """A device by its name.

    Parameters
    ----------
    name : {"cpu", "torch-cpu", "cuda", "cuda:N"}
    precision : {"single", "tf32", "bf16"}
        Of matrix products. ``tf32`` and ``bf16`` round their factors to 10 and 7 bits after the
        point, and add in single precision.

    Returns
    -------
    Device

    Raises
    ------
    UserError
        When there is no such device here, or PyTorch is not installed, in one line.
    """
    if precision == "tf32" and not name.startswith("cuda"):
        raise BadInput(f"[training] precision = tf32 needs a card; device = {name}")
    if name == "cpu":
        if precision != "single":
            raise BadInput(f"[training] precision = {precision} needs a card; device = {name}")
        return PROCESSOR
    return _TorchDevice(name, precision)
