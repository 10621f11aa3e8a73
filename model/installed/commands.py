"""The commands of the installed package."""

from .model.system import environment


def model() -> None:
    """``lstm-model``"""
    environment.start("model")


def pipeline() -> None:
    """``lstm-pipeline``"""
    environment.start("pipeline")
