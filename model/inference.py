"""A trained model to be used: its network rebuilt from a checkpoint."""

from __future__ import annotations

import os

import numpy as np

from model.checkpoint import Checkpoint, read_checkpoint
from model.configuration import NetworkConfig
from model.data.tokenization import RULES
from model.engine import PROCESSOR, Device
from model.network import Network, all_parameters, build_network, set_parameters
from model.system.errors import DamagedFile, UserError
from model.system.untrusted import odd_content, try_out


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


def load_network(checkpoint: Checkpoint, device: Device = PROCESSOR) -> Network:
    """Rebuild a checkpoint's network, with its weights.

    Parameters
    ----------
    checkpoint : Checkpoint
    device : Device
        What its functions are to be compiled for.

    Raises
    ------
    UserError
        When the weights are not those of its network, or not finite.
    """
    network = build_network(NetworkConfig(**checkpoint.settings["network"]),
                            len(checkpoint.vocabulary.words), device)
    given = dict(checkpoint.parameters)
    for parameter in all_parameters(network):
        name, value = parameter.name, given.pop(parameter.name, None)
        wanted = parameter.get_value(borrow=True)
        if value is None or value.shape != wanted.shape or value.dtype != wanted.dtype:
            found = "lacks it" if value is None else f"has it as {_kind(value)}"
            raise UserError(f"the model cannot be used: its network needs {name} as "
                            f"{_kind(wanted)}, and the checkpoint {found}")
        if not np.isfinite(value).all():
            raise UserError(f"the model cannot be used: {name} is not finite")
    if given:
        raise UserError(f"the model cannot be used: its network has no {', '.join(given)}")
    set_parameters(network, checkpoint.parameters)
    return network


def _kind(value: np.ndarray) -> str:
    return f"{value.dtype} of shape {value.shape}"
