"""The compiled library in every register shape and instruction set that its source chooses from."""

from pathlib import Path

import numpy as np
import pytest

from model.engine import available, lstm_sequence, native, softmax_crossentropy  # isort: skip

import theano
import theano.tensor as T

from tests.lstm_reference import forward_and_gradients

pytestmark = pytest.mark.skipif(available() is not None, reason=str(available()))

AVX2 = ("-mno-avx512f", "-mavx2", "-mfma")
# What the source would choose on other processors, on instructions that this one has too.
SHAPES = {
    "AVX-512": ("avx512f", ("-mavx512f",)),
    "AVX2": ("avx2", AVX2),
    "16 bytes, 6 rows": (None, ("-DSHAPE_BYTES=16", "-DSHAPE_ROWS=6")),
    "16 bytes, 3 rows": (None, ("-mno-avx", "-DSHAPE_BYTES=16", "-DSHAPE_ROWS=3")),
}
GATES = ("ingate", "forgetgate", "cell", "outgate")


def size(name, words, units):
    if name.startswith("softmax"):
        return (units, words) if name == "softmax_W" else (words,)
    if name.startswith("W_in"):
        return words, units
    if name.startswith("W_hid"):
        return units, units
    return (1, units) if name.endswith("init") else (units,)


def instructions():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return {word for line in lines if line.startswith("flags") for word in line.split()}


@pytest.fixture(scope="module")
def functions():
    """Loss and gradients of an LSTM and a softmax layer, for both precisions and kinds of input."""
    made = {}
    for dtype in ("float32", "float64"):
        names = ([f"W_in_to_{g}" for g in GATES] + [f"W_hid_to_{g}" for g in GATES]
                 + [f"b_{g}" for g in GATES] + [f"W_cell_to_{g}" for g in GATES if g != "cell"]
                 + ["cell_init", "hid_init", "softmax_W", "softmax_b"])
        matrix, vector = T.TensorType(dtype, (False, False)), T.TensorType(dtype, (False,))
        p = {name: (vector if name.startswith(("b_", "W_cell", "softmax_b")) else matrix)(name)
             for name in names}
        targets = T.imatrix("targets")
        for dense in (False, True):
            x = T.TensorType(dtype, (False,) * 3)("x") if dense else T.imatrix("x")
            hidden = lstm_sequence(
                x, *([p[f"{kind}_{g}"] for g in GATES] for kind in ("W_in_to", "W_hid_to", "b")),
                [p[f"W_cell_to_{g}"] for g in GATES if g != "cell"],
                p["cell_init"], p["hid_init"], 0.5)
            rows = hidden.reshape((-1, hidden.shape[2]))
            loss = softmax_crossentropy(rows, p["softmax_W"], p["softmax_b"],
                                        targets.T.flatten()).sum()
            # The graph only hands arrays to the library: it needs no code of its own.
            made[dtype, dense] = names, theano.function(
                [x, targets, *p.values()], [loss, *theano.grad(loss, list(p.values()))],
                mode=theano.Mode("py", "fast_compile"))
    return made


@pytest.fixture(scope="module", params=SHAPES)
def shape(request):
    needed, options = SHAPES[request.param]
    if needed and needed not in instructions():
        pytest.skip(f"this processor has no {request.param}")
    library = native.compile_library("-fopenmp", *options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "_load", lambda: (library, None))
        yield request.param


def test_the_shapes_differ():
    """So that none is tested twice for another."""
    names = [native.compile_library("-fopenmp", *options)._name
             for needed, options in SHAPES.values() if not needed or needed in instructions()]
    assert len(set(names)) == len(names) >= 2


@pytest.mark.parametrize("dtype, tolerance", [("float32", 2e-4), ("float64", 1e-10)])
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("sentences, steps, words, units", [
    (1, 1, 3, 1), (2, 3, 5, 4), (5, 2, 17, 15), (7, 4, 33, 16), (13, 3, 70, 17), (31, 2, 8, 67),
])
def test_a_step_is_that_of_numpy(shape, functions, random, sentences, steps, words, units, dense,
                                 dtype, tolerance):
    names, function = functions[dtype, dense]
    p = {name: random.normal(0, 0.4, size(name, words, units)) for name in names}
    indices = random.integers(words, size=(sentences, steps), dtype="int32")
    targets = random.integers(words, size=(sentences, steps), dtype="int32")
    loss, gradients = forward_and_gradients(p, indices, targets, grad_clipping=0.5)
    inputs = np.eye(words, dtype=dtype)[indices] if dense else indices
    found = function(inputs, targets, *(value.astype(dtype) for value in p.values()))
    np.testing.assert_allclose(found[0], loss, rtol=tolerance)
    for name, gradient in zip(names, found[1:], strict=True):
        np.testing.assert_allclose(gradient, gradients[name], rtol=tolerance, atol=tolerance,
                                   err_msg=name)


@pytest.fixture
def use_threads():
    """A function that sets the number of threads from now on; it is set back at the end."""
    openmp = native._load()[0]
    before = openmp.omp_get_max_threads()
    yield openmp.omp_set_num_threads
    openmp.omp_set_num_threads(before)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("sentences, steps, words, units", [
    (7, 3, 9, 17), (37, 4, 33, 40), (100, 3, 70, 67),
])
def test_sums_do_not_depend_on_the_number_of_threads(shape, functions, random, use_threads,
                                                     sentences, steps, words, units, dense):
    names, function = functions["float32", dense]
    values = [random.normal(0, 0.4, size(name, words, units)).astype("float32") for name in names]
    indices, targets = random.integers(words, size=(2, sentences, steps), dtype="int32")
    inputs = np.eye(words, dtype="float32")[indices] if dense else indices
    found = []
    for threads in (1, 2, 3):
        use_threads(threads)
        found.append([np.asarray(value).tobytes() for value in function(inputs, targets, *values)])
    for name, *results in zip(["loss", *names], *found, strict=True):
        assert results[0] == results[1] == results[2], name
