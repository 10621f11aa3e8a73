"""Whether a model that has just been evaluated becomes the current one of its profile."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from model.current import figures_of, link_of, linked_model


class Choice(NamedTuple):
    """What is to be done with a profile's link, and why, in a line.

    `moves`: it is to name the new model. `worse`: it stays, for the new model is worse.
    """

    moves: bool
    worse: bool
    reason: str


def choose(model: Path, work: Path, profile: str | None, tolerance: float) -> Choice:
    """Compare a new model with the current one on the validation text.

    Parameters
    ----------
    model : path
        The new one, with its figures beside it.
    work : path
        Working folder.
    profile : str or None
    tolerance : float
        In per cent, [run] tolerance.
    """
    link, current = link_of(work, profile), linked_model(work, profile)
    if current is None:
        return Choice(True, False, f"{link} names {model.parent.name}, the first")
    old, new = current.parent.name, model.parent.name
    if old == new:
        return Choice(False, False, f"{link} names {new}")
    before, now = figures_of(current), figures_of(model)
    not_comparable = _not_comparable(before, now)
    if before is None or now is None or not_comparable:
        return Choice(True, False, f"{link} names {new} and no more {old}, with which it could not "
                                   f"be compared: {not_comparable}")
    figure = now["headline"]
    was, is_now = before["valid"][figure], now["valid"][figure]
    above = 100 * (is_now / was - 1)
    what = f"validation perplexity {is_now:,.2f} after {was:,.2f}, {above:+.1f} per cent"
    if above > tolerance:
        return Choice(False, True, f"{link} still names {old} and not the new model {new}, which "
                                   f"is worse: {what}, and [run] tolerance is {tolerance:g}")
    return Choice(True, False, f"{link} names {new} and no more {old}: {what}")


def _not_comparable(before: dict | None, now: dict | None) -> str | None:
    """Why two models' validation perplexities are not of one kind."""
    if before is None or now is None:
        return "its figures are gone"
    if before["texts"]["valid"] != now["texts"]["valid"]:
        return "it has another validation text, or other settings of tokens or vocabulary"
    if before["headline"] != now["headline"]:
        return "only one of them had <unk> in training"
    if not before["valid"][now["headline"]]:
        return "its perplexity is not finite"
    return None
