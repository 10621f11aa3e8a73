"""The trainer beside the same updates by numpy."""

import numpy as np
import pytest

from model import engine  # noqa: F401  isort: skip

from model.configuration import NetworkConfig, TrainingConfig
from model.engine import PROCESSOR
from model.trainer import Trainer

VOCABULARY = 7
CONFIG = dict(
    optimiser="adam", rate=0.01, window=4, denominator="sentences", micro_batch_sentences=4,
    micro_batch_tokens=64, max_epochs=1, max_minutes=0, cooldown=0, validations_per_epoch=1,
    patience=1, shards_in_memory=1, seed=3)


@pytest.mark.parametrize("beta1, weight_decay", [(0.9, 0.0), (0.8, 0.0), (0.0, 0.0), (0.8, 0.3)])
@pytest.mark.usefixtures("float64")
def test_adam_is_that_of_its_paper(random, beta1, weight_decay):
    """Kingma and Ba (2015), with the order of computation of the end of section 2.

    With weight decay as in algorithm 2 of Loshchilov and Hutter (2019), the rate in the place of
    its multiplier of the schedule.
    """
    trainer = Trainer(NetworkConfig(3),
                      TrainingConfig(**CONFIG, beta1=beta1, weight_decay=weight_decay), VOCABULARY,
                      PROCESSOR)
    wanted = {name: value.copy() for name, value in trainer.state().parameters.items()
              if not name.endswith("_init")}
    moments = {name: (0.0, 0.0) for name in wanted}
    for update in range(1, 6):
        inputs, targets = random.integers(0, VOCABULARY, (2, 4, 5)).astype("int32")
        trainer.accumulate(inputs, targets, update=update, sentence=0)
        *sums, _, _ = trainer.sums()
        rate = 0.01 * np.sqrt(1 - 0.999**update) / (1 - beta1**update)
        for name, total in zip(wanted, sums, strict=True):
            gradient, (first, second) = total / 4, moments[name]
            first = beta1 * first + (1 - beta1) * gradient
            second = 0.999 * second + (1 - 0.999) * gradient**2
            moments[name] = first, second
            wanted[name] = (wanted[name] - rate * first / (np.sqrt(second) + 1e-8)
                            - 0.01 * weight_decay * wanted[name])
        trainer.apply(0.01)
        parameters = trainer.state().parameters
        for name, value in wanted.items():
            np.testing.assert_allclose(parameters[name], value, rtol=1e-10, atol=1e-12)
