"""The table of the operations that can be carried out on PyTorch's tensors.

An operation of Theano is added by a function that takes its node in the graph and the `Context`,
and returns the function that is called each time: from the tensors of the node's inputs to a list
of those of its outputs::

    @operation(theano.tensor.basic.Dot)
    def _dot(node, context):
        return lambda a, b: [context.product(a, b)]

What it returns must be memory of its own, unless the Op's ``view_map`` says otherwise; it may write
into an input where the Op's ``destroy_map`` says so. Integer scalars are tensors on the processor,
as shapes and indices need them there; PyTorch takes them beside tensors of any device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from model.system.errors import UserError

DTYPES = {name: getattr(torch, name) for name in (
    "bool", "int8", "uint8", "int16", "int32", "int64", "float32", "float64")}


@dataclass(frozen=True)
class Context:
    """Where and how precisely to compute.

    Parameters
    ----------
    device : torch.device
    precision : {"single", "tf32", "bf16"}
        Of products; sums and all else are in the type of the parameters.
    pinned : bool
        Whether what is copied to the device goes through pinned memory, from which a copy does not
        make the processor wait for the card.
    shared : dict
        What several nodes of one graph have in common; each graph has its own.
    """

    device: torch.device
    precision: str = "single"
    pinned: bool = False
    shared: dict = field(default_factory=dict)

    def tensor(self, value) -> torch.Tensor:
        """A tensor of what a function is given, or a shared variable is set to."""
        value = np.asarray(value)
        found = torch.from_numpy(np.require(value, requirements=["C", "W"]))
        if value.ndim == 0 and value.dtype.kind in "iub":
            return found
        if self.device.type == "cpu":
            return found
        return (found.pin_memory() if self.pinned else found).to(self.device, non_blocking=True)

    def operand(self, factor: torch.Tensor) -> torch.Tensor:
        """A factor of a product, rounded as the precision has it."""
        return factor.to(torch.bfloat16) if self.precision == "bf16" else factor

    def product(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Matrix product of what `operand` gave, or of what it is given first."""
        a, b = self.operand(a), self.operand(b)
        if self.precision != "bf16":
            return a @ b
        if a.is_cuda:
            return torch.mm(a, b, out_dtype=torch.float32)
        return a.float() @ b.float()

    def add_product(self, to: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Add a matrix product in place."""
        if self.precision != "bf16":
            return to.addmm_(a, b)
        return to.add_(self.product(a, b))


class _Table:
    """By the type of an Op: what makes the function for a node."""

    def __init__(self) -> None:
        self._makers: dict[type, Callable] = {}

    def add(self, *types: type) -> Callable[[Callable], Callable]:
        """Decorate what makes the function for nodes of these Ops."""
        def register(maker: Callable) -> Callable:
            self._makers.update(dict.fromkeys(types, maker))
            return maker

        return register

    def names(self) -> list[str]:
        """The names of all Ops that are there."""
        return [each.__name__ for each in self._makers]

    def get(self, node) -> Callable:
        """What makes the function for a node.

        Raises
        ------
        UnknownOperation
            When the Op is not in the table.
        """
        try:
            return self._makers[type(node.op)]
        except KeyError:
            raise UnknownOperation(node.op) from None


class UnknownOperation(UserError):
    """A graph needs an operation that is not in the table."""

    def __init__(self, op):
        super().__init__(f"the operation {type(op).__name__} ({op}) of Theano is not among those "
                         "that PyTorch carries out here; docs/device.md says how one is added. "
                         "With device = cpu Theano's own code does it")


OPERATIONS = _Table()
operation = OPERATIONS.add
