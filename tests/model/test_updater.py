"""One update with the average of many gradients, against the slow forms it stands for."""

import functools

from model import engine  # noqa: F401  isort: skip

import lasagne
import numpy as np
import pytest
import theano
import theano.tensor as T
from lasagne.updates import adagrad, sgd, total_norm_constraint

from model.engine import dropout
from model.network import NetworkConfig, build_network, summed_loss
from model.updater import (
    accumulate_gradients,
    average_and_apply,
    average_norm,
    create_accumulators,
    update_state,
)

VOCABULARY = 9
RATE = 0.005
SEED = 3

pytestmark = pytest.mark.usefixtures("float64")


class Setup:
    """A tiny network, its two functions, and a way to start again from the same parameters."""

    def __init__(self, recurrence, device, recurrent_dropout=0.0):
        self.device = device
        # Without peepholes, with which Lasagne's own layer computes something else.
        self.network = build_network(
            NetworkConfig(4, peepholes=False, recurrence=recurrence,
                          recurrent_dropout=recurrent_dropout), VOCABULARY, device, SEED)
        self.params = self.network.parameters
        self.initial = [p.get_value() for p in self.params]
        x, y = T.imatrices("xy")
        loss = summed_loss(self.network, x, y)
        if not recurrent_dropout:
            self.gradients = device.function([x, y], T.grad(loss, self.params))
        self.accumulators = create_accumulators(self.params)
        self.accumulate = device.function(
            [x, y, self.network.masks.update], loss, on_unused_input="ignore",
            updates=accumulate_gradients(loss, self.params, self.accumulators, x.shape[0]))
        updates = average_and_apply(self.params, self.accumulators, adagrad, learning_rate=RATE)
        self.adagrad_sums = update_state(updates, self.params, self.accumulators)
        self.apply = device.function([], updates=updates)

    def reset(self):
        for param, value in zip(self.params, self.initial):
            param.set_value(value)
        for total in self.adagrad_sums:
            total.set_value(np.zeros_like(self.device.value(total)))

    def result(self):
        return self.values([*self.params, *self.adagrad_sums])

    def values(self, variables):
        return [self.device.value(variable).copy() for variable in variables]

    def expected(self, averages_of_windows):
        """Parameters and AdaGrad sums in numpy, after updates by given average gradients."""
        values = [v.copy() for v in self.initial]
        sums = [np.zeros_like(v) for v in self.initial]
        for averages in averages_of_windows:
            for value, total, gradient in zip(values, sums, averages):
                total += gradient**2
                value -= RATE * gradient / np.sqrt(total + 1e-6)
        return values + sums


@pytest.fixture(scope="module", params=["fused", "scan"])
def setup(request, device, float64):
    return Setup(request.param, device)


@pytest.fixture
def windows(random):
    """Windows of (inputs, targets) micro-batches: lengths, sizes and counts all vary."""
    shapes = [[(3, 5), (2, 7), (1, 2)], [(4, 3)], [(1, 6), (5, 2)], [(2, 4)] * 3]
    return [[tuple(random.integers(0, VOCABULARY, (2, *shape)).astype("int32"))
             for shape in window] for window in shapes]


def run(setup, windows):
    setup.reset()
    for update, window in enumerate(windows):
        for inputs, targets in window:
            setup.accumulate(inputs, targets, update)
        assert setup.device.value(setup.accumulators.count) == sum(len(x) for x, _ in window)
        setup.apply()
        assert setup.device.value(setup.accumulators.count) == 0
        assert not any(sums.any() for sums in setup.values(setup.accumulators.gradients))
    return setup.result()


def assert_equal(got, want):
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-13)


def test_equals_the_average_of_a_list_of_gradients(setup, windows):
    got = run(setup, windows)
    setup.reset()
    averages = []
    for window in windows:
        collected = [setup.gradients(x[n:n + 1], y[n:n + 1])
                     for x, y in window for n in range(len(x))]
        averages.append([np.mean(gradients, axis=0) for gradients in zip(*collected)])
        # The parameters move between windows, so the slow form moves them too.
        for param, value in zip(setup.params, setup.expected(averages)):
            param.set_value(value)
    assert_equal(got, setup.expected(averages))


def test_equals_reducing_pairs_and_dividing_by_a_varying_count(setup, windows):
    got = run(setup, windows)
    setup.reset()
    averages = []
    for window in windows:
        pairs = [(setup.gradients(x, y), len(x)) for x, y in window]
        total, count = functools.reduce(
            lambda a, b: ([p + q for p, q in zip(a[0], b[0])], a[1] + b[1]), pairs)
        averages.append([gradient / count for gradient in total])
        for param, value in zip(setup.params, setup.expected(averages)):
            param.set_value(value)
    assert_equal(got, setup.expected(averages))


def test_equals_one_big_masked_batch(setup, windows):
    """Lasagne's own layer and mask on ragged sentences, one gradient for the whole window."""
    nothing_dropped = np.ones((len(windows), 4, 4, 4))
    assert_equal(run(setup, windows), one_masked_batch_each(setup, windows, nothing_dropped))


def test_dropped_recurrent_weights_are_the_same_ones_in_one_big_masked_batch(device, windows):
    """As above, with weights that are multiplied by the masks of the update."""
    rate = 0.4
    setup = Setup("fused", device, rate)
    masks = [[dropout(T.ones((1, 4, 4)), np.int64(update), np.int64(0), rate=rate, seed=SEED,
                      stream=2**16 + gate).eval()[0] for gate in range(4)]
             for update in range(len(windows))]
    assert len({mask.tobytes() for of_update in masks for mask in of_update}) > 8
    assert_equal(run(setup, windows), one_masked_batch_each(setup, windows, masks))


