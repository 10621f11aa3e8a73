"""The formula of a card's memory against what the tensors of a training take on the processor."""

import weakref

import numpy as np
import pytest

pytestmark = pytest.mark.extras
torch = pytest.importorskip("torch", reason="PyTorch is not there; make test-extras installs it")

from model import engine  # noqa: E402, F401  isort: skip

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

from model.configuration import NetworkConfig, TrainingConfig  # noqa: E402
from model.device_memory import bytes_of_training  # noqa: E402
from model.engine import open_device  # noqa: E402
from model.trainer import Trainer  # noqa: E402


class Peak(TorchDispatchMode):
    """The most bytes of tensors that are there at a time; each memory counts once."""

    def __init__(self):
        super().__init__()
        self.bytes = 0
        self._there = weakref.WeakValueDictionary()  # by identity: tensors have another equality

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self._there.update((id(each), each) for each in tree_leaves((args, kwargs, result))
                           if isinstance(each, torch.Tensor))
        memories = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes()
                    for each in self._there.values()}
        self.bytes = max(self.bytes, sum(memories.values()))
        return result


@pytest.mark.parametrize("changes, drops", [
    ({}, {}), ({}, {"num_layers": 2}), ({}, {"num_layers": 2, "recurrent_dropout": 0.2}),
    ({}, {"input_dropout": 0.2}), ({"optimiser": "adam"}, {}), ({"precision": "bf16"}, {}),
    ({"micro_batch_tokens": 4096, "micro_batch_sentences": 256}, {})])
def test_the_formula_is_what_a_training_takes(changes, drops):
    config = TrainingConfig(**{**dict(
        optimiser="adagrad", rate=0.01, window=6, denominator="sentences",
        micro_batch_sentences=32, micro_batch_tokens=640, max_epochs=1, max_minutes=0, cooldown=0,
        validations_per_epoch=1, patience=1, shards_in_memory=1, seed=3), **changes})
    network = NetworkConfig(192, dropout=0.2, **drops)
    trainer = Trainer(network, config, 500, open_device("torch-cpu", config.precision))
    sentences = config.micro_batch_sentences
    inputs, targets = np.random.default_rng(0).integers(
        0, 500, (2, sentences, config.micro_batch_tokens // sentences)).astype("int32")
    with Peak() as peak:
        for update in range(2):
            for number in range(2):
                trainer.accumulate(inputs, targets, update=update, sentence=number * sentences)
            trainer.apply(0.01)
    # Never less than is needed, and not much more.
    assert 1 <= bytes_of_training(network, config, 500) / peak.bytes <= 1.35
