"""What all tests share: one compile cache for all runs, double precision where it is asked for."""

import os

os.environ.setdefault("PIPELINE_WORK", "data/test-work")

import numpy as np  # noqa: E402
import pytest  # noqa: E402


@pytest.fixture(scope="module")
def float64():
    """Theano and Lasagne in double precision, and any failed rewrite of a graph an error."""
    from model import engine  # noqa: F401
    import theano

    with theano.configparser.change_flags(floatX="float64", on_opt_error="raise"):
        yield


@pytest.fixture
def random():
    return np.random.default_rng(20130801)
