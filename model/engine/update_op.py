"""All that an update does to one parameter, in one pass over its arrays."""

from __future__ import annotations

import functools
import hashlib
from collections import OrderedDict
from pathlib import Path

import numpy as np
import theano
import theano.scalar as scalar
import theano.tensor as T
from theano.tensor.elemwise import DimShuffle, Elemwise

# Numbers whose squares are summed at a time, in so many sums side by side: they stay in the
# first-level cache for what is done with them next, and the order of the sums is always the same.
_BLOCK, _LANES = 4096, 16

# Compiled modules are kept: changed code is another version.
_VERSION = int(hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16], 16)


def update_in_one_pass(updates: OrderedDict, sums: list) -> OrderedDict:
    """The same updates, with all arrays that depend on one of the sums updated together.

    Of each array every number is read once and written once, whatever the update rule is, and the
    sum is cleared in the same pass. Each operation is rounded by itself, as IEEE 754 has it: the
    results are the same for any number of threads, and on every processor.

    Parameters
    ----------
    updates : OrderedDict
        From shared variables to expressions, as Lasagne's rules return them: of sums, of arrays
        of the same shape that are shared variables, and of scalars, all element by element.
    sums : list of shared variables
        What the rules average: they are cleared.

    Returns
    -------
    OrderedDict
        The updates in their order, those of the sums at the end.

    Raises
    ------
    TypeError
        When an expression is anything else than element by element.
    """
    updates = OrderedDict(updates)
    cleared = OrderedDict()
    for total in sums:
        arrays = [variable for variable, value in updates.items() if total in _arrays(value)]
        known = {variable: _scalar(variable) for variable in (total, *arrays)}
        scalars: dict = OrderedDict()
        results = [_element(updates[variable], known, scalars) for variable in arrays]
        rule = scalar.Composite([*known.values(), *scalars.values()], results)
        updated = ElementwiseUpdate(rule, len(known))(*known, *scalars, return_list=True)
        cleared[total] = updated[0]
        updates.update(zip(arrays, updated[1:]))
    return OrderedDict([*updates.items(), *cleared.items()])


def squares_before(cleared):
    """The sum of the squares that a sum had before it was cleared, from the same pass.

    Parameters
    ----------
    cleared : symbolic expression
        The update of a sum from `update_in_one_pass`.

    Returns
    -------
    Theano scalar
        float64
    """
    return cleared.owner.outputs[-1]


def sum_of_squares(array):
    """The sum of an array's squares, a float64 scalar, with the bytes of `squares_before`."""
    return SumOfSquares()(array)


def _scalar(variable):
    return scalar.get_scalar_type(variable.dtype)()


def _arrays(variable) -> set:
    """The arrays that an expression depends on, but for those that only its scalars come from."""
    if not variable.ndim:
        return set()
    if variable.owner is None:
        return {variable}
    return set().union(*map(_arrays, variable.owner.inputs))


def _element(variable, known: dict, scalars: dict):
    """What an expression is for one element, in terms of those of arrays, and of scalars."""
    node = variable.owner
    if variable in known:
        return known[variable]
    if not variable.ndim:
        return scalars.setdefault(variable, _scalar(variable))
    if node is not None and isinstance(node.op, DimShuffle) and not node.inputs[0].ndim:
        return _element(node.inputs[0], known, scalars)
    if node is None or not isinstance(node.op, Elemwise):
        raise TypeError(f"{variable} is not computed element by element")
    op, inputs = node.op.scalar_op, node.inputs
    if isinstance(op, scalar.Pow) and _constant(inputs[1]) == 2:
        op, inputs = scalar.sqr, inputs[:1]
    if op.nfunc_spec is None:
        raise TypeError(f"{op} has no form for arrays of numpy's")
    return op(*[_element(each, known, scalars) for each in inputs])


def _constant(variable) -> float | None:
    """The number that an expression is for all elements."""
    while variable.owner is not None and isinstance(variable.owner.op, DimShuffle):
        variable = variable.owner.inputs[0]
    is_number = isinstance(variable, T.Constant) and variable.data.size == 1
    return float(variable.data) if is_number else None


