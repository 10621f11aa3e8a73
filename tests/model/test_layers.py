"""Where the compiled library cannot be had, Theano's loop takes over, and says so."""

import warnings

from model import engine  # noqa: F401  isort: skip

import pytest
import theano
import theano.tensor as T

from model.engine import device
from model.engine.lstm_op import LSTMSequence
from model.network import NetworkConfig, build_network, summed_loss


@pytest.fixture
def no_library(monkeypatch):
    monkeypatch.setattr(device, "available", lambda: "there is no compiler")


def operations(expression):
    return {type(node.op) for node in theano.gof.graph.io_toposort([], [expression])}


def loss_of(recurrence):
    network = build_network(NetworkConfig(3, recurrence=recurrence), 7)
    return summed_loss(network, *T.imatrices("xy"))


def test_fused_is_one_op_and_scan_is_a_loop():
    assert LSTMSequence in operations(loss_of("fused"))
    assert theano.scan_module.scan_op.Scan in operations(loss_of("scan"))


def test_without_the_library_the_loop_takes_over_with_a_warning(no_library):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = operations(loss_of("fused"))
    assert LSTMSequence not in found and theano.scan_module.scan_op.Scan in found
    told = [str(warning.message) for warning in caught if "slower loop" in str(warning.message)]
    assert told == ["training takes Theano's slower loop, because there is no compiler"]
