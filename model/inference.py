"""Use of a trained model: its network rebuilt from a checkpoint."""

from __future__ import annotations

from collections.abc import Callable

from model import engine  # noqa: F401  isort: skip

import numpy as np

from model.checkpoint import Checkpoint
from model.network import NetworkConfig, build_network
from model.training import compile_log_probabilities, set_parameters


def load_scorer(checkpoint: Checkpoint) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Compile the function that scores sentences with a checkpoint's network.

    Parameters
    ----------
    checkpoint : Checkpoint

    Returns
    -------
    function
        From inputs and targets, int32 arrays (sentences, steps), to the natural logarithms of
        the targets' probabilities, (sentences, steps).
    """
    network = build_network(NetworkConfig(**checkpoint.settings["network"]),
                            len(checkpoint.vocabulary.words))
    set_parameters(network, checkpoint.parameters)
    return compile_log_probabilities(network)
