"""Distinct rows, counted in ranges, against a sort of all of them at once."""

import numpy as np
import pytest

from model import ngram_counting
from model.ngram_counting import count_rows, rows_of, word_type
from model.scattered import Scattered


def some_rows(random, size, order, count):
    """As windows of text: most begin with the first words, and some are the same many times."""
    rows = (random.zipf(1.5, (count, order)) - 1) % size
    rows[: count // 3, : order - 1] = 0
    rows[count // 3: count // 2] = rows[0]
    return random.permutation(rows).astype(word_type(size))


@pytest.mark.parametrize("size", [3, 300, 70_000])
@pytest.mark.parametrize("order", [2, 3, 5])
@pytest.mark.parametrize("sets, of_a_set", [(1 << 22, 1 << 16), (40, 6), (1, 1)])
def test_equals_one_sort_whatever_is_sorted_at_a_time(
        random, monkeypatch, tmp_path, size, order, sets, of_a_set):
    rows = some_rows(random, size, order, 600)
    expected, counts = np.unique(rows.astype("int64"), axis=0, return_counts=True)
    monkeypatch.setattr(ngram_counting, "_SETS", sets)
    monkeypatch.setattr(ngram_counting, "_SETS_OF_A_SET", of_a_set)
    taken = []
    monkeypatch.setattr(ngram_counting, "Scattered", scattered(taken))
    for at_a_time in (1, 50, 10_000):
        monkeypatch.setattr(ngram_counting, "SORTED_AT_A_TIME", at_a_time)
        taken.clear()
        found = list(count_rows(lambda: iter(np.array_split(rows, 7)), size, order,
                                tmp_path / "scratch"))
        np.testing.assert_array_equal(np.concatenate([each for each, _ in found]), expected)
        np.testing.assert_array_equal(np.concatenate([each for _, each in found]), counts)
        assert max(taken, default=0) <= at_a_time
        assert not list(tmp_path.iterdir())


def scattered(taken):
    """`Scattered`, which notes how many keys it gives at a time."""
    class Noted(Scattered):
        def take(self, number):
            keys = super().take(number)
            taken.append(len(keys))
            return keys

    return Noted


def test_one_row_that_is_too_many_by_itself(monkeypatch, tmp_path):
    monkeypatch.setattr(ngram_counting, "SORTED_AT_A_TIME", 10)
    rows = np.full((100, 3), 7, word_type(9))
    ((found, counts),) = count_rows(lambda: iter([rows[:60], rows[60:]]), 9, 3, tmp_path / "keys")
    assert found.tolist() == [[7, 7, 7]] and counts.tolist() == [100]


def test_no_rows_at_all(tmp_path):
    empty = np.empty((0, 3), word_type(9))
    assert list(count_rows(lambda: iter([empty]), 9, 3, tmp_path / "keys")) == []


def test_rows_come_back_from_their_keys(random):
    rows = some_rows(random, 300, 4, 50)
    np.testing.assert_array_equal(rows_of(ngram_counting.keys_of(rows), rows.dtype), rows)
