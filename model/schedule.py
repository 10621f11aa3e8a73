"""How far a training is, and its learning rate there: pure functions of position and settings."""

from __future__ import annotations

from model.configuration import TrainingConfig


def planned_updates(max_epochs: float, windows_per_epoch: int) -> int:
    """The updates of so many epochs, the last of which may be a part of one; at least 1."""
    return max(1, round(max_epochs * windows_per_epoch))


def share_done(config: TrainingConfig, updates: int, planned_updates: int,
               seconds: float) -> float:
    """The share of a training that is done, by its updates or by its time budget: the larger.

    Parameters
    ----------
    config : TrainingConfig
    updates, planned_updates : int
        Those that are done, and those of `max_epochs`.
    seconds : float
        Of work, over all runs of the training.

    Returns
    -------
    float
        From 0; 1 and more where the training is at its end.
    """
    by_time = seconds / (60 * config.max_minutes) if config.max_minutes else 0.0
    return max(updates / planned_updates, by_time)


def end_share(config: TrainingConfig, stalled_at: float | None) -> float:
    """The share of the planned training at which it ends.

    A training that has stalled ends early, and with a cooldown all the same: it is shortened so
    that the cooldown begins where it stalled and takes the share of it that it would have had.
    One that stalls while it cools down already goes on to its planned end.

    Parameters
    ----------
    config : TrainingConfig
    stalled_at : float or None
        The share that was done when it stalled; None for one that has not.
    """
    if stalled_at is None or config.cooldown == 1:
        return 1.0
    return min(1.0, stalled_at / (1 - config.cooldown))


def learning_rate(config: TrainingConfig, share: float, halvings: int,
                  stalled_at: float | None = None) -> float:
    """The rate of an update: halved so many times, and falling to zero over the cooldown.

    Parameters
    ----------
    config : TrainingConfig
    share : float
        See `share_done`.
    halvings : int
        Validations so far that were no better than the best.
    stalled_at : float or None
        See `end_share`.

    Returns
    -------
    float
        From 0 to ``config.rate``.
    """
    end = end_share(config, stalled_at)
    cooldown = end * config.cooldown
    left = max(0.0, end - share)
    fall = left / cooldown if left < cooldown else 1.0
    return config.rate * 0.5**halvings * fall
