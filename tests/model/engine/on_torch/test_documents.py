"""The list of operations in the documents is that of the code."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.extras
pytest.importorskip("torch", reason="PyTorch is not there; make test-extras installs it")

from model import engine  # noqa: E402, F401  isort: skip

from model.engine.on_torch import theano_operations  # noqa: E402
from model.engine.on_torch.operations import OPERATIONS  # noqa: E402


def listed(text):
    names = re.sub(r"\([^)]*\)", "", text).rstrip(". \n").removeprefix("Elementwise: ")
    return [name.strip() for name in names.split(",")]


def test_the_documents_list_every_operation():
    text = (Path(__file__).parents[4] / "docs" / "device.md").read_text()
    section = text.split("### The operations")[1].split("### To add one")[0]
    _, operations, elementwise = section.strip().split("\n\n")
    assert listed(operations) == sorted(OPERATIONS.names())
    # Both are handled apart.
    scalars = [*(each.__name__ for each in theano_operations.SCALARS), "Cast", "Composite"]
    assert listed(elementwise) == sorted(scalars)
