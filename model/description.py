"""What a shard or a checkpoint holds, and where it comes from."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np

from .checkpoint import FORMAT, read_checkpoint
from .data.shards import load
from .system.errors import DamagedFile, UserError
from .system.hdf5 import open_hdf5
from .system.untrusted import odd_content, try_out


def describe(path: str | os.PathLike) -> dict:
    """Describe a shard or a checkpoint, whoever made it; see `description`."""
    try_out(path)
    return description(path)


def description(path: str | os.PathLike) -> dict:
    """Describe a shard or a checkpoint; all its bytes are checked.

    Parameters
    ----------
    path : path

    Returns
    -------
    dict
        JSON values by name; a dict where there are several of a kind.

    Raises
    ------
    UserError
        When it is neither, or damaged.
    """
    try:
        with odd_content(path, "shard and no checkpoint"), open_hdf5(path) as file:
            is_checkpoint = file.attrs.get("format") == FORMAT
            if is_checkpoint:
                content = _of_checkpoint(path, file)
            elif "inputs/indices" in file:
                content = _of_shard(path, file)
            else:
                raise UserError(f"{path} is neither a shard nor a checkpoint of this project.")
    except DamagedFile as error:
        raise UserError(f"{path} is no shard and no checkpoint that can be used: "
                        f"{error.reason}.") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}.") from error
    return {"file": str(path), "bytes": Path(path).stat().st_size, **content}


def _of_checkpoint(path: str | os.PathLike, file: h5py.File) -> dict:
    checkpoint = read_checkpoint(path)
    settings, vocabulary = checkpoint.settings, checkpoint.vocabulary
    return {
        "kind": "checkpoint",
        "format version": int(file.attrs["format_version"]),
        "network": settings["network"],
        "parameters": {
            "total": sum(value.size for value in checkpoint.parameters.values()),
            **{name: _shape(value) for name, value in checkpoint.parameters.items()}},
        "vocabulary": {"size": len(vocabulary), "digest": vocabulary.digest,
                       "most frequent": " ".join(vocabulary.words[:20])},
        "tokenization": settings["tokenization"],
        "training": settings["training"],
        "trained on (fingerprint)": settings["source"],
        "position": checkpoint.position,
        "optimiser state": ", ".join(_shape(value) for value in checkpoint.optimiser) or "none",
        "validations": {f"update {entry['update']}": entry["validation_perplexity"]
                        for entry in checkpoint.history},
        "started from": ({f"{number} before": parent
                          for number, parent in enumerate(checkpoint.ancestry, 1)}
                         or "random weights"),
    }


def _of_shard(path: str | os.PathLike, file: h5py.File) -> dict:
    shard = load(path)
    hidden = ("steps", "offsets")  # a number for each length: summed up below
    return {
        "kind": "shard",
        **{name.replace("_", " "): value.item() if isinstance(value, np.generic) else value
           for name, value in sorted(file.attrs.items()) if name not in hidden},
        "one-hot matrix": " x ".join(map(str, file["inputs"].attrs["shape"])),
        "steps of a sentence": f"{shard.steps.min()} to {shard.steps.max()}, "
                               f"{len(shard.steps)} different",
    }


def _shape(value: np.ndarray) -> str:
    size = " x ".join(map(str, value.shape)) or "1"
    return f"{size} {value.dtype}"


def as_text(content: dict, indent: str = "") -> str:
    """A description as lines of ``name: value``, what belongs together indented."""
    lines = []
    for name, value in content.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}:", as_text(value, indent + "  ")]
        else:
            number = isinstance(value, int) and not isinstance(value, bool)
            lines.append(f"{indent}{name}: {f'{value:,}' if number else value}")
    return "\n".join(lines)