def one_masked_batch_each(setup, windows, masks):
    """Parameters and AdaGrad sums after an update by each window, as one padded batch.

    `masks` has for each window what the recurrent weights of each gate are multiplied by.
    """
    one_hot, mask, y = T.tensor3("one_hot"), T.matrix("mask"), T.imatrix("y")
    input_layer = lasagne.layers.InputLayer((None, None, VOCABULARY), one_hot)
    mask_layer = lasagne.layers.InputLayer((None, None), mask)
    hidden = lasagne.layers.LSTMLayer(input_layer, 4, peepholes=False, grad_clipping=5.0,
                                      mask_input=mask_layer)
    rows = lasagne.layers.ReshapeLayer(hidden, (-1, 4))
    output = lasagne.layers.DenseLayer(rows, VOCABULARY,
                                       nonlinearity=lasagne.nonlinearities.softmax)
    losses = lasagne.objectives.categorical_crossentropy(
        lasagne.layers.get_output(output), y.flatten())
    loss = (losses * mask.flatten()).sum() / mask.shape[0]
    params = lasagne.layers.get_all_params(output, trainable=True)
    recurrent = [p for p in params if "W_hid_to_" in p.name]
    of_update = T.dmatrices(len(recurrent))
    loss = theano.clone(loss, {p: p * given for p, given in zip(recurrent, of_update)})
    assert [p.name.split(".")[-1] for p in params] == [
        p.name.split(".")[-1] for p in setup.params]
    updates = adagrad(loss, params, learning_rate=RATE)
    step = setup.device.function([one_hot, mask, y, *of_update], updates=updates)
    for param, value in zip(params, setup.initial):
        param.set_value(value)
    for window, of_window in zip(windows, masks, strict=True):
        longest = max(x.shape[1] for x, _ in window)
        padded, targets, present = [], [], []
        for x, y_values in window:
            pad = ((0, 0), (0, longest - x.shape[1]))
            padded.append(np.pad(x, pad))
            targets.append(np.pad(y_values, pad))
            present.append(np.pad(np.ones(x.shape), pad))
        step(np.eye(VOCABULARY)[np.concatenate(padded)], np.concatenate(present),
             np.concatenate(targets), *of_window)
    state = [v for v in updates if v not in params]
    return setup.values([*params, *state])


def test_the_accumulators_hold_the_summed_gradient(setup, windows):
    setup.reset()
    for inputs, targets in windows[0]:
        setup.accumulate(inputs, targets, 0)
    sums = [np.sum(g, axis=0) for g in zip(*(setup.gradients(x, y) for x, y in windows[0]))]
    assert_equal(setup.values(setup.accumulators.gradients), sums)
    setup.apply()


def test_the_seed_networks_one_hot_input_gives_the_same_sums(setup, windows):
    setup.reset()
    one_hot, y = T.tensor3("one_hot"), T.imatrix("y")
    loss = summed_loss(setup.network, one_hot, y)
    accumulators = create_accumulators(setup.params)
    accumulate = setup.device.function(
        [one_hot, y], loss,
        updates=accumulate_gradients(loss, setup.params, accumulators, one_hot.shape[0]))
    for inputs, targets in windows[0]:
        a = accumulate(np.eye(VOCABULARY)[inputs], targets)
        b = setup.accumulate(inputs, targets, 0)
        np.testing.assert_allclose(a, b, rtol=1e-12)
    assert_equal(setup.values(accumulators.gradients),
                 setup.values(setup.accumulators.gradients))
    setup.apply()


@pytest.mark.parametrize("max_norm", [0.01, 1e6])
def test_the_norm_of_the_average_is_bounded_as_lasagne_does(setup, windows, max_norm):
    """Of all parameters together; the figure that is told is the norm before."""
    setup.reset()
    accumulators = create_accumulators(setup.params)
    updates = average_and_apply(setup.params, accumulators, sgd, max_norm=max_norm,
                                learning_rate=RATE)
    apply = setup.device.function([], average_norm(updates, accumulators), updates=updates)
    gradients = [sum(each) for each in zip(*(setup.gradients(x, y) for x, y in windows[0]))]
    sentences = sum(len(x) for x, _ in windows[0])
    for total, gradient in zip(accumulators.gradients, gradients):
        total.set_value(gradient)
    accumulators.count.set_value(np.int64(sentences))
    norm = apply()
    averages = [gradient / sentences for gradient in gradients]
    np.testing.assert_allclose(
        norm, np.sqrt(sum(np.square(each).sum() for each in averages)), rtol=1e-12)
    assert (norm > max_norm) == (max_norm < 1)
    constants = [theano.shared(each) for each in averages]
    bounded = theano.function([], total_norm_constraint(constants, max_norm))()
    assert_equal(setup.values(setup.params),
                 [value - RATE * each for value, each in zip(setup.initial, bounded)])


def test_decayed_weights_shrink_by_their_share_beside_the_update(setup, windows):
    setup.reset()
    accumulators = create_accumulators(setup.params)
    updates = average_and_apply(setup.params, accumulators, sgd, weight_decay=0.1,
                                learning_rate=RATE)
    apply = setup.device.function([], updates=updates)
    averages = setup.gradients(*windows[0][0])
    for total, average in zip(accumulators.gradients, averages):
        total.set_value(3 * average)
    accumulators.count.set_value(np.int64(3))
    apply()
    assert_equal(setup.values(setup.params),
                 [(1 - 0.1) * value - RATE * average
                  for value, average in zip(setup.initial, averages)])
