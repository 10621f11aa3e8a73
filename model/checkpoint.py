"""Checkpoints: one HDF5 file with all that is needed to go on training, or to use the model."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np

from .data.vocabulary import Vocabulary
from .lineage import TrainingText
from .system.errors import UserError
from .system.files import to_json
from .system.hdf5 import open_hdf5, write_hdf5
from .system.untrusted import array, odd_content

FORMAT = "lstm-language-model-checkpoint"
FORMAT_VERSION = 3

_TEXTS = ("text", "ancestors_text")


@dataclass
class Checkpoint:
    """A trained network, and the state of the training that made it.

    Parameters
    ----------
    parameters : dict of str to array
        The network's weights by name, fixed initial states among them.
    optimiser : list of array
        The update rule's own state, in its order.
    vocabulary : Vocabulary
    settings : dict
        ``network``, ``training`` and ``tokenization``, as given, and ``source``: the digest of
        what the model is trained on.
    position : dict
        Where the training stands: epoch, window in it, updates, sentences, tokens, rate, ...
    history : list of dict
        One entry for each validation.
    ancestry : list of dict
        The models this one was started from, nearest first.
    text, ancestors_text : TrainingText or None
        What is known of the text of this training, and of those of all its ancestors together.
        None where nothing is known, or there are no ancestors.
    """

    parameters: dict[str, np.ndarray]
    optimiser: list[np.ndarray]
    vocabulary: Vocabulary
    settings: dict
    position: dict
    history: list[dict] = field(default_factory=list)
    ancestry: list[dict] = field(default_factory=list)
    text: TrainingText | None = None
    ancestors_text: TrainingText | None = None

    @property
    def seen_text(self) -> TrainingText | None:
        """What is known of the text of this training and all its ancestors together."""
        return self.text and self.text.with_ancestors(self.ancestors_text)


def write_checkpoint(path: str | os.PathLike, checkpoint: Checkpoint) -> None:
    """Publish a checkpoint; the same content gives the same bytes.

    Parameters
    ----------
    path : path
    checkpoint : Checkpoint

    Raises
    ------
    UserError
        When the file cannot be written. What stood under the name before still stands.
    """
    with write_hdf5(path) as file:
        file.attrs["format"] = FORMAT
        file.attrs["format_version"] = FORMAT_VERSION
        for name in ("settings", "position", "history", "ancestry"):
            # As datasets: attributes end at 64 KiB, and a history can grow beyond that.
            file[name] = np.frombuffer(
                to_json(getattr(checkpoint, name), sort_keys=True).encode(), "uint8")
        for name in _TEXTS:
            if (text := getattr(checkpoint, name)) is not None:
                file[name] = np.frombuffer(
                    to_json(text.to_json(), sort_keys=True).encode(), "uint8")
        parameters = file.create_group("parameters", track_order=True)
        for name, value in checkpoint.parameters.items():
            parameters[name] = value
        optimiser = file.create_group("optimiser")
        for number, value in enumerate(checkpoint.optimiser):
            optimiser[f"{number:04d}"] = value
        vocabulary = file.create_group("vocabulary")
        vocabulary["words"] = np.frombuffer("\n".join(checkpoint.vocabulary.words).encode(),
                                            "uint8")
        vocabulary["counts"] = np.asarray(checkpoint.vocabulary.counts, "int64")


def publish_model(checkpoint: str | os.PathLike, path: str | os.PathLike) -> None:
    """Publish of a checkpoint what a model is used for: without the state of its training.

    One array at a time is in memory.

    Parameters
    ----------
    checkpoint, path : path

    Raises
    ------
    DamagedFile
        When the bytes of the checkpoint are not as they were written.
    FileNotFoundError
        When it is not there.
    UserError
        When the model cannot be written.
    """
    with open_hdf5(checkpoint) as source, write_hdf5(path) as target:
        for name, value in source.attrs.items():
            target.attrs[name] = value
        for name in source:
            if name != "optimiser":
                source.copy(name, target)


def read_checkpoint(path: str | os.PathLike) -> Checkpoint:
    """Read a checkpoint written by `write_checkpoint`.

    Only numbers and text are read from the file; nothing in it can be executed.

    Raises
    ------
    UserError
        When there is no such file, or it is something else than a checkpoint.
    DamagedFile
        When its bytes are not as they were written.
    """
    try:
        with odd_content(path, "checkpoint"), open_hdf5(path) as file:
            if file.attrs.get("format") != FORMAT:
                raise UserError(f"{path} is not a checkpoint of this project")
            if file.attrs["format_version"] != FORMAT_VERSION:
                raise UserError(
                    f"{path} is a checkpoint of format version {file.attrs['format_version']}; "
                    f"this program reads version {FORMAT_VERSION}")
            content: dict[str, Any] = {
                name: json.loads(_text(file, name))
                for name in ("settings", "position", "history", "ancestry")}
            for name in _TEXTS:
                if name in file:
                    content[name] = TrainingText(**json.loads(_text(file, name)))
            return Checkpoint(
                parameters={name: array(file["parameters"], name, "f")
                            for name in file["parameters"]},
                # A published model has none.
                optimiser=[array(file["optimiser"], name, "fi")
                           for name in sorted(file.get("optimiser", ()))],
                vocabulary=_vocabulary(file["vocabulary"]),
                **content)
    except FileNotFoundError:
        raise UserError(f"there is no checkpoint {path}") from None


def _vocabulary(group: h5py.Group) -> Vocabulary:
    try:
        return Vocabulary(words=tuple(_text(group, "words").split("\n")),
                          counts=tuple(array(group, "counts", "i", 1).tolist()))
    except UserError as error:  # which names no file
        raise ValueError(str(error)) from None


def _text(group: h5py.Group, name: str) -> str:
    return array(group, name, "u", 1).tobytes().decode()
