"""Theano's graphs carried out on PyTorch's tensors; imported only where a device asks for it."""

from model.engine.on_torch import (  # noqa: F401  fill the table
    layers,
    scan,
    theano_operations,
    updates,
)
from model.engine.on_torch.linker import mode, to_array
from model.engine.on_torch.operations import Context

__all__ = ["Context", "mode", "to_array"]
