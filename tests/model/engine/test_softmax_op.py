"""The fused softmax layer against Lasagne's layer and loss, and finite differences."""

from model import engine  # noqa: F401  isort: skip

import lasagne
import numpy as np
import pytest
import theano
import theano.tensor as T

from model.engine import available, softmax_crossentropy, weights_gradient

pytestmark = pytest.mark.skipif(available() is not None, reason=str(available()))


def make_arrays(rows, units, classes, dtype="float64"):
    random = np.random.default_rng(0)
    return (random.normal(size=(rows, units)).astype(dtype),
            random.normal(size=(units, classes)).astype(dtype),
            random.normal(size=classes).astype(dtype),
            random.integers(classes, size=rows))


def softmax_by_numpy(hidden, W, b, targets):
    """The losses, and their gradients for hidden, W and b."""
    logits = hidden @ W + b
    logits -= logits.max(1, keepdims=True)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    rows = np.arange(len(targets))
    losses = -np.log(probabilities[rows, targets])
    probabilities[rows, targets] -= 1
    return losses, probabilities @ W.T, hidden.T @ probabilities, probabilities.sum(0)


@pytest.mark.parametrize("weighted", [False, True])
# The rows of the last are more than one block.
@pytest.mark.parametrize("shape", [
    (1, 1, 2), (7, 5, 3), (40, 33, 65), (200, 70, 130), (1100, 6, 37)])
def test_equals_lasagne(shape, weighted):
    rows, units, classes = shape
    hidden, W, b, targets = make_arrays(*shape)
    x, y, row_weights = T.dmatrix(), T.lvector(), T.dvector()
    layer = lasagne.layers.DenseLayer(lasagne.layers.InputLayer((None, units)), classes, W=W, b=b,
                                      nonlinearity=lasagne.nonlinearities.softmax)
    losses = [
        lasagne.objectives.categorical_crossentropy(layer.get_output_for(x), y),
        softmax_crossentropy(x, layer.W, layer.b, y),
    ]
    results = []
    for loss in losses:
        total = (loss * row_weights).sum() if weighted else loss.sum()
        gradients = theano.grad(total, [x, layer.W, layer.b])
        compute = theano.function([x, y, row_weights], [loss, *gradients],
                                  on_unused_input="ignore")
        results.append(compute(hidden, targets, np.linspace(-1, 1, rows)))
    for expected, result in zip(*results, strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-10, atol=1e-12)


def operations(function):
    return [type(node.op).__name__ for node in function.maker.fgraph.toposort()]


def test_nothing_is_computed_twice():
    """Losses, and gradients of which some are accumulated: all from one node."""
    hidden, W, b, targets = make_arrays(9, 6, 5)
    parameters = [theano.shared(each) for each in (hidden, W, b)]
    accumulators = [theano.shared(np.zeros_like(each)) for each in (W, b)]
    losses = softmax_crossentropy(*parameters, targets)
    d_hidden, *gradients = theano.grad(losses.sum(), parameters)
    updates = zip(accumulators, weights_gradient.accumulate(accumulators, gradients))
    both = theano.function([], [losses, d_hidden], updates=list(updates))
    assert operations(both).count("SoftmaxGradients") == 1
    assert "SoftmaxCrossEntropy" not in operations(both)
    alone = theano.function([], losses)
    assert operations(alone) == ["SoftmaxCrossEntropy"]
    np.testing.assert_array_equal(alone(), both()[0])


def test_a_gradient_that_depends_on_the_losses():
    hidden, W, b, targets = make_arrays(9, 6, 5)
    variables = [theano.shared(each) for each in (hidden, W, b)]
    losses = softmax_crossentropy(*variables, targets)
    squared = theano.function([], [losses, *theano.grad(T.sqr(losses).sum(), variables)])
    weights = T.dvector()
    weighted = theano.function([weights], theano.grad((weights * losses).sum(), variables))
    found, *gradients = squared()
    for gradient, expected in zip(gradients, weighted(2 * found), strict=True):
        np.testing.assert_allclose(gradient, expected, rtol=1e-12)


def test_gradient_by_finite_differences():
    hidden, W, b, targets = make_arrays(3, 4, 5)
    theano.gradient.verify_grad(
        lambda *variables: softmax_crossentropy(*variables, targets), [hidden, W, b],
        rng=np.random.RandomState(0))


