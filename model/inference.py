"""A trained model to be used: its network rebuilt from a checkpoint."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .checkpoint import Checkpoint, read_checkpoint
from .configuration import NetworkConfig
from .data.tokenization import RULES
from .numpy_network import NumpyNetwork
from .system.errors import DamagedFile, UserError
from .system.untrusted import odd_content, try_out

if TYPE_CHECKING:
    from .engine import Device
    from .network import Network


def read_model(path: str | os.PathLike) -> Checkpoint:
    """Read a checkpoint that the user named; raises UserError when it is none."""
    try:
        try_out(path)
        checkpoint = read_checkpoint(path)
        with odd_content(path, "checkpoint"):
            _check_settings(checkpoint)
        return checkpoint
    except DamagedFile as error:
        raise UserError(f"{path} cannot be used as a model: {error.reason}.") from error
    except OSError as error:
        raise UserError(f"{path} cannot be used as a model: {error.strerror or error}.") from error


def _check_settings(checkpoint: Checkpoint) -> None:
    """Raises ValueError, LookupError or TypeError for settings that no model of ours has."""
    tokenization = checkpoint.settings["tokenization"]
    if not isinstance(tokenization["lowercase"], bool):
        raise ValueError("lowercase is neither true nor false")
    if tokenization["split"] not in RULES or len(tokenization) > 2:
        raise ValueError(f"no tokenizer of ours has the rule {tokenization}")
    try:
        config = NetworkConfig(**checkpoint.settings["network"])
    except UserError as error:
        raise ValueError(str(error)) from None
    # Before memory is taken for them.
    least = config.count_weights(len(checkpoint.vocabulary))
    if sum(value.size for value in checkpoint.parameters.values()) < least:
        raise ValueError(f"it has fewer weights than a network of {config.num_units:,} units needs")


def check_parameters(checkpoint: Checkpoint) -> NetworkConfig:
    """Look whether a checkpoint's weights are those of its network; returns what that is.

    Raises
    ------
    UserError
        When they are not, or not finite.
    """
    config = NetworkConfig(**checkpoint.settings["network"])
    given = dict(checkpoint.parameters)
    for name, shape in config.parameter_shapes(len(checkpoint.vocabulary)).items():
        value = given.pop(name, None)
        if value is None or value.shape != shape or value.dtype != "float32":
            found = "lacks it" if value is None else f"has it as {_kind(value.dtype, value.shape)}"
            raise UserError(f"the model cannot be used: its network needs {name} as "
                            f"{_kind('float32', shape)}, and the checkpoint {found}")
        if not np.isfinite(value).all():
            raise UserError(f"the model cannot be used: {name} is not finite")
    if given:
        raise UserError(f"the model cannot be used: its network has no {', '.join(given)}")
    return config


def _kind(dtype: object, shape: tuple[int, ...]) -> str:
    return f"{dtype} of shape {shape}"


def load_network(checkpoint: Checkpoint, device: Device | None = None) -> Network:
    """Rebuild a checkpoint's network in Theano, with its weights.

    Parameters
    ----------
    checkpoint : Checkpoint
    device : Device, optional
        What its functions are to be compiled for; without it the processor.

    Raises
    ------
    UserError
        When the weights are not those of its network, or not finite.
    """
    from .engine import PROCESSOR
    from .network import build_network, set_parameters

    config = check_parameters(checkpoint)
    network = build_network(config, len(checkpoint.vocabulary), device or PROCESSOR)
    set_parameters(network, checkpoint.parameters)
    return network


def load_numpy_network(checkpoint: Checkpoint) -> NumpyNetwork:
    """As `load_network`, in numpy alone."""
    return NumpyNetwork(check_parameters(checkpoint), checkpoint.parameters)


def log_probabilities_of(checkpoint: Checkpoint, device: str | None = None
                         ) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """A function that scores sentences: see `model.network.log_probabilities`.

    Parameters
    ----------
    checkpoint : Checkpoint
    device : str, optional
        As for `model.engine.open_device`, or ``numpy``. Without it ``cpu``, or ``numpy`` where
        Theano is not installed.

    Raises
    ------
    UserError
        When the weights are not those of the network, or there is no such device.
    """
    if (device := device or _usual_device()) == "numpy":
        return load_numpy_network(checkpoint).log_probabilities
    from .engine import open_device
    from .network import compile_log_probabilities

    return compile_log_probabilities(load_network(checkpoint, open_device(device)))


def next_word_of(checkpoint: Checkpoint, device: str | None = None
                 ) -> Callable[[np.ndarray], np.ndarray]:
    """A function that predicts: see `model.network.compile_next_word`.

    Parameters and errors are those of `log_probabilities_of`.
    """
    if (device := device or _usual_device()) == "numpy":
        return load_numpy_network(checkpoint).next_word
    from .engine import open_device
    from .network import compile_next_word

    return compile_next_word(load_network(checkpoint, open_device(device)))


def _usual_device() -> str:
    return "cpu" if importlib.util.find_spec("theano") else "numpy"
