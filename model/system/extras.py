"""Packages that are not installed here: which extra of the project has them, and the command."""

from __future__ import annotations

from . import environment

# By the package that is imported; all others are of the job.
_EXTRAS = {"onnx": "export", "safetensors": "export", "torch": "torch"}
_OF_THE_JOB = "pipeline"


def what_is_missing(error: ModuleNotFoundError) -> str:
    """For the person who called a command: what it needs, and how that is installed.

    Parameters
    ----------
    error : ModuleNotFoundError
        Of a package of others.

    Returns
    -------
    str
        One line.
    """
    package = (error.name or str(error)).partition(".")[0]
    extra = _EXTRAS.get(package, _OF_THE_JOB)
    return (f"this needs the package {package}, of the extra {extra}, which is not installed here. "
            f"To install it: {command(extra)}")


def command(extra: str) -> str:
    """The command that installs an extra; docs/using.md has the same."""
    if environment.is_checkout():
        return "make setup" if extra == _OF_THE_JOB else f"./setup.sh {extra}"
    line = f"python -m pip install '.[{extra}]'"
    if extra == _OF_THE_JOB:
        line = ("python -m pip install 'setuptools>=77,<85' && PYTHONPATH=\"$PWD/constraints/"
                "theano\" python -m pip install --no-build-isolation '.[pipeline]'")
    return f"{line} (in a clone of the project)"