def test_single_precision():
    hidden, W, b, targets = make_arrays(150, 64, 301, "float32")
    expected = softmax_by_numpy(hidden.astype("float64"), W, b, targets)
    variables = [theano.shared(array) for array in (hidden, W, b)]
    losses = softmax_crossentropy(*variables, targets)
    results = theano.function([], [losses, *theano.grad(losses.sum(), variables)])()
    for result, value in zip(results, expected, strict=True):
        assert result.dtype == "float32"
        np.testing.assert_allclose(result, value, rtol=0, atol=3e-6 * np.abs(value).max())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_improbable_targets_and_large_logits(dtype):
    hidden = np.array([[1000.0], [-1000.0]], dtype)
    W = np.array([[0.0, 1.0, -1.0]], dtype)
    losses = softmax_crossentropy(hidden, W, np.zeros(3, dtype), np.array([0, 1])).eval()
    np.testing.assert_allclose(losses, [1000, 2000])


def test_not_a_number_passes_through():
    hidden, W, b, targets = make_arrays(4, 40, 50, "float32")
    hidden[2, 3] = np.nan
    losses = softmax_crossentropy(hidden, W, b, targets).eval()
    assert np.isnan(losses[2]) and np.isfinite(np.delete(losses, 2)).all()


def test_accumulates_in_place():
    hidden, W, b, targets = make_arrays(9, 6, 5)
    parameters = [theano.shared(W), theano.shared(b)]
    accumulators = [theano.shared(np.ones_like(array)) for array in (W, b)]
    x, y = T.dmatrix(), T.ivector()
    gradients = theano.grad(softmax_crossentropy(x, *parameters, y).sum(), parameters)
    accumulate = theano.function(
        [x, y], updates=list(zip(
            accumulators, weights_gradient.accumulate(accumulators, gradients))))
    compute = theano.function([x, y], gradients)
    memory = [accumulator.get_value(borrow=True, return_internal_type=True).ctypes.data
              for accumulator in accumulators]
    accumulate(hidden, targets.astype(np.int32))
    accumulate(hidden[:4], targets[:4].astype(np.int32))
    all_rows = compute(hidden, targets.astype(np.int32))
    some_rows = compute(hidden[:4], targets[:4].astype(np.int32))
    expected = [1 + first + second for first, second in zip(all_rows, some_rows)]
    for accumulator, total, address in zip(accumulators, expected, memory):
        value = accumulator.get_value(borrow=True, return_internal_type=True)
        np.testing.assert_allclose(value, total, rtol=1e-12)
        assert value.ctypes.data == address


@pytest.mark.parametrize("target", [-1, 5])
def test_target_that_is_no_class(target):
    hidden, W, b, targets = make_arrays(3, 4, 5)
    targets[1] = target
    with pytest.raises(IndexError, match="targets must be from 0 to 4"):
        softmax_crossentropy(hidden, W, b, targets).eval()


def test_wrong_shapes_and_types():
    hidden, W, b, targets = make_arrays(3, 4, 5)
    with pytest.raises(ValueError, match="shapes do not fit"):
        softmax_crossentropy(hidden, W.T, b, targets).eval()
    with pytest.raises(TypeError, match="float64"):
        softmax_crossentropy(hidden.astype("float32"), W, b, targets)


def test_weights_that_are_kept_packed_are_seen_to_change():
    """Whatever number changes, and whatever was computed before, with other weights or backward."""
    x, W, b, y = T.dmatrix(), T.dmatrix(), T.dvector(), T.lvector()
    losses = softmax_crossentropy(x, W, b, y)
    forward = theano.function([x, W, b, y], losses)
    both = theano.function([x, W, b, y], [losses, *theano.grad(losses.sum(), [x, W, b])])
    # The first has more units than are packed in one block.
    for units, classes in ((1030, 67), (5, 300), (1030, 67)):
        hidden, weights, bias, targets = make_arrays(15, units, classes)
        hidden /= units
        for place in ((0, 0), (-1, -1), (units // 2, classes // 2), (0, 0)):
            for functions in ((forward, both), (both, forward, both)):
                weights[place] += 3
                expected = softmax_by_numpy(hidden, weights, bias, targets)
                for function in functions:
                    found = function(hidden, weights, bias, targets)
                    for one, value in zip(found if function is both else [found], expected):
                        np.testing.assert_allclose(one, value, rtol=1e-9, atol=1e-12)
