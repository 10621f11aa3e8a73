"""The settings of a run in its working folder, for the hosts that help with it.

They lie there under their digest, which each task of the run has as a parameter: so a host that is
given a task knows which settings it has to be done with, and that it has read just these.
"""

from __future__ import annotations

import json
from pathlib import Path

from model.system.errors import UserError
from model.system.files import look_anew, publish
from pipeline import settings
from pipeline.artifacts import DIGEST_DIGITS, differences, fingerprint, makers


def publish_settings(work: Path, formats: dict[str, int]) -> str:
    """Publish the settings in force.

    Parameters
    ----------
    work : path
        Working folder.
    formats : dict
        By kind of artifact the number of its format.

    Returns
    -------
    str
        Their digest.
    """
    content = {"program": _program(formats), "settings": settings.in_force()}
    digest = fingerprint(content)[:DIGEST_DIGITS]
    with publish(_file(work, digest)) as temporary:
        temporary.write_text(json.dumps(content, indent=1))
    return digest


def take_settings(work: Path, digest: str, formats: dict[str, int]) -> None:
    """Put in force what a run has published.

    Parameters
    ----------
    work : path
        Working folder.
    digest : str
    formats : dict
        As of `publish_settings`.

    Raises
    ------
    UserError
        When they are not there, are not those of the digest, or are another program's, which could
        make other bytes of the same.
    """
    path = _file(work, digest)
    look_anew(path.parent, work)
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot read {path}, the settings of the run: {error}. Is {work} the folder that the "
            "run works in, as this host sees it?") from error
    if fingerprint(content)[:DIGEST_DIGITS] != digest:
        raise UserError(f"{path} does not hold the settings of its digest: begin the run again")
    if other := differences(content["program"], _program(formats)):
        raise UserError("this host has another program than the one that began the run, and could "
                        f"make other bytes: {'; '.join(other)}")
    settings.take(content["settings"])


def _program(formats: dict[str, int]) -> dict:
    """What bytes can depend on besides inputs and settings; the processor does not matter here."""
    versions = {name: value for name, value in makers().items()
                if name not in ("processor", "threads")}
    return {"formats": formats, "versions": versions}


def _file(work: Path, digest: str) -> Path:
    return work / "settings" / f"{digest}.json"
