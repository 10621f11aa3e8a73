"""The network's loss and gradients against numpy, Lasagne and finite differences."""

from model import engine  # noqa: F401  isort: skip

import lasagne
import numpy as np
import pytest
import theano.tensor as T

from model.engine.dropout_op import philox
from model.layers import DropoutLayer, LSTMLayer
from model.network import NetworkConfig, build_network, log_probabilities, summed_loss
from tests.lstm_reference import forward_and_gradients

VOCABULARY = 11

pytestmark = pytest.mark.usefixtures("float64")


def named_values(network):
    """The network's parameters by the names that the reference uses."""
    params = lasagne.layers.get_all_params(network.output)
    return {p.name.replace("softmax.", "softmax_").replace("lstm1.", ""): p.get_value()
            for p in params}


def randomize(network, random, scale=0.5):
    for param in lasagne.layers.get_all_params(network.output):
        param.set_value(random.normal(0, scale, param.get_value().shape))


@pytest.mark.parametrize("recurrence", ["fused", "scan"])
@pytest.mark.parametrize(
    "peepholes, grad_clipping", [(True, 0.0), (True, 0.02), (False, 0.02)])
def test_loss_and_gradients_equal_the_numpy_reference(random, device, peepholes, grad_clipping,
                                                      recurrence):
    config = NetworkConfig(5, peepholes=peepholes, grad_clipping=grad_clipping, learn_init=True,
                           recurrence=recurrence)
    network = build_network(config, VOCABULARY, device)
    randomize(network, random)
    x, y = T.imatrices("xy")
    loss = summed_loss(network, x, y)
    compute = device.function([x, y], [loss, *T.grad(loss, network.parameters)])
    inputs, targets = random.integers(0, VOCABULARY, (2, 3, 7)).astype("int32")
    got_loss, *got = compute(inputs, targets)
    want_loss, want = forward_and_gradients(named_values(network), inputs, targets,
                                            grad_clipping=grad_clipping, peepholes=peepholes)
    np.testing.assert_allclose(got_loss, want_loss, rtol=1e-10)
    for param, gradient in zip(network.parameters, got):
        name = param.name.replace("softmax.", "softmax_").replace("lstm1.", "")
        np.testing.assert_allclose(gradient, want[name], rtol=1e-8, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("drops", [{}, {"dropout": 0.3, "recurrent_dropout": 0.4,
                                        "input_dropout": 0.3}])
def test_gradient_equals_finite_differences(random, device, drops):
    network = build_network(NetworkConfig(3, num_layers=2, **drops), VOCABULARY, device, seed=5)
    randomize(network, random)
    x, y = T.imatrices("xy")
    loss = summed_loss(network, x, y)
    places = [network.masks.update, network.masks.sentence]
    gradients = device.function([x, y, *places], T.grad(loss, network.parameters),
                                on_unused_input="ignore")
    value = device.function([x, y, *places], loss, on_unused_input="ignore")
    inputs, targets = random.integers(0, VOCABULARY, (2, 2, 4)).astype("int32")
    given = inputs, targets, 7, 3
    for param, gradient in zip(network.parameters, gradients(*given)):
        direction = random.normal(size=gradient.shape)
        before = param.get_value()
        splits = []
        for step in (1e-5, -1e-5):
            param.set_value(before + step * direction)
            splits.append(value(*given))
        param.set_value(before)
        # The losses are about 20, of which a difference has 2e-16 * 20 / 2e-5 as rounding error.
        np.testing.assert_allclose((splits[0] - splits[1]) / 2e-5, (gradient * direction).sum(),
                                   rtol=1e-6, atol=1e-9, err_msg=param.name)


def test_one_hot_input_equals_its_indices(random, device):
    network = build_network(NetworkConfig(4, recurrence="scan"), VOCABULARY, device)
    x, y = T.imatrices("xy")
    one_hot = T.tensor3("one_hot")
    from_indices = summed_loss(network, x, y)
    from_one_hot = summed_loss(network, one_hot, y)
    compute = device.function(
        [x, one_hot, y],
        [from_indices, from_one_hot, *T.grad(from_indices, network.parameters),
         *T.grad(from_one_hot, network.parameters)])
    inputs, targets = random.integers(0, VOCABULARY, (2, 3, 5)).astype("int32")
    first, second, *gradients = compute(inputs, np.eye(VOCABULARY)[inputs], targets)
    np.testing.assert_allclose(first, second, rtol=1e-12)
    half = len(gradients) // 2
    for a, b in zip(gradients[:half], gradients[half:]):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("recurrence", ["fused", "scan"])
def test_layer_equals_lasagnes_without_peepholes(random, device, recurrence):
    one_hot = T.tensor3("one_hot")
    input_layer = lasagne.layers.InputLayer((None, None, VOCABULARY))
    ours = LSTMLayer(input_layer, 4, peepholes=False, recurrence=recurrence)
    stock = lasagne.layers.LSTMLayer(input_layer, 4, peepholes=False)
    for a, b in zip(ours.get_params(), stock.get_params()):
        assert a.name == b.name
        b.set_value(a.get_value())
    outputs = lasagne.layers.get_output([ours, stock], one_hot)
    a, b = device.function([one_hot], outputs)(random.normal(size=(2, 6, VOCABULARY)))
    np.testing.assert_allclose(a, b, rtol=1e-10)


def test_log_probabilities_sum_to_the_loss_and_ignore_dropout(random, device):
    network = build_network(NetworkConfig(4, dropout=0.5), VOCABULARY, device)
    x, y = T.imatrices("xy")
    compute = device.function([x, y], log_probabilities(network, x, y))
    inputs, targets = random.integers(0, VOCABULARY, (2, 3, 5)).astype("int32")
    values = compute(inputs, targets)
    assert values.shape == (3, 5)
    want, _ = forward_and_gradients(named_values(network), inputs, targets)
    np.testing.assert_allclose(-values.sum(), want, rtol=1e-10)
    one = compute(inputs[1:2], targets[1:2])
    np.testing.assert_allclose(one, values[1:2], rtol=1e-12)


@pytest.mark.parametrize("recurrence", ["fused", "scan"])
def test_dropped_weights_equal_the_numpy_reference(random, device, recurrence):
    """The reference with weights of which some are zero; the masks by numpy's own generator."""
    rate, of_inputs, seed, update, units = 0.4, 0.3, 5, 7, 6
    config = NetworkConfig(units, recurrent_dropout=rate, input_dropout=of_inputs,
                           recurrence=recurrence)
    network = build_network(config, VOCABULARY, device, seed)
    randomize(network, random)
    x, y = T.imatrices("xy")
    loss = summed_loss(network, x, y)
    compute = device.function([x, y, network.masks.update],
                              [loss, *T.grad(loss, network.parameters)])
    masks = {}
    for gate, name in enumerate(("ingate", "forgetgate", "cell", "outgate")):
        words = philox([np.arange(-(-units // 4)), 0, np.arange(units)[:, np.newaxis],
                        2**16 + gate], [seed, update])
        numbers = np.stack(np.broadcast_arrays(*words), -1).reshape(units, -1)[:, :units]
        masks[f"W_hid_to_{name}"] = (numbers < (1 - rate) * 2**32) / (1 - rate)
    dropped = np.mean([mask == 0 for mask in masks.values()])
    assert 0.2 < dropped < 0.6
    # A number for each word, the first of its four, and the word with all its weights.
    words = philox([0, 0, np.arange(VOCABULARY), 2**17], [seed, update])
    kept = ((words[0] < (1 - of_inputs) * 2**32) / (1 - of_inputs))[:, np.newaxis]
    assert 0 < np.mean(kept == 0) < 0.7
    masks |= {f"W_in_to_{name}": kept for name in ("ingate", "forgetgate", "cell", "outgate")}
    inputs, targets = random.integers(0, VOCABULARY, (2, 3, 7)).astype("int32")
    values = named_values(network)
    got_loss, *got = compute(inputs, targets, update)
    want_loss, want = forward_and_gradients(
        {name: value * masks.get(name, 1) for name, value in values.items()}, inputs, targets,
        grad_clipping=config.grad_clipping)
    np.testing.assert_allclose(got_loss, want_loss, rtol=1e-10)
    for param, gradient in zip(network.parameters, got):
        name = param.name.replace("softmax.", "softmax_").replace("lstm1.", "")
        np.testing.assert_allclose(gradient, want[name] * masks.get(name, 1), rtol=1e-8,
                                   atol=1e-10, err_msg=name)
    assert compute(inputs, targets, update + 1)[0] != got_loss


def test_only_words_lose_their_weights(random, device):
    """A second layer's inputs are no words."""
    network = build_network(NetworkConfig(4, num_layers=2, input_dropout=0.5), VOCABULARY, device)
    assert [layer.input_dropout for layer in lasagne.layers.get_all_layers(network.output)
            if isinstance(layer, LSTMLayer)] == [0.5, 0]


def test_log_probabilities_ignore_dropped_weights(random, device):
    config = NetworkConfig(4, recurrent_dropout=0.5, input_dropout=0.5)
    network = build_network(config, VOCABULARY, device)
    x, y = T.imatrices("xy")
    compute = device.function([x, y], log_probabilities(network, x, y))
    inputs, targets = random.integers(0, VOCABULARY, (2, 3, 5)).astype("int32")
    want, _ = forward_and_gradients(named_values(network), inputs, targets)
    np.testing.assert_allclose(-compute(inputs, targets).sum(), want, rtol=1e-10)


def test_dropout_acts_in_training_and_on_each_layer(random, device):
    network = build_network(NetworkConfig(8, num_layers=2, dropout=0.5), VOCABULARY, device, seed=3)
    x, y = T.imatrices("xy")
    compute = device.function([x, y, network.masks.update, network.masks.sentence],
                              summed_loss(network, x, y))
    inputs, targets = random.integers(0, VOCABULARY, (2, 3, 5)).astype("int32")
    losses = [float(compute(inputs, targets, *place)) for place in ((0, 0), (1, 0), (0, 1))]
    assert len(set(losses)) == 3
    assert compute(inputs, targets, 0, 0) == losses[0]
    # The sentences one by one, each with its number, have the same masks.
    one_by_one = [compute(inputs[n:n + 1], targets[n:n + 1], 0, n) for n in range(3)]
    np.testing.assert_allclose(sum(one_by_one), losses[0], rtol=1e-12)
    streams = [layer.number for layer in lasagne.layers.get_all_layers(network.output)
               if isinstance(layer, DropoutLayer)]
    assert streams == [0, 1]
