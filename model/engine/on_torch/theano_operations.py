"""Theano's own operations on PyTorch's tensors: see `operations`."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable

import theano.scalar as scalar
import torch
from theano.compile.ops import DeepCopyOp, Rebroadcast, Shape, Shape_i, SpecifyShape, ViewOp
from theano.scalar.basic_scipy import Erf, Erfc
from theano.tensor import basic, elemwise, nnet, subtensor
from theano.tensor.nnet.sigm import ScalarSigmoid, ScalarSoftplus
from theano.tensor.opt import Assert, MakeVector

from model.engine.on_torch.operations import (
    DTYPES,
    UnknownOperation,
    operation,
)


def _fold(function: Callable) -> Callable:
    return lambda *values: functools.reduce(function, values)


def _divided(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.div(a, b, rounding_mode="floor")


def _number(value: torch.Tensor) -> torch.Tensor:
    """PyTorch does not subtract truth values."""
    return value.to(torch.int8) if value.dtype == torch.bool else value


# Of numbers, elementwise.
SCALARS: dict[type, Callable] = {
    scalar.Add: _fold(operator.add),
    scalar.Sub: lambda a, b: _number(a) - _number(b),
    scalar.Mul: _fold(operator.mul),
    scalar.TrueDiv: operator.truediv,
    scalar.IntDiv: _divided,
    scalar.Mod: torch.remainder,
    scalar.Pow: torch.pow,
    scalar.Neg: lambda value: -_number(value),
    scalar.Abs: torch.abs,
    scalar.Sgn: torch.sign,
    scalar.Inv: torch.reciprocal,
    scalar.Sqr: torch.square,
    scalar.Sqrt: torch.sqrt,
    scalar.Exp: torch.exp,
    scalar.Expm1: torch.expm1,
    scalar.Log: torch.log,
    scalar.Log2: torch.log2,
    scalar.Log10: torch.log10,
    scalar.Log1p: torch.log1p,
    scalar.Sin: torch.sin,
    scalar.Cos: torch.cos,
    scalar.Tanh: torch.tanh,
    scalar.ArcTanh: torch.atanh,
    scalar.Sinh: torch.sinh,
    scalar.Cosh: torch.cosh,
    scalar.Floor: torch.floor,
    scalar.Ceil: torch.ceil,
    scalar.RoundHalfToEven: torch.round,
    scalar.Maximum: _fold(torch.maximum),
    scalar.Minimum: _fold(torch.minimum),
    scalar.Clip: torch.clamp,
    scalar.LT: operator.lt,
    scalar.GT: operator.gt,
    scalar.LE: operator.le,
    scalar.GE: operator.ge,
    scalar.EQ: operator.eq,
    scalar.NEQ: operator.ne,
    scalar.IsNan: torch.isnan,
    scalar.IsInf: torch.isinf,
    scalar.AND: _fold(torch.bitwise_and),
    scalar.OR: _fold(torch.bitwise_or),
    scalar.XOR: _fold(torch.bitwise_xor),
    scalar.Invert: torch.bitwise_not,
    scalar.Switch: lambda condition, a, b: torch.where(condition.to(torch.bool), a, b),
    scalar.Identity: lambda value: value,
    scalar.Second: lambda like, value: torch.broadcast_tensors(like, value)[1],
    Erf: torch.erf,
    Erfc: torch.erfc,
    ScalarSigmoid: torch.sigmoid,
    ScalarSoftplus: lambda value: torch.logaddexp(value, torch.zeros_like(value)),
}


def scalar_function(op) -> Callable:
    """The function of tensors for an operation on numbers."""
    if isinstance(op, scalar.Composite):
        return _composite(op)
    if isinstance(op, scalar.Cast):
        dtype = DTYPES[op.o_type.dtype]
        return lambda value: value.to(dtype)
    try:
        return SCALARS[type(op)]
    except KeyError:
        raise UnknownOperation(op) from None


def _composite(op: scalar.Composite) -> Callable:
    graph = op.fgraph
    steps = [(scalar_function(node.op), node.inputs, node.outputs[0]) for node in graph.toposort()]

    def run(*values):
        known = dict(zip(graph.inputs, values))

        def value(variable):
            if variable not in known:
                known[variable] = torch.as_tensor(variable.data)
            return known[variable]

        for function, inputs, output in steps:
            known[output] = function(*map(value, inputs))
        return tuple(map(value, graph.outputs))

    return run


# What may give back one of its arguments as it is, or not in the shape of all together.
_NOT_NEW = (scalar.Composite, scalar.Cast, scalar.Identity, scalar.Second)


@operation(elemwise.Elemwise)
def _elemwise(node, context):
    function = scalar_function(node.op.scalar_op)
    dtypes = [DTYPES[output.dtype] for output in node.outputs]
    dtype = dtypes[0]

    def run_new(*values):
        result = function(*values)
        return [result if result.dtype is dtype else result.to(dtype)]

    def run(*values):
        results = function(*values)
        shape = torch.broadcast_shapes(*(value.shape for value in values))
        return [result.to(dtype).expand(shape).clone(memory_format=torch.contiguous_format)
                for result, dtype in zip(results if isinstance(results, tuple) else (results,),
                                         dtypes)]

    return run if isinstance(node.op.scalar_op, _NOT_NEW) else run_new


@operation(elemwise.DimShuffle)
def _dim_shuffle(node, context):
    order, ndim = node.op.new_order, node.inputs[0].ndim
    kept = [axis for axis in order if axis != "x"]
    dropped = [axis for axis in range(ndim) if axis not in kept]
    added = [place for place, axis in enumerate(order) if axis == "x"]

    def run(value):
        value = value.permute(kept + dropped)
        value = value.reshape(value.shape[:len(kept)])
        for place in added:
            value = value.unsqueeze(place)
        return [value]

    return run


def _reduction(function: Callable) -> Callable:
    """What makes the function of a reduction over some axes, or all."""
    def make(node, context):
        axes = node.op.axis
        axes = tuple(range(node.inputs[0].ndim)) if axes is None else tuple(axes)
        dtype = DTYPES[node.outputs[0].dtype]
        return lambda value: [function(value, axes, dtype)]

    return make


def _product(value, axes, dtype):
    for axis in sorted(axes, reverse=True):
        value = value.prod(dim=axis, dtype=dtype)
    return value


def _sum(value, axes, dtype):
    return value.sum(dim=axes, dtype=dtype) if axes else value.to(dtype, copy=True)


operation(elemwise.Sum)(_reduction(_sum))
operation(elemwise.Prod)(_reduction(_product))
operation(elemwise.All)(_reduction(
    lambda value, axes, dtype: functools.reduce(lambda v, axis: v.all(dim=axis),
                                                sorted(axes, reverse=True), value)))
operation(elemwise.Any)(_reduction(
    lambda value, axes, dtype: functools.reduce(lambda v, axis: v.any(dim=axis),
                                                sorted(axes, reverse=True), value)))


@operation(elemwise.CAReduce)
def _maximum_or_minimum(node, context):
    functions = {scalar.Maximum: torch.amax, scalar.Minimum: torch.amin}
    try:
        function = functions[type(node.op.scalar_op)]
    except KeyError:
        raise UnknownOperation(node.op) from None
    return _reduction(lambda value, axes, dtype: function(value, dim=axes))(node, context)


@operation(basic.MaxAndArgmax)
def _max_and_argmax(node, context):
    axes = node.op.axis
    if len(axes) != 1:
        raise UnknownOperation(node.op)
    return lambda value: list(torch.max(value, dim=axes[0]))


@operation(basic.Argmax)
def _argmax(node, context):
    axes = node.op.axis
    axis = None if axes is None else axes[0]
    return lambda value: [torch.argmax(value, dim=axis)]


def _sizes(values) -> list[int]:
    return [int(value) for value in values]


@operation(basic.Alloc)
def _alloc(node, context):
    def run(value, *shape):
        if value.device.type != context.device.type:  # an integer scalar
            return [torch.full(_sizes(shape), value.item(), dtype=value.dtype,
                               device=context.device)]
        return [value.expand(_sizes(shape)).clone(memory_format=torch.contiguous_format)]

    return run


@operation(basic.AllocEmpty)
def _alloc_empty(node, context):
    dtype = DTYPES[node.outputs[0].dtype]
    return lambda *shape: [torch.empty(_sizes(shape), dtype=dtype, device=context.device)]


@operation(MakeVector)
def _make_vector(node, context):
    dtype = DTYPES[node.outputs[0].dtype]
    return lambda *values: [torch.stack([value.to(dtype) for value in values])]


@operation(basic.Reshape)
def _reshape(node, context):
    return lambda value, shape: [value.reshape(_sizes(shape))]


@operation(Shape_i)
def _shape_i(node, context):
    axis = node.op.i
    return lambda value: [torch.tensor(value.shape[axis])]


@operation(Shape)
def _shape(node, context):
    return lambda value: [torch.tensor(value.shape)]


@operation(DeepCopyOp)
def _copy(node, context):
    return lambda value: [value.clone()]


@operation(ViewOp, Rebroadcast, SpecifyShape, Assert)
def _as_it_is(node, context):
    return lambda value, *conditions: [value]


@operation(basic.TensorFromScalar, basic.ScalarFromTensor)
def _scalar(node, context):
    return lambda value: [value]


@operation(basic.Join)
def _join(node, context):
    return lambda axis, *values: [torch.cat(values, dim=int(axis))]


@operation(basic.Split)
def _split(node, context):
    return lambda value, axis, sizes: [
        part.clone() for part in torch.split(value, _sizes(sizes), dim=int(axis))]


@operation(basic.Dot)
def _dot(node, context):
    def run(a, b):
        if a.ndim == b.ndim == 2:
            return [context.product(a, b)]
        return [torch.matmul(a, b) if a.ndim and b.ndim else a * b]

    return run


def _index(node, values) -> tuple:
    """Theano's indices as Python's; PyTorch knows no negative steps."""
    index = subtensor.get_idx_list([None, *map(int, values)], node.op.idx_list)
    return tuple(index)


def _view(value: torch.Tensor, index: tuple) -> tuple[torch.Tensor, list[int]]:
    """What an index names, with the steps of slices positive, and the axes to be turned round."""
    turned, axis = [], 0
    for part in index:
        size = value.shape[axis]
        if not isinstance(part, slice):
            value = value.select(axis, part)
            continue
        places = range(*part.indices(size))
        if places.step < 0:
            turned.append(axis)
            places = places[::-1]
        value = torch.ops.aten.slice.Tensor(value, axis, places.start, max(0, places.stop),
                                            places.step)
        axis += 1
    return value, turned


@operation(subtensor.Subtensor)
def _subtensor(node, context):
    def run(value, *values):
        value, turned = _view(value, _index(node, values))
        return [value.flip(turned) if turned else value]

    return run


@operation(subtensor.IncSubtensor)
def _inc_subtensor(node, context):
    op = node.op

    def run(value, by, *values):
        result = value if op.inplace else value.clone()
        place, turned = _view(result, _index(node, values))
        by = by.expand(place.shape).flip(turned)
        if op.set_instead_of_inc:
            place.copy_(by)
        else:
            place.add_(by)
        return [result]

    return run


@operation(subtensor.AdvancedSubtensor1)
def _rows(node, context):
    return lambda value, rows: [value.index_select(0, rows.reshape(-1).to(torch.int64))]


@operation(subtensor.AdvancedIncSubtensor1)
def _inc_rows(node, context):
    op = node.op

    def run(value, by, rows):
        result = value if op.inplace else value.clone()
        rows = rows.to(torch.int64)
        by = by.expand(len(rows), *value.shape[1:])
        if op.set_instead_of_inc:
            result[rows] = by
            return [result]
        return [result.index_add_(0, rows, by)]

    return run


@operation(subtensor.AdvancedSubtensor)
def _advanced_subtensor(node, context):
    def run(value, *index):
        return [value[tuple(part.to(torch.int64) for part in index)]]

    return run


@operation(subtensor.AdvancedIncSubtensor)
def _advanced_inc_subtensor(node, context):
    op = node.op

    def run(value, by, *index):
        return [value.index_put(tuple(part.to(torch.int64) for part in index),
                                by.expand(torch.broadcast_shapes(*(p.shape for p in index))),
                                accumulate=not op.set_instead_of_inc)]

    return run


@operation(nnet.nnet.Softmax)
def _softmax(node, context):
    return lambda value: [value.softmax(-1)]


@operation(nnet.nnet.LogSoftmax)
def _log_softmax(node, context):
    return lambda value: [value.log_softmax(-1)]


@operation(nnet.nnet.SoftmaxWithBias)
def _softmax_with_bias(node, context):
    return lambda value, bias: [(value + bias).softmax(-1)]


@operation(nnet.nnet.SoftmaxGrad)
def _softmax_grad(node, context):
    def run(gradient, softmax):
        product = gradient * softmax
        return [product - product.sum(-1, keepdim=True) * softmax]

    return run


@operation(nnet.nnet.CrossentropySoftmaxArgmax1HotWithBias)
def _crossentropy_softmax(node, context):
    def run(value, bias, targets):
        logits = value + bias
        logarithms = logits.log_softmax(-1)
        losses = -logarithms.gather(1, targets.to(torch.int64)[:, None])[:, 0]
        return [losses, logarithms.exp(), logits.argmax(-1).to(targets.dtype)]

    return run


@operation(nnet.nnet.CrossentropySoftmax1HotWithBiasDx)
def _crossentropy_softmax_gradient(node, context):
    def run(d_losses, softmax, targets):
        result = softmax.clone()
        rows = torch.arange(len(targets), device=softmax.device)
        result[rows, targets.to(torch.int64)] -= 1
        return [result * d_losses.reshape(-1, 1)]

    return run


@operation(nnet.nnet.CrossentropyCategorical1Hot)
def _crossentropy(node, context):
    def run(probabilities, targets):
        return [-probabilities.gather(1, targets.to(torch.int64)[:, None])[:, 0].log()]

    return run


@operation(nnet.nnet.CrossentropyCategorical1HotGrad)
def _crossentropy_gradient(node, context):
    def run(d_losses, probabilities, targets):
        column = targets.to(torch.int64)[:, None]
        values = -d_losses[:, None] / probabilities.gather(1, column)
        return [torch.zeros_like(probabilities).scatter_(1, column, values)]

    return run
