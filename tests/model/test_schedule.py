"""The learning rate, as a function of position and settings alone."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.schedule import end_share, learning_rate, planned_updates, share_done


@dataclass
class Config:
    """The settings that the schedule knows."""

    rate: float = 0.5
    cooldown: float = 0.25
    max_minutes: float = 0.0


shares = st.floats(0, 3)
configs = st.builds(Config, st.floats(1e-6, 1e3), st.just(0.0) | st.floats(1e-3, 1))
stalls = st.none() | st.floats(1e-6, 1.5)


@given(configs, shares, st.integers(0, 60), stalls)
def test_it_is_never_negative_and_never_above_what_was_set(config, share, halvings, stalled_at):
    rate = learning_rate(config, share, halvings, stalled_at)
    assert 0 <= rate <= config.rate * 0.5**halvings


@given(configs, shares, shares, st.integers(0, 60), st.integers(0, 60), stalls)
def test_it_never_rises(config, one, another, halvings, more, stalled_at):
    (first, second), (few, many) = sorted([one, another]), sorted([halvings, more])
    assert learning_rate(config, second, many, stalled_at) <= (
        learning_rate(config, first, few, stalled_at) * (1 + 1e-12))


@given(configs, st.floats(1e-6, 1), st.floats(0, 0.999))
def test_a_stall_changes_nothing_of_what_was_and_keeps_the_cooldown(config, stalled_at, before):
    end = end_share(config, stalled_at)
    assert stalled_at <= end * (1 + 1e-12) <= 1 + 1e-12
    share = before * min(stalled_at, 1 - config.cooldown)
    assert learning_rate(config, share, 0, stalled_at) == pytest.approx(
        learning_rate(config, share, 0), rel=1e-9)
    if config.cooldown > 0:
        assert learning_rate(config, end, 0, stalled_at) == 0
    if stalled_at < 1 - config.cooldown:  # the same share of a shorter training
        assert end - stalled_at == pytest.approx(config.cooldown * end, abs=1e-9)


@pytest.mark.parametrize("share, stalled_at, rate", [
    (0, None, 0.5), (0.75, None, 0.5), (0.875, None, 0.25), (1, None, 0), (2, None, 0),
    # Stalled at 0.3, it ends at 0.4.
    (0.3, 0.3, 0.5), (0.35, 0.3, 0.25), (0.4, 0.3, 0),
    # Stalled in the cooldown, it goes on as planned.
    (0.875, 0.8, 0.25), (1, 0.8, 0),
])
def test_the_rate_at_some_places(share, stalled_at, rate):
    assert learning_rate(Config(), share, 0, stalled_at) == pytest.approx(rate)
    assert learning_rate(Config(), share, 3, stalled_at) == pytest.approx(rate / 8)


def test_the_share_is_the_larger_of_updates_and_time():
    assert share_done(Config(), 3, 10, 1e9) == 0.3
    assert share_done(Config(max_minutes=10), 3, 10, 60) == 0.3
    assert share_done(Config(max_minutes=10), 3, 10, 300) == 0.5
    assert share_done(Config(max_minutes=10), 3, 10, 900) == 1.5


@pytest.mark.parametrize("max_epochs, updates", [(1, 10), (3, 30), (1.5, 15), (0.1, 1), (1.46, 15),
                                                 (1e-9, 1)])
def test_the_last_epoch_may_be_a_part(max_epochs, updates):
    assert planned_updates(max_epochs, 10) == updates
