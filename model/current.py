"""Which model is current: for each profile a link to the model of its last good run.

The link is ``models/current`` in the working folder, or ``models/current-PROFILE``, and names the
file of a model. Beside that lie its figures, metrics.json, which name the n-gram model that it was
interpolated with.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from .system.errors import UserError
from .system.files import publish

_NAME = "current"


def link_of(work: str | os.PathLike, profile: str | None = None) -> Path:
    """Where the link of a profile lies; None for the default profile."""
    return Path(work) / "models" / (f"{_NAME}-{profile}" if profile else _NAME)


def linked_model(work: str | os.PathLike, profile: str | None = None) -> Path | None:
    """The model that a profile's link names, which may be gone; None where there is no link."""
    link = link_of(work, profile)
    try:
        return link.parent / os.readlink(link)
    except OSError:
        return None


def linked_models(work: str | os.PathLike) -> dict[str | None, Path]:
    """The models that all links name, by profile."""
    profiles = [path.name.partition("-")[2] or None
                for path in sorted((Path(work) / "models").glob(f"{_NAME}*"))]
    found = {profile: linked_model(work, profile) for profile in profiles}
    return {profile: model for profile, model in found.items() if model}


def link_to(model: Path, work: str | os.PathLike, profile: str | None = None) -> None:
    """Let a profile's link name a model from now on; raises UserError where the disk does not."""
    link = link_of(work, profile)
    with publish(link) as temporary:
        os.symlink(os.path.relpath(model, link.parent), temporary)


def figures_of(model: Path) -> dict | None:
    """The figures of a model's last evaluation; None where there are none."""
    try:
        figures = json.loads(figures_file(model).read_text())
    except (OSError, ValueError):
        return None
    return figures if isinstance(figures, dict) else None


def figures_file(model: Path) -> Path:
    """Where they lie."""
    return model.with_name("metrics.json")


def current_model(work: str | os.PathLike, profile: str | None = None) -> Path:
    """The model of a profile's last good run.

    Parameters
    ----------
    work : path
        Working folder.
    profile : str, optional
        Without it the default one; where that has no model, the only one that has.

    Raises
    ------
    UserError
        When there is none, or several and none of the default profile.
    """
    linked = linked_models(work)
    if profile is None and None not in linked and len(linked) == 1:
        profile, = linked
    if profile not in linked:
        others = ", ".join(str(name) for name in linked if name)
        raise UserError(
            f"no complete run in {work} has left a model: there is no {link_of(work, profile)}. "
            "Train one with 'make run', or name a model's file (--model)"
            + (f", or a profile that has one (--profile): {others}." if others else "."))
    model = linked[profile]
    if not model.is_file():
        raise UserError(f"the model that {link_of(work, profile)} names is gone: {model}. Train it "
                        "again with 'make run', or name a model's file (--model).")
    return model


def ngrams_of(model: Path, work: str | os.PathLike) -> tuple[Path, float] | None:
    """The n-gram model that a model was interpolated with, and the weight of the network.

    None where there was none; the file may be gone.
    """
    try:
        mixture = (figures_of(model) or {})["mixture"]
        return Path(work) / mixture["model"], float(mixture["network_weight"])
    except (KeyError, TypeError, ValueError):
        return None


def current_ngrams(model: Path, work: str | os.PathLike) -> tuple[Path, float]:
    """As `ngrams_of`, of a current model.

    Raises
    ------
    UserError
        When there is none.
    """
    found = ngrams_of(model, work)
    if found is None:
        raise UserError(f"the run that made {model} had no n-gram model: {figures_file(model)} "
                        "names none. Set [baseline] order in luigi.cfg, and make one with "
                        "'make run'.")
    if not found[0].is_file():
        raise UserError(f"the n-gram model that belongs to {model} is gone: {found[0]}. "
                        "Make it again with 'make run'.")
    return found
