"""The fused LSTM against numpy, against finite differences and against Lasagne's layer."""

from model import engine  # noqa: F401  isort: skip

import lasagne
import numpy as np
import pytest
import theano
import theano.tensor as T

from model.engine import available, lstm_sequence, native, weights_gradient

pytestmark = pytest.mark.skipif(available() is not None, reason=str(available()))

GATES = ("ingate", "forgetgate", "cell", "outgate")


def make_parameters(inputs, units, peepholes=True, dtype="float64", size=0.5, seed=1):
    """Random parameters, as lstm_sequence takes them, as one flat list of arrays."""
    random = np.random.default_rng(seed)
    shapes = [(inputs, units)] * 4 + [(units, units)] * 4 + [(units,)] * 4
    shapes += [(units,)] * 3 if peepholes else []
    shapes += [(1, units)] * 2
    return [random.normal(0, size, shape).astype(dtype) for shape in shapes]


def apply_op(inputs, parameters, grad_clipping=0):
    peepholes = list(parameters[12:-2])
    return lstm_sequence(inputs, list(parameters[:4]), list(parameters[4:8]),
                         list(parameters[8:12]), peepholes or None, *parameters[-2:],
                         grad_clipping=grad_clipping)


def reference(inputs, parameters, d_hidden, clip=np.inf):
    """Hidden states (steps, sentences, units) and all gradients, in numpy.

    `inputs` are floats (sentences, steps, inputs). The gradients are those of
    ``(hidden * d_hidden).sum()``, for the parameters in their order and for the inputs.
    """
    W, U = (np.concatenate(parameters[n:n + 4], axis=1) for n in (0, 4))
    b = np.concatenate(parameters[8:12])
    has_peepholes = len(parameters) == 17
    units = U.shape[0]
    p_in, p_forget, p_out = parameters[12:15] if has_peepholes else np.zeros((3, units))
    sentences, steps, _ = inputs.shape
    c = np.repeat(parameters[-2], sentences, axis=0)
    h = np.repeat(parameters[-1], sentences, axis=0)

    def logistic(x):
        return 1 / (1 + np.exp(-x))

    states, hidden = [], []
    for t in range(steps):
        a_in, a_forget, a_cell, a_out = np.split(inputs[:, t] @ W + h @ U + b, 4, axis=1)
        i, f, z = logistic(a_in + c * p_in), logistic(a_forget + c * p_forget), np.tanh(a_cell)
        c_new = f * c + i * z
        o = logistic(a_out + c_new * p_out)
        states.append((h, c, i, f, z, o, c_new))
        h, c = o * np.tanh(c_new), c_new
        hidden.append(h)

    dW, dU, db = np.zeros_like(W), np.zeros_like(U), np.zeros_like(b)
    d_peepholes = np.zeros((3, units))
    d_inputs = np.zeros_like(inputs)
    dh, dc = np.zeros_like(h), np.zeros_like(c)
    for t in reversed(range(steps)):
        h, c, i, f, z, o, c_new = states[t]
        dh = dh + d_hidden[t]
        d_out = dh * np.tanh(c_new) * o * (1 - o)
        dc = dc + dh * o * (1 - np.tanh(c_new) ** 2) + d_out * p_out
        d_in, d_forget = dc * z * i * (1 - i), dc * c * f * (1 - f)
        d_cell = dc * i * (1 - z ** 2)
        d_peepholes += [(d_in * c).sum(0), (d_forget * c).sum(0), (d_out * c_new).sum(0)]
        dc = dc * f + d_in * p_in + d_forget * p_forget
        d_gates = np.clip(np.concatenate([d_in, d_forget, d_cell, d_out], axis=1), -clip, clip)
        dW += inputs[:, t].T @ d_gates
        dU += h.T @ d_gates
        db += d_gates.sum(0)
        d_inputs[:, t] = d_gates @ W.T
        dh = d_gates @ U.T
    gradients = [*np.split(dW, 4, axis=1), *np.split(dU, 4, axis=1), *np.split(db, 4)]
    gradients += list(d_peepholes) if has_peepholes else []
    gradients += [dc.sum(0, keepdims=True), dh.sum(0, keepdims=True)]
    return np.array(hidden), gradients, d_inputs


def one_hot(indices, count):
    return np.eye(count)[indices]


