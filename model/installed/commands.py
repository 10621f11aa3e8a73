"""The commands of the installed package."""

import importlib.util
import sys

from .model.system import environment, extras


def model() -> None:
    """``lstm-model``"""
    environment.start("model")


def pipeline() -> None:
    """``lstm-pipeline``"""
    if importlib.util.find_spec("luigi") is None:
        sys.exit(f"error: {extras.what_is_missing(ModuleNotFoundError(name='luigi'))}")
    environment.start("pipeline")
