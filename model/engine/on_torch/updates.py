"""The update of a parameter on PyTorch's tensors: see `operations` and `model.engine.update_op`."""

from __future__ import annotations

import torch

from model.engine.on_torch.operations import operation
from model.engine.on_torch.theano_operations import scalar_function
from model.engine.update_op import ElementwiseUpdate, SumOfSquares

# Numbers of a parameter that are updated at a time: what is computed on the way is no larger.
PIECE = 1 << 22


@operation(SumOfSquares)
def _sum_of_squares(node, context):
    return lambda array: [_squares(array)]


@operation(ElementwiseUpdate)
def _elementwise_update(node, context):
    op, rule = node.op, scalar_function(node.op.rule)

    def run(*values):
        arrays, scalars = list(values[:op.arrays]), values[op.arrays:]
        if any(array.shape != arrays[0].shape for array in arrays):
            raise ValueError("the arrays of an update are not of one shape")
        if not op.in_place:
            arrays = [array.clone() for array in arrays]
        squares = _squares(arrays[0])
        for pieces in zip(*(array.view(-1).split(PIECE) for array in arrays)):
            for piece, result in zip(pieces[1:], rule(*pieces, *scalars)):
                # As copy_, which asks for a card where tests have only its shapes.
                torch.mul(result, 1, out=piece)
        arrays[0].zero_()
        return [*arrays, squares]

    return run


def _squares(array: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm(array, dtype=torch.float64).square()
