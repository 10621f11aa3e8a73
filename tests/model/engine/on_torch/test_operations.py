"""Theano's operations on PyTorch's tensors against Theano's own, carried out by numpy."""

import numpy as np
import pytest

pytestmark = [pytest.mark.extras, pytest.mark.usefixtures("float64")]
torch = pytest.importorskip("torch", reason="PyTorch is not there; make test-extras installs it")

from model import engine  # noqa: E402, F401  isort: skip

import lasagne  # noqa: E402
import theano  # noqa: E402
import theano.tensor as T  # noqa: E402

from model.engine import on_torch, open_device  # noqa: E402
from model.engine.on_torch.operations import UnknownOperation  # noqa: E402
from model.engine.on_torch.theano_operations import SCALARS  # noqa: E402
from model.system.errors import UserError  # noqa: E402

x, y, v = T.dmatrix("x"), T.dmatrix("y"), T.dvector("v")
i, n = T.ivector("i"), T.iscalar("n")
GIVEN = {x: np.random.default_rng(0).normal(size=(4, 3)),
         y: np.random.default_rng(1).normal(size=(4, 3)),
         v: np.random.default_rng(2).normal(size=3),
         i: np.array([2, 0, 2, 1], "int32"), n: np.int32(2)}

EXPRESSIONS = {
    "arithmetic": (x + y * 2 - x / (1 + T.sqr(y))) ** 3 - x // 0.5 + x % 0.7,
    "functions": T.exp(x) + T.log(T.abs_(y) + 1) + T.sqrt(T.sqr(x)) + T.tanh(y) + T.sin(x)
    + T.cos(y) + T.log1p(T.abs_(x)) + T.expm1(x) + T.sgn(x) + T.inv(y) + T.floor(x) + T.ceil(y)
    + T.round(x) + T.arctanh(x / 9) + T.sinh(x) + T.cosh(y) + T.log2(T.abs_(x))
    + T.log10(T.abs_(y)) + T.erf(x),
    "comparisons": T.switch((x > y) & (x < 2) | T.eq(x, y) | ~T.neq(x, x), x, -y),
    "bounds": T.clip(x, -0.5, 0.5) + T.maximum(x, y) + T.minimum(x, 0) + T.isnan(x) + T.isinf(y),
    "integers": (i * 3 + n) // 2 % 2,
    "broadcasting": x + v + v.dimshuffle("x", 0) * v.sum(),
    "dimshuffle": x.dimshuffle(1, "x", 0) + T.ones((3, 1, 4)),
    "dropped axis": x[:, :1].dimshuffle(1, 0)[0],
    "sums": x.sum() + y.sum(axis=0) + x.mean(axis=1, keepdims=True),
    "products and extremes": x.prod(axis=0) + x.max(axis=0) + y.min() + x.prod(),
    "argmax": T.argmax(x, axis=1) + T.max(x, axis=1),
    "all and any": T.all(x > -9, axis=0) + T.any(x > 0),
    "shapes": x.reshape((x.shape[0] * 3,)) + T.arange(0) .sum() + x.shape[1],
    "slices": x[1:, ::-1][::2] + x[n, 1],
    "slices from the end": x[-1:0:-2, n:],
    "set": T.set_subtensor(x[1:3, ::-2], y[:2, :2]),
    "add to a slice": T.inc_subtensor(x[::-1], v),
    "rows": y[i] + T.inc_subtensor(T.zeros_like(x)[i], x),
    "elements": x[T.arange(4), i],
    "add to elements": T.inc_subtensor(x[T.arange(4), i], v[i]),
    "joined": T.concatenate([x, y], axis=1) * T.stack([v[0], v[1], v[2]] * 2),
    "products": T.dot(x, y.T) + T.dot(x, v).dimshuffle(0, "x") + T.dot(v, v),
    "softmax": T.nnet.softmax(x) + T.nnet.softmax(y + v) + T.nnet.logsoftmax(x),
    "sigmoid": T.nnet.sigmoid(x) + T.nnet.softplus(y) + T.nnet.relu(x) + T.nnet.elu(y),
    "cross-entropy": T.nnet.categorical_crossentropy(T.nnet.softmax(x + v), i),
    "cross-entropy of any distribution": T.nnet.categorical_crossentropy(T.sqr(x), i),
    "clipped gradient": theano.grad((theano.gradient.grad_clip(x, -0.1, 0.1) * y).sum(), x),
    "types": T.cast(x, "int32") + T.cast(i, "float64").sum(),
}
DIFFERENTIATED = ("arithmetic", "bounds", "broadcasting", "sums", "rows",
                  "slices", "joined", "products", "softmax", "sigmoid", "cross-entropy",
                  "cross-entropy of any distribution", "add to elements")


