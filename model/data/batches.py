"""The order of an epoch: windows of exactly N sentences, in micro-batches of one length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.data.shards import Shard, load


@dataclass(frozen=True)
class MicroBatch:
    """Sentences of one length, so that no mask is needed.

    Parameters
    ----------
    inputs, targets : int32 arrays (sentences, steps)
        Indices into the vocabulary; each target is the input of the next step.
    """

    inputs: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, part: slice) -> MicroBatch:
        return MicroBatch(self.inputs[part], self.targets[part])


def micro_batches(shards: Sequence[Shard], random: np.random.Generator, max_sentences: int,
                  max_tokens: int) -> list[tuple[int, np.ndarray]]:
    """Cut the sentences of some shards into micro-batches, in random order.

    Each length is a bucket that is filled from all the shards. Its sentences are shuffled and
    cut into micro-batches, and then all micro-batches are shuffled.

    Parameters
    ----------
    shards : sequence of Shard
    random : numpy.random.Generator
    max_sentences, max_tokens : int
        Bounds on one micro-batch; a single sentence may exceed `max_tokens`.

    Returns
    -------
    list of (steps, sentences)
        Each micro-batch as its length and an integer array (sentences, 2) of shard number and
        row among the shard's sentences of that length.
    """
    batches = []
    for steps in np.unique(np.concatenate([shard.steps for shard in shards])):
        counts = [shard.step_counts.get(int(steps), 0) for shard in shards]
        bucket = np.concatenate([np.stack([np.full(count, number), np.arange(count)], axis=1)
                                 for number, count in enumerate(counts)])
        random.shuffle(bucket)
        size = max(1, min(max_sentences, max_tokens // int(steps)))
        batches += [(int(steps), bucket[start:start + size])
                    for start in range(0, len(bucket), size)]
    return [batches[n] for n in random.permutation(len(batches))]


def _gather(shards: Sequence[Shard], steps: int, sentences: np.ndarray) -> MicroBatch:
    inputs, targets = np.empty((2, len(sentences), steps), "int32")
    for number in np.unique(sentences[:, 0]):
        here = sentences[:, 0] == number
        rows = sentences[here, 1]
        inputs[here] = shards[number].inputs(steps)[rows]
        targets[here] = shards[number].targets(steps)[rows]
    return MicroBatch(inputs, targets)


def epoch_windows(shard_paths: Sequence[Path], vocabulary_digest: str, *, seed: int, epoch: int,
                  window: int, micro_batch_sentences: int, micro_batch_tokens: int,
                  shards_in_memory: int, first_window: int = 0) -> Iterator[list[MicroBatch]]:
    """The windows of one epoch, every sentence once.

    The shards are read in random order, `shards_in_memory` of them at a time, so the memory
    needed does not grow with the corpus. The micro-batches drawn from them (see
    `micro_batches`) follow each other, and a micro-batch is cut where a window ends. The order
    depends on the seed, the epoch, and the shards alone.

    Parameters
    ----------
    shard_paths : sequence of path
    vocabulary_digest : str
        What the shards' own digest of the vocabulary must be.
    seed, epoch : int
        Each epoch has an order of its own.
    window : int
        Sentences per window; the last window of the epoch holds what is left.
    micro_batch_sentences, micro_batch_tokens : int
        Bounds on one micro-batch.
    shards_in_memory : int
    first_window : int
        Windows to pass over, those trained on before a stop.

    Yields
    ------
    list of MicroBatch
        One window.
    """
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(shard_paths))
    to_pass = first_window * window
    pending: list[MicroBatch] = []
    room = window
    for start in range(0, len(order), shards_in_memory):
        shards = [load(shard_paths[n], vocabulary_digest)
                  for n in order[start:start + shards_in_memory]]
        for steps, sentences in micro_batches(shards, random, micro_batch_sentences,
                                              micro_batch_tokens):
            passed = min(to_pass, len(sentences))
            to_pass -= passed
            if passed == len(sentences):
                continue
            batch = _gather(shards, steps, sentences[passed:])
            while len(batch) >= room:
                yield [*pending, batch[:room]]
                batch, pending, room = batch[room:], [], window
            if len(batch):
                pending.append(batch)
                room -= len(batch)
    if pending:
        yield pending
