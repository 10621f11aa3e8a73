"""Every operation of a training, one by one, on tensors of a card that is not there."""

import numpy as np
import pytest

pytestmark = pytest.mark.extras
torch = pytest.importorskip("torch", reason="PyTorch is not there; make test-extras installs it")

from model import engine  # noqa: E402, F401  isort: skip

import theano  # noqa: E402
from theano.tensor.elemwise import Elemwise  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402

from model.configuration import NetworkConfig, TrainingConfig  # noqa: E402
from model.engine import Device, on_torch  # noqa: E402
from model.engine.on_torch.operations import OPERATIONS  # noqa: E402
from model.trainer import Trainer  # noqa: E402

CONFIG = TrainingConfig(
    optimiser="adam", rate=0.01, window=6, denominator="tokens", micro_batch_sentences=4,
    micro_batch_tokens=64, max_epochs=1, max_minutes=0, cooldown=0, validations_per_epoch=1,
    patience=1, shards_in_memory=1, seed=3)


class Watched(Device):
    """PyTorch's tensors on the processor; keeps each node, what it was given and what it gave."""

    def __init__(self):
        super().__init__("torch-cpu")
        self.calls = []

    def function(self, inputs, outputs=None, **options):
        context = on_torch.Context(torch.device("cpu"))
        return theano.function(inputs, outputs, mode=on_torch.mode(context), **options)

    def value(self, variable):
        return on_torch.to_array(variable.get_value(borrow=True))


@pytest.fixture(scope="module")
def calls():
    found = []
    get = OPERATIONS.get

    def watched(node):
        make = get(node)

        def maker(node, context):
            function = make(node, context)

            def call(*given):
                results = function(*given)
                found.append((node, given, results))
                return results

            return call

        return maker

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OPERATIONS, "get", watched)
        device = Watched()
        network = NetworkConfig(6, num_layers=2, learn_init=True, dropout=0.3)
        trainer = Trainer(network, CONFIG, 11, device)
        inputs, targets = np.random.default_rng(0).integers(0, 11, (2, 3, 5)).astype("int32")
        trainer.accumulate(inputs, targets, update=0, sentence=0)
        trainer.apply(0.01)
        trainer.log_probabilities(inputs, targets)
    return found


def on_the_processor(tensor):
    """Whether it stays there whatever the device: integer scalars, and shapes made of them."""
    return tensor.ndim <= 1 and not tensor.is_floating_point() and tensor.numel() < 4


def test_all_stays_on_the_card(calls):
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    context = on_torch.Context(torch.device("cuda"))

    def fake(tensor):
        return torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")

    met = set()
    for node, given, results in calls:
        if all(map(on_the_processor, [*given, *results])):
            continue
        function = OPERATIONS.get(node)(node, context)
        # Sizes are read, which cannot be done of a tensor in this mode.
        sizes = [tensor if isinstance(node.op, Elemwise) else tensor.numpy() for tensor in given]
        with mode:
            found = function(*(size if on_the_processor(tensor) else fake(tensor)
                               for tensor, size in zip(given, sizes)))
        met.add(type(node.op).__name__)
        for tensor, wanted in zip(found, results, strict=True):
            assert tensor.shape == wanted.shape and tensor.dtype == wanted.dtype, node
            # A number that comes of sizes alone may stay on the processor as well.
            assert tensor.device.type == "cuda" or on_the_processor(wanted) or (
                not wanted.ndim and all(map(on_the_processor, given))), node
    assert met >= {"LSTMSequence", "LSTMGradient", "LSTMWeightsGradient", "SoftmaxCrossEntropy",
                   "SoftmaxGradients", "Dropout", "ElementwiseUpdate", "Elemwise", "Sum"}


def test_devices_that_are_mixed_are_an_error(calls):
    node, given, *_ = next(call for call in calls if type(call[0].op).__name__ == "LSTMSequence")
    function = OPERATIONS.get(node)(node, on_torch.Context(torch.device("cuda")))
    with FakeTensorMode(), pytest.raises((RuntimeError, ValueError), match="device|on cpu"):
        function(*(torch.empty(tensor.shape, dtype=tensor.dtype,
                               device="cpu" if n == 5 else "cuda")
                   for n, tensor in enumerate(given)))