SHAPES = [
    # sentences, steps, inputs, units
    (5, 4, 7, 3),
    (1, 6, 7, 16),
    (4, 1, 5, 19),
    (1, 1, 2, 1),
    (37, 3, 40, 70),
    (13, 2, 3, 33),
    (115, 9, 130, 5),
    (12, 2, 4, 300),
]


@pytest.mark.parametrize("clip", [0, 0.02])
@pytest.mark.parametrize("peepholes", [True, False])
@pytest.mark.parametrize("lookup", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_hidden_and_gradients_equal_numpy(shape, lookup, peepholes, clip):
    sentences, steps, inputs, units = shape
    random = np.random.default_rng(0)
    arrays = make_parameters(inputs, units, peepholes)
    parameters = [theano.shared(array) for array in arrays]
    d_hidden = random.normal(size=(steps, sentences, units))
    if lookup:
        x, given = T.imatrix(), random.integers(inputs, size=(sentences, steps), dtype=np.int32)
        dense = one_hot(given, inputs)
    else:
        x, given = T.dtensor3(), random.normal(size=(sentences, steps, inputs))
        dense = given
    hidden = apply_op(x, parameters, clip)
    wanted = parameters if lookup else [*parameters, x]
    gradients = theano.grad((hidden * d_hidden).sum(), wanted)
    results = theano.function([x], [hidden, *gradients])(given)

    expected_hidden, expected, d_inputs = reference(dense, arrays, d_hidden, clip or np.inf)
    if not lookup:
        expected.append(d_inputs)
    np.testing.assert_allclose(results[0], expected_hidden, rtol=1e-12, atol=1e-13)
    for result, gradient in zip(results[1:], expected, strict=True):
        np.testing.assert_allclose(result, gradient, rtol=1e-10, atol=1e-12)
    if clip:
        unclipped = reference(dense, arrays, d_hidden)[1]
        assert np.abs(np.subtract(expected[4], unclipped[4])).max() > 1e-3 or units < 3


# A gradient that is clipped is not that of the function, so finite differences can only be compared
# where the bound is not met; where it is, the tests with numpy and Lasagne say what is right.
@pytest.mark.parametrize("clip", [0, 1e6])
@pytest.mark.parametrize("peepholes", [True, False])
@pytest.mark.parametrize("lookup", [True, False])
def test_gradient_by_finite_differences(lookup, peepholes, clip):
    random = np.random.default_rng(0)
    arrays = make_parameters(4, 5, peepholes)
    if lookup:
        indices = np.array([[0, 1, 3], [2, 2, 1]], np.int32)
        theano.gradient.verify_grad(lambda *parameters: apply_op(indices, parameters, clip),
                                    arrays, rng=np.random.RandomState(0))
    else:
        theano.gradient.verify_grad(lambda x, *parameters: apply_op(x, parameters, clip),
                                    [random.normal(size=(2, 3, 4)), *arrays],
                                    rng=np.random.RandomState(0))


def test_gradient_of_two_layers_by_finite_differences():
    first, second = make_parameters(4, 3), make_parameters(3, 2, seed=2)
    indices = np.array([[0, 1, 3], [2, 2, 1]], np.int32)

    def network(*parameters):
        hidden = apply_op(indices, parameters[:17])
        return apply_op(hidden.dimshuffle(1, 0, 2), parameters[17:])

    theano.gradient.verify_grad(network, [*first, *second], rng=np.random.RandomState(0))


@pytest.mark.parametrize("grad_clipping", [False, 2**-7])
def test_equals_stock_lasagne_layer_without_peepholes(grad_clipping):
    sentences, steps, inputs, units = 6, 5, 9, 11
    arrays = make_parameters(inputs, units, peepholes=False)
    gates = {name: lasagne.layers.Gate(W_in=arrays[n], W_hid=arrays[4 + n], b=arrays[8 + n],
                                       W_cell=None)
             for n, name in enumerate(GATES)}
    gates["cell"].nonlinearity = lasagne.nonlinearities.tanh
    layer = lasagne.layers.LSTMLayer(
        lasagne.layers.InputLayer((None, None, inputs)), units, peepholes=False, learn_init=True,
        cell_init=arrays[-2], hid_init=arrays[-1], grad_clipping=grad_clipping, **gates)
    parameters = [getattr(layer, f"{kind}_{gate}")
                  for kind in ("W_in_to", "W_hid_to", "b") for gate in GATES]
    parameters += [layer.cell_init, layer.hid_init]

    x, weights = T.dtensor3(), T.dtensor3()
    stock = layer.get_output_for([x])
    fused = apply_op(x, parameters, grad_clipping).dimshuffle(1, 0, 2)
    results = theano.function([x, weights], [
        [hidden, *theano.grad((hidden * weights).sum(), [*parameters, x])]
        for hidden in (stock, fused)][0] + [
        *[fused, *theano.grad((fused * weights).sum(), [*parameters, x])]])
    random = np.random.default_rng(0)
    results = results(random.normal(size=(sentences, steps, inputs)),
                      random.normal(size=(sentences, steps, units)))
    half = len(results) // 2
    for stock_result, fused_result in zip(results[:half], results[half:], strict=True):
        np.testing.assert_allclose(fused_result, stock_result, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("units", [24, 100])
def test_single_precision(units):
    sentences, steps, inputs = 9, 7, 30
    arrays = make_parameters(inputs, units, dtype="float32", size=units ** -0.5)
    parameters = [theano.shared(array) for array in arrays]
    random = np.random.default_rng(0)
    indices = random.integers(inputs, size=(sentences, steps))
    d_hidden = random.normal(size=(steps, sentences, units)).astype("float32")
    x = T.lmatrix()
    hidden = apply_op(x, parameters, 5)
    gradients = theano.grad((hidden * d_hidden).sum(), parameters)
    results = theano.function([x], [hidden, *gradients])(indices)
    expected_hidden, expected, _ = reference(
        one_hot(indices, inputs), [array.astype("float64") for array in arrays], d_hidden, 5)
    for result, value in zip(results, [expected_hidden, *expected], strict=True):
        assert result.dtype == "float32"
        np.testing.assert_allclose(result, value, rtol=0, atol=3e-6 * np.abs(value).max())


@pytest.mark.parametrize("scale", [0.01, 1, 30, 1000])
def test_functions_are_accurate_in_single_precision(scale):
    # One unit without recurrence or peepholes, its gates set by the biases alone.
    values = np.random.default_rng(0).normal(0, scale, 2000).astype("float32")
    zero = [np.zeros((2000, 1), "float32")] * 4
    columns = [np.full((2000, 1), 100, "float32"), np.full((2000, 1), -100, "float32"),
               values[:, None], np.full((2000, 1), 100, "float32")]
    indices = np.arange(2000, dtype=np.int32)[:, None]
    one = [np.zeros((1, 1), "float32")]

    def run(columns):
        hidden = apply_op(indices, [*columns, *(one * 4), *[np.zeros(1, "float32")] * 4,
                                    *(one * 2)])
        return hidden.eval()[0, :, 0].astype("float64")

    exact = values.astype("float64")
    np.testing.assert_allclose(run(columns), np.tanh(np.tanh(exact)), rtol=1e-6)
    columns[2], columns[3] = zero[0] + 100, values[:, None]
    with np.errstate(over="ignore"):
        expected = np.tanh(1) / (1 + np.exp(-exact))
    np.testing.assert_allclose(run(columns), expected, rtol=1e-6, atol=1e-36)


def test_not_a_number_passes_through():
    arrays = make_parameters(3, 20, dtype="float32")
    arrays[8][4] = np.nan
    hidden = apply_op(np.zeros((2, 3), np.int32), arrays).eval()
    assert np.isnan(hidden[0, :, 4]).all() and np.isnan(hidden[1:]).all()
    assert np.isfinite(np.delete(hidden[0], 4, axis=1)).all()


@pytest.mark.parametrize("lookup", [True, False])
def test_accumulates_in_place(lookup):
    sentences, steps, inputs, units = 4, 3, 6, 5
    arrays = make_parameters(inputs, units)
    parameters = [theano.shared(array) for array in arrays]
    accumulators = [theano.shared(np.ones_like(array)) for array in arrays]
    x = T.imatrix() if lookup else T.dtensor3()
    gradients = theano.grad((apply_op(x, parameters, 5) ** 2).sum(), parameters)
    updates = list(zip(accumulators, weights_gradient.accumulate(accumulators, gradients)))
    accumulate = theano.function([x], updates=updates)
    compute = theano.function([x], gradients)
    memory = [accumulator.get_value(borrow=True, return_internal_type=True).ctypes.data
              for accumulator in accumulators]

    expected = [np.ones_like(array) for array in arrays]
    for seed in range(3):
        random = np.random.default_rng(seed)
        given = random.integers(inputs, size=(sentences, steps + seed), dtype=np.int32)
        if not lookup:
            given = random.normal(size=(sentences, steps + seed, inputs))
        accumulate(given)
        for total, gradient in zip(expected, compute(given)):
            total += gradient
    for n, (accumulator, total) in enumerate(zip(accumulators, expected)):
        value = accumulator.get_value(borrow=True, return_internal_type=True)
        np.testing.assert_allclose(value, total, rtol=1e-12, atol=1e-13)
        if n < 8:
            assert value.ctypes.data == memory[n]
    for parameter, array in zip(parameters, arrays):
        np.testing.assert_array_equal(parameter.get_value(), array)


def test_accumulates_some_gradients_only():
    parameters = [theano.shared(array) for array in make_parameters(6, 5)]
    x = T.imatrix()
    gradients = theano.grad(apply_op(x, parameters).sum(), parameters)
    chosen = [7, 2, 9]
    accumulators = [theano.shared(np.ones_like(parameters[n].get_value())) for n in chosen]
    accumulate = theano.function(
        [x], gradients, updates=list(zip(accumulators, weights_gradient.accumulate(
            accumulators, [gradients[n] for n in chosen]))))
    results = accumulate(np.array([[1, 2], [0, 5]], np.int32))
    for n, accumulator in zip(chosen, accumulators):
        np.testing.assert_allclose(accumulator.get_value(), results[n] + 1)


def test_results_are_not_overwritten_by_the_next_call():
    parameters = make_parameters(6, 5)
    x = T.imatrix()
    compute = theano.function([x], apply_op(x, parameters))
    first = compute(np.zeros((2, 3), np.int32))
    copy = first.copy()
    compute(np.full((2, 3), 4, np.int32))
    np.testing.assert_array_equal(first, copy)


def test_buffers_are_used_again():
    buffers = native._Buffers()
    first = buffers.take((4, 5), "float32")
    second = buffers.take((4, 5), "float32")
    assert not np.shares_memory(first, second)
    memory = first.ctypes.data
    view = first[1:]
    del first
    assert buffers.take((4, 5), "float32").ctypes.data != memory
    del view
    again = buffers.take((2, 5), "float64")
    assert again.ctypes.data % 64 == 0
    assert len(buffers._blocks) == 2 or again.ctypes.data == memory


@pytest.mark.parametrize("index", [-1, 6])
def test_index_outside_the_vocabulary(index):
    compute = apply_op(np.array([[0, index]]), make_parameters(6, 5))
    with pytest.raises(IndexError, match="from 0 to 5"):
        compute.eval()


def test_wrong_shapes_and_types():
    arrays = make_parameters(6, 5)
    with pytest.raises(ValueError, match="input weights have 6 rows"):
        apply_op(np.zeros((2, 3, 7)), arrays).eval()
    with pytest.raises(ValueError, match="shape"):
        apply_op(np.zeros((2, 3), np.int32), [*arrays[:4], *[np.zeros((4, 4))] * 4,
                                              *arrays[8:]]).eval()
    with pytest.raises(TypeError, match="float64"):
        apply_op(np.zeros((2, 3), np.int32), [*arrays[:-1], arrays[-1].astype("float32")])
    with pytest.raises(TypeError, match="inputs must be"):
        apply_op(np.zeros((2, 3, 6), "float32"), arrays)


def test_reason_when_it_cannot_be_compiled(monkeypatch, tmp_path):
    native._load.cache_clear()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(theano.config, "cxx", "")
            assert "compiler" in available()
        native._load.cache_clear()
        source = tmp_path / "native.cpp"
        source.write_text("this is no C++")
        with monkeypatch.context() as patch:
            patch.setattr(native, "_SOURCE", source)
            assert "could not compile native.cpp" in available()
            with pytest.raises(RuntimeError, match="could not compile"):
                native.call("lstm_forward", "float32")
    finally:
        native._load.cache_clear()
    assert available() is None
