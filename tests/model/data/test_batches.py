"""The order of an epoch: windows of N sentences, micro-batches of one length, nothing twice."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.data.batches import epoch_windows
from model.data.shards import load

BOUNDS = dict(micro_batch_sentences=4, micro_batch_tokens=20, shards_in_memory=2)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, make_shards):
    random = np.random.default_rng(3)
    parts = [[" ".join(random.choice(list("abcde"), random.integers(1, 9)))
              for _ in range(random.integers(5, 40))] for _ in range(5)]
    shards, vocabulary = make_shards(tmp_path_factory.mktemp("batches"), parts)
    return parts, shards, vocabulary


def epoch(corpus, **changes):
    _, shards, vocabulary = corpus
    return list(epoch_windows(shards, vocabulary.digest,
                              **{"seed": 1, "epoch": 0, "window": 10, **BOUNDS, **changes}))


def sentences(corpus, windows):
    words = corpus[2].words
    return Counter(" ".join(words[n] for n in row[:-1])
                   for window in windows for batch in window for row in batch.targets)


@settings(deadline=None, max_examples=30)
@given(window=st.integers(1, 200), size=st.integers(1, 20), tokens=st.integers(1, 60),
       in_memory=st.integers(1, 7), seed=st.integers(0, 9))
def test_every_sentence_comes_once_in_windows_of_exactly_n(corpus, window, size, tokens,
                                                           in_memory, seed):
    windows = epoch(corpus, window=window, micro_batch_sentences=size,
                    micro_batch_tokens=tokens, shards_in_memory=in_memory, seed=seed)
    assert sentences(corpus, windows) == Counter(itertools.chain(*corpus[0]))
    *whole, last = [sum(map(len, batches)) for batches in windows]
    assert set(whole) <= {window} and 0 < last <= window
    for batch in itertools.chain(*windows):
        assert len(batch) <= size
        assert len(batch) == 1 or batch.inputs.size <= tokens


def test_targets_are_the_inputs_one_step_later(corpus):
    vocabulary = corpus[2]
    for batch in itertools.chain(*epoch(corpus)):
        assert (batch.inputs[:, 0] == vocabulary.start).all()
        assert (batch.targets[:, -1] == vocabulary.end).all()
        np.testing.assert_array_equal(batch.inputs[:, 1:], batch.targets[:, :-1])


def same(first, second):
    return len(first) == len(second) and all(
        len(a) == len(b) and all(np.array_equal(x.inputs, y.inputs) for x, y in zip(a, b))
        for a, b in zip(first, second))


def test_the_order_depends_on_seed_and_epoch_alone(corpus):
    assert same(epoch(corpus), epoch(corpus))
    assert not same(epoch(corpus), epoch(corpus, epoch=1))
    assert not same(epoch(corpus), epoch(corpus, seed=2))


def test_an_epoch_goes_on_from_any_window(corpus):
    windows = epoch(corpus)
    for first in range(len(windows) + 1):
        assert same(epoch(corpus, first_window=first), windows[first:])


def test_windows_mix_lengths_and_shards(corpus):
    windows = epoch(corpus, window=30)
    assert all(len({batch.inputs.shape[1] for batch in window}) > 1 for window in windows[:-1])
    of_first_shard = {tuple(row) for steps in load(corpus[1][0]).steps
                      for row in load(corpus[1][0]).inputs(steps)}
    mixed = [batch for batch in itertools.chain(*windows)
             if 0 < sum(tuple(row) in of_first_shard for row in batch.inputs) < len(batch)]
    assert mixed
