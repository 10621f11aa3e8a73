"""The same training on every device: numbers, checkpoints, and what is said where there is none."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from model import engine  # noqa: F401  isort: skip

import theano

from model.configuration import OPTIMISERS, NetworkConfig, TrainingConfig
from model.engine import open_device
from model.system.errors import BadInput, UserError
from model.trainer import Trainer

VOCABULARY = 11
CONFIG = dict(
    rate=0.01, window=6, micro_batch_sentences=4, micro_batch_tokens=64, max_epochs=1,
    max_minutes=0, cooldown=0, validations_per_epoch=1, patience=1, shards_in_memory=1, seed=3)
NETWORK = NetworkConfig(6, num_layers=2, learn_init=True, dropout=0.3, recurrent_dropout=0.2,
                        input_dropout=0.2, grad_clipping=0.05)


@pytest.fixture(params=[pytest.param("torch-cpu", marks=pytest.mark.extras),
                        pytest.param("cuda", marks=pytest.mark.card)])
def other(request, torch_installed):
    """A device that computes by PyTorch."""
    if request.param == "cuda" and not torch_installed.cuda.is_available():
        pytest.skip("there is no graphics card")
    return request.param


@pytest.fixture
def double():
    with theano.configparser.change_flags(floatX="float64"):
        yield


def trainer(device, network=NETWORK, optimiser="adam", denominator="sentences", **changes):
    config = TrainingConfig(**{**CONFIG, **changes}, optimiser=optimiser, denominator=denominator)
    return Trainer(network, config, VOCABULARY, open_device(device, config.precision))


def train(trainers, random, updates, first=0):
    """The same windows for all trainers; the losses and norms of each."""
    told = [[] for _ in trainers]
    for update in range(first, first + updates):
        sentence = 0
        for shape in ((3, 5), (2, 7), (1, 2)):
            inputs, targets = random.integers(0, VOCABULARY, (2, *shape)).astype("int32")
            for each in trainers:
                each.accumulate(inputs, targets, update=update, sentence=sentence)
            sentence += shape[0]
        for each, figures in zip(trainers, told):
            figures += [each.loss(), each.apply(0.01)]
    return told


def assert_close(states, tolerance):
    a, b = states
    assert list(a.parameters) == list(b.parameters)
    for one, other in zip([*a.parameters.values(), *a.optimiser],
                          [*b.parameters.values(), *b.optimiser], strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("optimiser, denominator", [
    *((optimiser, "sentences") for optimiser in OPTIMISERS), ("adam", "tokens")])
@pytest.mark.usefixtures("double")
def test_twenty_windows_in_double_precision(random, other, optimiser, denominator):
    trainers = [trainer(device, optimiser=optimiser, denominator=denominator)
                for device in ("cpu", other)]
    told = train(trainers, random, 20)
    np.testing.assert_allclose(*told, rtol=1e-10)
    assert_close([each.state() for each in trainers], 1e-10)
    inputs, targets = random.integers(0, VOCABULARY, (2, 3, 5)).astype("int32")
    np.testing.assert_allclose(*(each.log_probabilities(inputs, targets) for each in trainers),
                               rtol=1e-10)


def test_single_precision(random, other):
    trainers = [trainer(device) for device in ("cpu", other)]
    np.testing.assert_allclose(*train(trainers, random, 5), rtol=1e-4)
    assert_close([each.state() for each in trainers], 1e-3)


@pytest.mark.parametrize("from_the_processor", [True, False])
@pytest.mark.usefixtures("double")
def test_another_device_goes_on(other, from_the_processor):
    """Three updates on one and three on the other are six on the first."""
    whole, second = map(trainer, ["cpu", other] if from_the_processor else [other, "cpu"])
    windows = np.random.default_rng(1)
    train([whole], windows, 3)
    second.restore(whole.state())
    train([whole, second], windows, 3, first=3)
    assert_close([whole.state(), second.state()], 1e-10)


def test_half_precision_is_near_and_not_the_same(random, other):
    single, half = (trainer(other, precision=precision) for precision in ("single", "bf16"))
    losses = train([single, half], random, 3)
    assert losses[0] != losses[1]
    np.testing.assert_allclose(*losses, rtol=0.02)
    assert half.state().parameters["softmax.W"].dtype == "float32"


@pytest.mark.parametrize("device, precision, said", [
    ("cpu", "bf16", "needs a card"), ("cpu", "tf32", "needs a card"),
    ("torch-cpu", "tf32", "needs a card")])
def test_a_precision_that_only_a_card_has(device, precision, said):
    with pytest.raises(BadInput, match=said):
        open_device(device, precision)


def test_without_pytorch_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match="make run DEVICE=torch-cpu") as caught:
        open_device("torch-cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.extras
@pytest.mark.usefixtures("torch_installed")
def test_without_a_card_the_error_is_one_line():
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    with pytest.raises(UserError, match="device = cuda:1: PyTorch") as caught:
        open_device("cuda:1")
    assert "\n" not in str(caught.value)


def test_theanos_own_device_has_nothing_to_tell_of_a_card():
    device = open_device("cpu")
    assert device.facts() == {"device": "cpu", "precision": "single", "peak_device_memory": None}
    device.check_memory(10**18)
    variable = theano.shared(np.arange(3))
    assert device.value(variable) is variable.get_value(borrow=True)


class Card:
    """What PyTorch would say of a machine with two cards."""

    def __init__(self, free=20e9, capability=(9, 0), available=True, cuda="13.0"):
        self.version = SimpleNamespace(cuda=cuda, hip=None)
        self.__version__ = "2.13.0"
        self.cuda = SimpleNamespace(
            is_available=lambda: available, init=self.init, device_count=lambda: 2,
            get_device_name=lambda number: "a card", max_memory_allocated=lambda device: 7,
            get_device_capability=lambda number: capability,
            mem_get_info=lambda device: (free, 24e9))

    @staticmethod
    def init():
        raise RuntimeError("Found no NVIDIA driver on your system.\nPlease check")


@pytest.fixture
def on_card(torch_installed):
    """A function that gives a device which believes in a card."""
    def make(card, name="cuda", precision="single"):
        device = open_device("torch-cpu")
        found = type(device).__new__(type(device))
        found.__dict__ = {**device.__dict__, "name": name, "precision": precision,
                          "_torch": card, "_device": SimpleNamespace(type="cuda")}
        return found

    return make


@pytest.mark.extras
@pytest.mark.parametrize("card, number, precision, said", [
    (Card(cuda=None), 0, "single", "PyTorch 2.13.0 here is the build for the processor alone"),
    (Card(available=False), 0, "single", "finds no card that it can use: Found no NVIDIA driver"),
    (Card(), 2, "single", "there are 2 cards here, counted from 0: a card, a card"),
    (Card(capability=(7, 5)), 0, "tf32", "a card has no such products; take single")])
def test_what_is_missing_is_told_in_one_line(on_card, card, number, precision, said):
    with pytest.raises(UserError, match=said) as caught:
        on_card(card, precision=precision)._check_card(number)
    assert "\n" not in str(caught.value)


@pytest.mark.extras
def test_a_card_with_too_little_memory_is_refused(on_card):
    on_card(Card(free=6e9)).check_memory(int(5e9))
    with pytest.raises(UserError, match=r"a card has 5\.0 GB of 24\.0 GB free, and this training "
                                        r"needs about 5\.8 GB\. ") as caught:
        on_card(Card(free=5e9)).check_memory(int(5e9))
    assert "\n" not in str(caught.value)


@pytest.mark.extras
def test_a_card_tells_its_name_and_the_most_that_was_taken(on_card):
    assert on_card(Card(), "cuda:1", "tf32").facts() == {
        "device": "cuda:1, a card", "precision": "tf32", "peak_device_memory": 7}
