"""An update of all arrays in one pass, against Lasagne's rules as Theano computes them."""

import contextlib
import ctypes

from model import engine  # noqa: F401  isort: skip

import lasagne
import numpy as np
import pytest
import theano
import theano.tensor as T

from model.configuration import OPTIMISERS
from model.engine import PROCESSOR, squares_before, sum_of_squares, update_in_one_pass

# More numbers than are taken at a time, a rest; few; and one that broadcasts.
SHAPES = [(37, 300), (5,), (1, 4)]
UPDATES = 4


def shared(values):
    return theano.shared(values, broadcastable=[size == 1 for size in values.shape])


@contextlib.contextmanager
def without_compiler(optimizer="fast_compile"):
    with theano.configparser.change_flags(linker="py", optimizer=optimizer):
        yield


class Update:
    """Parameters and sums of their gradients, and a function that updates them by a rule."""

    def __init__(self, rule, device=PROCESSOR, dtype="float64", one_pass=True):
        with theano.configparser.change_flags(floatX=dtype):
            self._compile(rule, device, dtype, one_pass)

    def _compile(self, rule, device, dtype, one_pass):
        random = np.random.default_rng(1)
        self.device = device
        self.params, self.sums = (
            [shared(random.normal(size=shape).astype(dtype)) for shape in SHAPES]
            for _ in range(2))
        rate, count = T.scalar("rate", dtype), np.asarray(3, dtype)
        averages = [total / count for total in self.sums]
        updates = getattr(lasagne.updates, rule)(averages, self.params, learning_rate=rate)
        if one_pass:
            updates = update_in_one_pass(updates, self.sums)
            squares = [squares_before(updates[total]) for total in self.sums]
        else:
            squares = [T.sqr(T.cast(total, "float64")).sum() for total in self.sums]
        self.state = [variable for variable in updates if variable not in self.sums]
        self.function = device.function([rate], squares, updates=updates)

    def run(self):
        """The squares of the sums in each update, and the state after the last."""
        random = np.random.default_rng(2)
        squares = []
        for number in range(UPDATES):
            for total, shape in zip(self.sums, SHAPES):
                total.set_value(random.normal(size=shape).astype(total.dtype))
            squares.append(self.function(np.asarray(0.1 / (number + 1), self.params[0].dtype)))
        return squares, [self.device.value(variable).copy() for variable in self.state]


def lasagnes(rule, dtype="float64"):
    """What Lasagne's rule gives, by numpy, operation for operation."""
    with without_compiler():
        return Update(rule, dtype=dtype, one_pass=False).run()


@pytest.mark.parametrize("rule", OPTIMISERS)
def test_equals_lasagnes_rule(rule, device):
    (squares, state), (wanted_squares, wanted) = Update(rule, device).run(), lasagnes(rule)
    np.testing.assert_allclose(squares, wanted_squares, rtol=1e-12)
    for value, other in zip(state, wanted, strict=True):
        np.testing.assert_allclose(value, other, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("rule", OPTIMISERS)
def test_equals_lasagnes_rule_in_single_precision(rule, device):
    update = Update(rule, device, "float32")
    (squares, state), (wanted_squares, wanted) = update.run(), lasagnes(rule, "float32")
    np.testing.assert_allclose(squares, wanted_squares, rtol=1e-6)
    for value, other in zip(state, wanted, strict=True):
        assert value.dtype == "float32"
        np.testing.assert_allclose(value, other, rtol=1e-4, atol=1e-5)
    assert not any(device.value(total).any() for total in update.sums)


def test_without_a_compiler_it_is_the_same():
    squares, state = Update("adam").run()
    with without_compiler():
        slow_squares, slow = Update("adam").run()
    with without_compiler("fast_run"):  # in place
        in_place = Update("adam").run()[1]
    np.testing.assert_allclose(squares, slow_squares, rtol=1e-12)
    for value, one, other in zip(state, slow, in_place, strict=True):
        np.testing.assert_allclose(value, one, rtol=1e-12)
        np.testing.assert_array_equal(one, other)


def test_bytes_do_not_depend_on_the_number_of_threads():
    openmp = ctypes.CDLL("libgomp.so.1")
    before, found = openmp.omp_get_max_threads(), []
    try:
        for threads in (1, 2, 3):
            openmp.omp_set_num_threads(threads)
            squares, state = Update("adam", dtype="float32").run()
            found.append([np.asarray(squares).tobytes(), *(value.tobytes() for value in state)])
    finally:
        openmp.omp_set_num_threads(before)
    assert found[0] == found[1] == found[2]


def test_an_expression_that_is_no_update_leaves_its_arrays(device):
    param, total = shared(np.arange(4.0)), shared(np.ones(4))
    updates = update_in_one_pass(lasagne.updates.sgd([total], [param], 0.5), [total])
    values = device.function([], [updates[param], updates[total]])()
    np.testing.assert_array_equal(values, [np.arange(4.0) - 0.5, np.zeros(4)])
    np.testing.assert_array_equal(device.value(param), np.arange(4.0))
    np.testing.assert_array_equal(device.value(total), np.ones(4))


def test_arrays_in_another_order_of_memory():
    values = np.random.default_rng(0).normal(size=(30, 400))
    param, total = shared(values), shared(values)
    updates = update_in_one_pass(lasagne.updates.sgd([total], [param], 0.5), [total])
    update = theano.function([], squares_before(updates[total]), updates=updates)
    param.set_value(np.asfortranarray(values), borrow=True)
    total.set_value(np.asfortranarray(values), borrow=True)
    np.testing.assert_allclose(update(), np.square(values).sum(), rtol=1e-12)
    np.testing.assert_array_equal(param.get_value(), values - 0.5 * values)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_squares_tell_what_is_not_finite(bad, device):
    values = np.full((40, 300), 1e30, "float32")  # whose squares single precision does not hold
    total = shared(values)
    squares = device.function([], sum_of_squares(total))
    np.testing.assert_allclose(squares(), 40 * 300 * 1e60, rtol=1e-6)
    values[39, 299] = bad
    total.set_value(values)
    assert not np.isfinite(squares())


def test_a_sum_alone_has_the_bytes_of_the_pass():
    update = Update("adagrad", dtype="float32")
    alone = theano.function([], list(map(sum_of_squares, update.sums)))
    before = np.asarray(alone())
    np.testing.assert_array_equal(before, np.asarray(update.function(np.float32(1))))


def test_what_does_not_work_element_by_element_is_refused():
    param, total = shared(np.ones((2, 3))), shared(np.ones((2, 3)))
    with pytest.raises(TypeError, match="not computed element by element"):
        update_in_one_pass({param: param - total / total.sum(axis=1, keepdims=True)}, [total])


def test_arrays_of_different_shapes_are_refused(device):
    param, total = shared(np.ones((2, 3))), shared(np.ones((2, 3)))
    updates = update_in_one_pass({param: param - total}, [total])
    update = device.function([], updates=updates)
    total.set_value(np.ones((3, 2)))
    with pytest.raises(ValueError, match="not of one shape"):
        update()