class _Pass(theano.OpenMPOp):
    """Base of Ops in C++ that go through arrays once, and sum the squares of one."""

    def __init__(self):
        super().__init__(openmp=True)

    def c_code_cache_version(self):
        return (_VERSION, )

    def c_headers(self):
        return [*super().c_headers(), "<algorithm>", "<vector>"]

    def c_compile_args(self):
        return [*super().c_compile_args(), "-ffp-contract=off"]

    def c_support_code(self):
        return f"""
template <typename real> static double block_squares(npy_intp count, const real *x) {{
  double lanes[{_LANES}] = {{}}, total = 0;
  npy_intp i = 0;
  for (; i + {_LANES} <= count; i += {_LANES})
    for (int j = 0; j < {_LANES}; j++) lanes[j] += (double)x[i + j] * (double)x[i + j];
  for (int j = 0; i < count && j < {_LANES}; i++, j++) lanes[j] += (double)x[i] * (double)x[i];
  for (int j = 0; j < {_LANES}; j++) total += lanes[j];
  return total;
}}
// The sum of what `block(begin, end)` returns for each block of so many numbers.
template <typename Block> static double sum_of_blocks(npy_intp count, const Block &block) {{
  std::vector<double> sums((count + {_BLOCK - 1}) / {_BLOCK});
  const npy_intp blocks = (npy_intp)sums.size();
#pragma omp parallel for schedule(static) if (blocks > 4)
  for (npy_intp n = 0; n < blocks; n++)
    sums[n] = block(n * {_BLOCK}, std::min(count, (n + 1) * {_BLOCK}));
  double total = 0;
  for (double sum : sums) total += sum;
  return total;
}}
"""


class SumOfSquares(_Pass):
    """See `sum_of_squares`."""

    __props__ = ()

    def make_node(self, array):
        return theano.Apply(self, [T.as_tensor_variable(array)], [T.dscalar()])

    def infer_shape(self, node, shapes):
        return [()]

    def perform(self, node, inputs, output_storage):
        output_storage[0][0] = _squares(inputs[0])

    def c_code(self, node, name, inputs, outputs, sub):
        (array,), (result,) = inputs, outputs
        real = node.inputs[0].type.dtype_specs()[1]
        return f"""
Py_XDECREF({result});
{result} = (PyArrayObject *)PyArray_ZEROS(0, NULL, NPY_FLOAT64, 0);
if (!{result}) {sub["fail"]}
{{
  PyArrayObject *whole = PyArray_GETCONTIGUOUS({array});
  if (!whole) {sub["fail"]}
  const {real} *const x = ({real} *)PyArray_DATA(whole);
  *(double *)PyArray_DATA({result}) =
      sum_of_blocks(PyArray_SIZE(whole), [=](npy_intp begin, npy_intp end) {{
        return block_squares(end - begin, x + begin);
      }});
  Py_DECREF(whole);
}}
"""