def compare(expressions, given=GIVEN, updates=None):
    inputs = [each for each in theano.gof.graph.inputs(expressions) if each in given]
    values = [given[each] for each in inputs]
    expected = theano.function(inputs, expressions, mode=theano.Mode("py", "fast_compile"))(*values)
    device = open_device("torch-cpu")
    for result, wanted in zip(device.function(inputs, expressions)(*values), expected, strict=True):
        assert isinstance(result, np.ndarray) and result.dtype == wanted.dtype
        assert result.shape == wanted.shape
        np.testing.assert_allclose(result, wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_equals_theano(name):
    compare([EXPRESSIONS[name]])


@pytest.mark.parametrize("name", DIFFERENTIATED)
def test_gradients_equal_theanos(name):
    cost = T.sqr(EXPRESSIONS[name]).sum()
    inputs = [each for each in theano.gof.graph.inputs([cost]) if each in (x, y, v)]
    compare(theano.grad(cost, inputs))


ACTIVATIONS = ["sigmoid", "softmax", "tanh", "rectify", "leaky_rectify", "very_leaky_rectify",
               "softplus", "linear", "identity", "elu"]


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS
                                  if hasattr(lasagne.nonlinearities, name)])
def test_lasagnes_activations(name):
    result = getattr(lasagne.nonlinearities, name)(x)
    compare([result, theano.grad((result * y).sum(), x)])


@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov_momentum", "adagrad", "rmsprop",
                                  "adadelta", "adam"])
def test_lasagnes_update_rules(name):
    start = np.random.default_rng(3).normal(size=(4, 3))
    rule = getattr(lasagne.updates, name)
    options = {"learning_rate": 0.1}
    results = []
    for device in (open_device("torch-cpu"), None):
        parameter = theano.shared(start)
        updates = rule((T.sqr(parameter - x) * y ** 2).sum(), [parameter], **options)
        step = (device.function([x, y], updates=updates) if device else
                theano.function([x, y], updates=updates, mode=theano.Mode("py", "fast_compile")))
        for _ in range(5):
            step(GIVEN[x], GIVEN[y])
        results.append([on_torch.to_array(each.get_value(borrow=True)) for each in updates])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_lasagnes_constraints_on_norms():
    scaled, norm = lasagne.updates.total_norm_constraint([x, v], 0.5, return_norm=True)
    compare([*scaled, norm, lasagne.updates.norm_constraint(x, 0.3)])


def loops():
    running, _ = theano.scan(lambda row, total: total + row * v, sequences=x,
                             outputs_info=T.zeros_like(v))
    backwards, _ = theano.scan(lambda row, other: row * other, sequences=[x, y], go_backwards=True)
    fibonacci, _ = theano.scan(lambda a, b: 0.9 * a + b, n_steps=5,
                               outputs_info={"initial": x[:2], "taps": [-2, -1]})
    ended, _ = theano.scan(
        lambda total: (total * 2, theano.scan_module.until(total.sum() > 30)),
        outputs_info=T.abs_(v), n_steps=40)
    return {"running": running, "last": running[-1], "backwards": backwards,
            "two taps": fibonacci, "two taps, last": fibonacci[-1], "while": ended}


@pytest.mark.parametrize("name", loops())
def test_loops_equal_theanos(name):
    result = loops()[name]
    compare([result])
    if name != "while":
        inputs = [each for each in theano.gof.graph.inputs([result]) if each in (x, y, v)]
        compare(theano.grad(T.sqr(result).sum(), inputs))


def test_an_unknown_operation_is_named_when_the_function_is_compiled():
    with pytest.raises(UnknownOperation, match="the operation Cholesky") as caught:
        open_device("torch-cpu").function([x], T.slinalg.cholesky(T.dot(x.T, x)))
    assert isinstance(caught.value, UserError) and "\n" not in str(caught.value)
    with pytest.raises(UnknownOperation, match="the operation Psi"):
        open_device("torch-cpu").function([x], T.psi(x))


def test_results_and_shared_variables_are_not_overwritten():
    device, shared = open_device("torch-cpu"), theano.shared(np.zeros(3))
    step = device.function([v], shared + v, updates=[(shared, shared + v)])
    given = GIVEN[v].copy()
    first = step(given)
    kept, value = first.copy(), device.value(shared)
    step(given)
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(value, given)
    np.testing.assert_array_equal(given, GIVEN[v])
    np.testing.assert_allclose(device.value(shared), 2 * given)


def test_a_full_card_is_an_error_in_one_line(monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore lines")

    monkeypatch.setitem(SCALARS, theano.scalar.Exp, full)
    step = open_device("torch-cpu").function([x], T.exp(x))
    with pytest.raises(UserError, match="memory is full .*Tried to allocate 2 GiB") as caught:
        step(GIVEN[x])
    assert "\n" not in str(caught.value)
