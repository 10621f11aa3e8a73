"""Use of a trained model: its network rebuilt from a checkpoint, and sentences drawn from it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from model import engine  # noqa: F401  isort: skip

import lasagne
import numpy as np
import theano
import theano.tensor as T

from model.checkpoint import Checkpoint, read_checkpoint
from model.data.vocabulary import Vocabulary
from model.network import Network, NetworkConfig, build_network
from model.system.errors import DamagedFile, UserError
from model.system.untrusted import odd_content, try_out
from model.training import set_parameters

# Sentences that are drawn side by side.
_SAMPLES_PER_BATCH = 64


def current_model(work: str | os.PathLike) -> Path:
    """The model of the newest complete run in a working folder, as its metrics name it.

    Raises
    ------
    UserError
        When there is none.
    """
    metrics = Path(work) / "report" / "metrics.json"
    try:
        model = Path(work) / json.loads(metrics.read_text())["train"]["model"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"there is no complete run in {work}: {metrics} names no model. Train one "
                        "with 'make run', or name a model's file (--model).") from None
    if not model.is_file():
        raise UserError(f"the model of the newest run in {work} is gone: {model}. Train it again "
                        "with 'make run', or name a model's file (--model).")
    return model


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
    if not isinstance(checkpoint.settings["tokenization"]["lowercase"], bool):
        raise ValueError("lowercase is neither true nor false")
    try:
        config = NetworkConfig(**checkpoint.settings["network"])
    except UserError as error:
        raise ValueError(str(error)) from None
    # Before memory is taken for them: the weights of the gates, and those of the last layer.
    units, words = config.num_units, len(checkpoint.vocabulary)
    least = units * (4 * (words + (2 * config.num_layers - 1) * units) + words)
    if sum(value.size for value in checkpoint.parameters.values()) < least:
        raise ValueError(f"it has fewer weights than a network of {units:,} units needs")


def load_network(checkpoint: Checkpoint) -> Network:
    """Rebuild a checkpoint's network, with its weights.

    Raises
    ------
    UserError
        When the weights are not those of its network, or not finite.
    """
    network = build_network(NetworkConfig(**checkpoint.settings["network"]),
                            len(checkpoint.vocabulary.words))
    given = dict(checkpoint.parameters)
    for parameter in lasagne.layers.get_all_params(network.output):
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


def compile_next_word(network: Network) -> Callable[[np.ndarray], np.ndarray]:
    """Compile the prediction of the word after some others.

    Parameters
    ----------
    network : Network

    Returns
    -------
    function
        From inputs, int32 (sentences, steps) beginning with ``<s>``, to the probabilities of each
        word as the next one, (sentences, vocabulary).
    """
    x = T.imatrix("inputs")
    rows = lasagne.layers.get_output(network.rows, {network.input: x}, deterministic=True)
    # The rows have the steps first: the last step of all sentences is at the end.
    probabilities = network.output.get_output_for(rows[-x.shape[0]:], deterministic=True)
    return theano.function([x], probabilities)


def sample(next_word: Callable[[np.ndarray], np.ndarray], vocabulary: Vocabulary, *, count: int,
           seed: int, temperature: float = 1.0, prefix: np.ndarray | None = None,
           max_words: int = 200) -> Iterator[list[int]]:
    """Draw sentences from a model.

    Each step computes the sentence so far anew: quadratic in its length, but what is compiled is
    the network itself, and sentences are short.

    Parameters
    ----------
    next_word : function
        See `compile_next_word`.
    vocabulary : Vocabulary
    count : int
        How many sentences.
    seed : int
        Sentence n depends on the seed and on n, not on `count`.
    temperature : float
        The logarithms of the probabilities are divided by it: below 1 the likely words become
        likelier. 0 takes the likeliest word always.
    prefix : integer array (words,), optional
        What every sentence begins with.
    max_words : int
        A sentence that has not ended after so many words more is cut there.

    Yields
    ------
    list of int
        The words after the prefix, without ``</s>``. Neither ``<s>`` nor ``<unk>`` is among them:
        the model's probability for the unknown word is shared out over the others.
    """
    given = np.array([vocabulary.start, *(prefix if prefix is not None else ())], "int32")
    for first in range(0, count, _SAMPLES_PER_BATCH):
        numbers = range(first, min(count, first + _SAMPLES_PER_BATCH))
        generators = [np.random.default_rng([seed, number]) for number in numbers]
        sentences = np.tile(given, (len(generators), 1))
        results: list[list[int]] = [[] for _ in numbers]
        going = np.arange(len(generators))
        for _ in range(max_words):
            probabilities = np.asarray(next_word(sentences), "float64")
            probabilities[:, [vocabulary.start, vocabulary.unknown]] = 0
            words = _draw(probabilities, temperature, [generators[n] for n in going])
            sentences = np.column_stack([sentences, words])
            sentences = sentences[stay := words != vocabulary.end]
            for n, word in zip(going[stay], sentences[:, -1]):
                results[n].append(int(word))
            going = going[stay]
            if not len(going):
                break
        yield from results


def _draw(probabilities: np.ndarray, temperature: float,
          generators: list[np.random.Generator]) -> np.ndarray:
    """A word for each row (sentences, vocabulary) of probabilities: int32 (sentences,)."""
    if temperature == 0:
        return np.argmax(probabilities, axis=1).astype("int32")
    with np.errstate(divide="ignore", over="ignore"):
        logarithms = np.log(probabilities)
        # The likeliest word at 0, before the division: no temperature is too low for the range.
        scaled = (logarithms - logarithms.max(axis=1, keepdims=True)) / temperature
    cumulative = np.cumsum(np.exp(scaled), axis=1)
    # 1 - random(): above 0, so that a word of no probability at the beginning is never drawn.
    marks = cumulative[:, -1] * np.array([1 - generator.random() for generator in generators])
    return np.argmax(cumulative >= marks[:, None], axis=1).astype("int32")