class ElementwiseUpdate(_Pass):
    """See `update_in_one_pass`.

    Inputs are a sum, the other arrays of its shape, and scalars; outputs the cleared sum, the
    updated arrays, and the sum of the squares that the sum had.

    Parameters
    ----------
    rule : theano.scalar.Composite
        From an element of each input to that of each array but the sum.
    arrays : int
        How many of the inputs are arrays.
    in_place : bool
        Whether the outputs take the memory of the inputs. Theano's optimizer sets it where nothing
        else needs their old content.
    """

    __props__ = ("rule", "arrays", "in_place")

    def __init__(self, rule: scalar.Composite, arrays: int, in_place: bool = False):
        super().__init__()
        self.rule = rule
        self.arrays = arrays
        self.in_place = in_place
        if in_place:
            self.destroy_map = {n: [n] for n in range(arrays)}

    def make_node(self, *inputs):
        inputs = [T.as_tensor_variable(variable) for variable in inputs]
        arrays = inputs[:self.arrays]
        for variable, result in zip(arrays[1:], self.rule.outputs, strict=True):
            if (variable.ndim, variable.dtype) != (arrays[0].ndim, result.dtype):
                raise TypeError(f"{variable} is of {variable.ndim} dimensions and {variable.dtype}"
                                f", its update is of {arrays[0].ndim} and {result.dtype}")
        return theano.Apply(self, inputs, [*(array.type() for array in arrays), T.dscalar()])

    def infer_shape(self, node, shapes):
        return [*shapes[:self.arrays], ()]

    def perform(self, node, inputs, output_storage):
        arrays = inputs[:self.arrays]
        squares, results = _squares(arrays[0]), _in_numpy(self.rule, inputs)
        results = [np.zeros_like(arrays[0]), *results]
        for array, result, storage in zip(arrays, results, output_storage):
            if self.in_place:
                array[...] = result
            storage[0] = array if self.in_place else result.astype(array.dtype)
        output_storage[-1][0] = squares

    def c_support_code_apply(self, node, name):
        """The function that goes through the arrays."""
        arrays, others = node.inputs[:self.arrays], node.inputs[self.arrays:]
        types = [variable.type.dtype_specs()[1] for variable in node.inputs]
        count = len(arrays)
        elements = [f"x{n}" for n in range(count)]
        changed = [f"y{n}" for n in range(1, count)]
        scalars = [f"s{n}" for n in range(len(others))]
        applied = self.rule.make_node(*map(_scalar, node.inputs))
        code = self.rule.c_code(applied, f"{name}_rule", [*elements, *scalars], changed,
                                {"fail": "", "id": "_rule"})
        parameters = [*(f"{kind} *__restrict__ a{n}" for n, kind in enumerate(types[:count])),
                      *(f"const {kind} {each}" for kind, each in zip(types[count:], scalars))]
        take = " ".join(f"const {kind} {element} = a{n}[i];"
                        for n, (kind, element) in enumerate(zip(types, elements)))
        put = " ".join(f"a{n}[i] = {each};" for n, each in enumerate(changed, 1))
        declare = " ".join(f"{kind} {each};" for kind, each in zip(types[1:], changed))
        return f"""
static double update_{name}(npy_intp count, {", ".join(parameters)}) {{
  return sum_of_blocks(count, [=](npy_intp begin, npy_intp end) {{
    const double squares = block_squares(end - begin, a0 + begin);
#pragma GCC ivdep
    for (npy_intp i = begin; i < end; i++) {{
      {take}
      {declare}
      {code}
      a0[i] = 0; {put}
    }}
    return squares;
  }});
}}
"""

    def c_code(self, node, name, inputs, outputs, sub):
        types = [variable.type.dtype_specs()[1] for variable in node.inputs]
        lines = []
        for array, result in zip(inputs[:self.arrays], outputs):
            whole = ("PyArray_GETCONTIGUOUS({})" if self.in_place
                     else "(PyArrayObject *)PyArray_NewCopy({}, NPY_CORDER)").format(array)
            lines.append(f"""
if (!PyArray_SAMESHAPE({array}, {inputs[0]})) {{
  PyErr_SetString(PyExc_ValueError, "the arrays of an update are not of one shape");
  {sub["fail"]}
}}
{{
  PyArrayObject *whole = {whole};
  if (!whole) {sub["fail"]}
  Py_XDECREF({result});
  {result} = whole;
}}""")
        arguments = [f"({kind} *)PyArray_DATA({each})"
                     for kind, each in zip(types, outputs[:self.arrays])]
        arguments += [f"*({kind} *)PyArray_DATA({each})"
                      for kind, each in zip(types[self.arrays:], inputs[self.arrays:])]
        squares = outputs[-1]
        return "\n".join(lines) + f"""
Py_XDECREF({squares});
{squares} = (PyArrayObject *)PyArray_ZEROS(0, NULL, NPY_FLOAT64, 0);
if (!{squares}) {sub["fail"]}
*(double *)PyArray_DATA({squares}) =
    update_{name}(PyArray_SIZE({inputs[0]}), {", ".join(arguments)});
"""


def _squares(array: np.ndarray) -> np.ndarray:
    return np.asarray(np.square(array, dtype="float64").sum())


def _in_numpy(rule: scalar.Composite, inputs: list) -> list:
    """The outputs of an elementwise rule: what is done where there is no compiler."""
    graph = rule.fgraph
    known = dict(zip(graph.inputs, inputs))
    for node in graph.toposort():
        function = getattr(np, node.op.nfunc_spec[0])
        values = [known[variable] for variable in node.inputs]
        known[node.outputs[0]] = (function(*values) if function.nin == len(values)
                                  else functools.reduce(function, values))
    return [known[variable] for variable in graph.outputs]


@theano.gof.local_optimizer([ElementwiseUpdate])
def _update_in_place(node):
    if isinstance(node.op, ElementwiseUpdate) and not node.op.in_place:
        return ElementwiseUpdate(node.op.rule, node.op.arrays, in_place=True)(
            *node.inputs, return_list=True)
    return False


theano.compile.optdb.register(
    "update_in_place",
    theano.gof.TopoOptimizer(_update_in_place,
                             failure_callback=theano.gof.TopoOptimizer.warn_inplace),
    75, "fast_run", "inplace")
