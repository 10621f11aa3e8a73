"""Counts added up in a tree, and over the disk, against a dictionary."""

import collections
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.system.errors import UserError
from pipeline import words
from pipeline.tokens import Types


def types(counts):
    names = sorted(counts)
    return Types("\n".join(names).encode(), np.array([counts[n] for n in names], np.uint32))


PARTS = st.lists(st.dictionaries(st.text("abcd\u00e9\U0001f600", min_size=1, max_size=3),
                                 st.integers(1, 2**32 - 1), max_size=30), max_size=12)


@given(PARTS, st.integers(2, 4), st.integers(1, 40), st.integers(1, 5))
def test_every_word_once_and_in_order(tmp_path_factory, parts, fan_in, most, block):
    expected = collections.Counter()
    for part in parts:
        expected.update(part)
    folder = tmp_path_factory.getbasetemp()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("_FAN_IN", fan_in), ("_MOST_IN_MEMORY", most), ("_BLOCK", block)):
            patch.setattr(words, name, value)
        found = list(words.add_up(map(types, parts), folder / "scratch"))
    names = [*itertools.chain.from_iterable(each.words() for each in found)]
    # The order of code points is that of UTF-8's bytes.
    assert names == sorted(expected)
    counts = [*itertools.chain.from_iterable(each.counts.tolist() for each in found)]
    assert dict(zip(names, counts)) == expected
    assert not list(folder.glob(".scratch*"))


def many():
    for number in range(20):
        yield types({f"{number}-{n}": 1 for n in range(50)})


def test_what_does_not_fit_in_memory_is_on_the_disk_meanwhile(tmp_path, monkeypatch):
    monkeypatch.setattr(words, "_MOST_IN_MEMORY", 200)
    monkeypatch.setattr(words, "_BLOCK", 10)
    there, largest = [], 0
    frames = words._sum

    def sum_(found):
        nonlocal largest
        largest = max(largest, sum(map(len, found)))
        return frames(found)

    monkeypatch.setattr(words, "_sum", sum_)
    for block in words.add_up(many(), tmp_path / "scratch"):
        assert len(block.counts) <= 10
        there += [path.stat().st_size for path in tmp_path.glob(".scratch*.tmp")]
    assert min(there) > 0 and not list(tmp_path.iterdir())
    assert largest <= 2 * 200  # of a thousand


def test_a_full_disk_is_told(full_disk, monkeypatch):
    monkeypatch.setattr(words, "_MOST_IN_MEMORY", 100)
    folder = full_disk(4)
    with pytest.raises(UserError, match="No space left"):
        list(words.add_up(many(), folder / "scratch"))
    assert not list(Path(folder).iterdir())
