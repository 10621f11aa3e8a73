"""Confidence intervals against drawing sentence by sentence, and against a truth that is known."""

import math

import numpy as np
import pytest

from model.confidence import Sums, confidence, read_sums, write_sums
from model.system.errors import UserError


def text(random, sentences, spread=0.4):
    """Sums of three models on one text: the second is worse, the third as good as the first.

    A sentence's difficulty is common to all. Returns the sums, and the true perplexities.
    """
    tokens = random.integers(3, 30, sentences).astype("float64")
    difficulty = random.normal(0, spread, sentences)
    means = (-3.0, -3.05, -3.0)
    sums = []
    for mean in means:
        noise = random.normal(0, 0.5, sentences) * np.sqrt(tokens)
        sums.append(Sums((mean + difficulty) * tokens + noise, tokens))
    return sums, [math.exp(-mean) for mean in means]


def test_intervals_equal_drawing_sentence_by_sentence(random):
    sums, _ = text(random, 40)
    # Of the last run, in which other words were known, other tokens may count.
    sums[2] = Sums(sums[2].log_probability, sums[2].tokens - 1)
    found = confidence(sums[0], {"second": sums[1], "third": sums[2]}, resamples=200, seed=7)

    draws, drawn = np.random.default_rng(7), []
    for _ in range(200):
        chosen = draws.integers(40, size=40).tolist()
        drawn.append([math.exp(-sum(float(each.log_probability[n]) for n in chosen)
                               / sum(float(each.tokens[n]) for n in chosen)) for each in sums])

    def interval(values):
        """The percentiles, by linear interpolation between the ordered values."""
        ordered, bounds = sorted(values), []
        for share in (0.025, 0.975):
            place = share * (len(ordered) - 1)
            low = math.floor(place)
            bounds.append(ordered[low] + (place - low) * (ordered[low + 1] - ordered[low]))
        return pytest.approx(bounds)

    whole = [math.exp(-each.log_probability.sum() / each.tokens.sum()) for each in sums]
    assert found == {
        "interval": interval([row[0] for row in drawn]),
        "differences": {
            name: {"difference": pytest.approx(whole[0] - whole[place]),
                   "interval": interval([row[0] - row[place] for row in drawn])}
            for place, name in ((1, "second"), (2, "third"))}}


def test_of_many_texts_the_intervals_hold_the_truth_about_as_often_as_they_say(random):
    texts, held = 400, np.zeros(3)
    for number in range(texts):
        sums, true = text(random, 100)
        found = confidence(sums[0], {"worse": sums[1], "equal": sums[2]}, 300, seed=number)
        differences = found["differences"]
        for place, (interval, truth) in enumerate((
                (found["interval"], true[0]),
                (differences["worse"]["interval"], true[0] - true[1]),
                (differences["equal"]["interval"], 0.0))):
            held[place] += interval[0] <= truth <= interval[1]
    # Three standard errors of a share of 400 are 0.033; percentile intervals are a little narrow.
    assert ((held / texts > 0.90) & (held / texts < 0.985)).all()


def test_on_the_same_draws_what_is_hard_for_both_drops_out(random):
    sums, _ = text(random, 500, spread=1.0)
    found = confidence(sums[0], {"other": sums[1], "itself": sums[0]})
    low, high = found["interval"]
    other = found["differences"]["other"]["interval"]
    assert other[1] - other[0] < (high - low) / 3
    assert found["differences"]["itself"] == {
        "difference": 0.0, "interval": pytest.approx([0.0, 0.0], abs=1e-9)}


def test_the_same_sums_give_the_same_intervals(random):
    sums, _ = text(random, 50)
    assert confidence(sums[0], {"b": sums[1]}) == confidence(sums[0], {"b": sums[1]})
    assert confidence(sums[0], {}, seed=1) != confidence(sums[0], {}, seed=2)


def test_one_sentence_has_no_interval():
    one = Sums(np.array([-2.0]), np.array([2.0]))
    assert confidence(one, {"other": one}) == {"interval": None, "differences": {
        "other": {"difference": 0.0, "interval": None}}}


def test_sums_of_another_text_are_no_pair(random):
    with pytest.raises(ValueError):
        confidence(text(random, 10)[0][0], {"other": text(random, 11)[0][0]})


def test_sums_are_kept_for_their_text_alone(tmp_path, random):
    (sums, *_), _ = text(random, 10)
    write_sums(tmp_path / "sums.h5", sums, "a text")
    read = read_sums(tmp_path / "sums.h5", "a text")
    np.testing.assert_array_equal(read.log_probability, sums.log_probability)
    np.testing.assert_array_equal(read.tokens, sums.tokens)
    assert read_sums(tmp_path / "sums.h5", "another") is None
    content = bytearray((tmp_path / "sums.h5").read_bytes())
    content[-1] ^= 1
    (tmp_path / "sums.h5").write_bytes(content)
    assert read_sums(tmp_path / "sums.h5", "a text") is None
    assert read_sums(tmp_path / "none.h5", "a text") is None
    with pytest.raises(UserError):
        write_sums(tmp_path / "sums.h5" / "below", sums, "a text")


def test_beyond_the_range_of_floats_there_is_no_interval():
    hopeless = Sums(np.array([-1e6, -2e6]), np.array([1.0, 1.0]))
    finite = Sums(np.array([-1.0, -2.0]), np.array([1.0, 1.0]))
    assert confidence(hopeless, {})["interval"] is None
    found = confidence(finite, {"hopeless": hopeless})
    assert found["interval"] and found["differences"]["hopeless"]["interval"] is None
