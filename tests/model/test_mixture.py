"""Mixtures of two models, against sums of probabilities and a search of all weights."""

import numpy as np
import pytest

from model.mixture import best_weight, mix


@pytest.fixture
def models(random):
    """What two models give to the same tokens; each is the better one for some of them."""
    return np.log(random.uniform(1e-6, 1, (2, 500)))


@pytest.mark.parametrize("weight", [1e-9, 0.25, 0.5, 1 - 1e-9])
def test_the_probability_is_the_weighted_sum(models, weight):
    first, second = models
    expected = weight * np.exp(first) + (1 - weight) * np.exp(second)
    np.testing.assert_allclose(np.exp(mix(first, second, weight)), expected, rtol=1e-12)


def test_probabilities_too_small_for_a_float_are_added_too():
    assert mix(np.array([-2000.0]), np.array([-2001.0]), 0.5) == pytest.approx(
        -2000 + np.log((1 + np.exp(-1)) / 2))


def test_single_precision_is_no_bound(models):
    first, second = models
    assert mix(first.astype("float32"), second, 0.3).dtype == np.float64


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_no_other_weight_gives_a_lower_perplexity(models, share):
    first, second = models
    better = np.arange(500) < share * 500  # the first model is right about these
    first, second = np.where(better, -0.5, first), np.where(better, second, -0.5)
    every = np.linspace(0.0005, 0.9995, 1000)
    losses = [-mix(first, second, weight).mean() for weight in every]
    assert best_weight(lambda: [(first, second)]) == pytest.approx(
        every[np.argmin(losses)], abs=1e-3)


def test_a_model_that_is_always_worse_gets_no_weight(models):
    first, _ = models
    assert best_weight(lambda: [(first, first - 5)]) > 0.999
    assert best_weight(lambda: [(first - 5, first)]) < 0.001


def test_the_weight_is_that_of_all_pieces_together(models):
    first, second = models
    pieces = [(first[begin:end], second[begin:end])
              for begin, end in ((0, 3), (3, 120), (120, 500))]
    assert best_weight(lambda: pieces) == pytest.approx(
        best_weight(lambda: [(first, second)]), abs=1e-6)
