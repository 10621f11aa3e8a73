"""One step and dropout: the plain forms against numpy, the Triton kernels against both.

Without a card the kernels run in Triton's interpreter, which must be asked for before Triton is
imported: `test_kernels_in_the_interpreter` runs this file's tests of kernels in a process of its
own. What the interpreter accepts the compiler may not: `test_kernels_compile` has it make code for
a card that is not there.
"""

from model import engine  # noqa: F401  isort: skip

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.model.engine.test_lstm_op import make_parameters, reference

pytestmark = pytest.mark.extras
torch = pytest.importorskip("torch", reason="PyTorch is not there; make test-extras installs it")

from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402

from model.engine.on_torch import gates as gates_module  # noqa: E402
from model.engine.on_torch.gates import (  # noqa: E402
    dropout,
    peephole_blocks,
    step_backward,
    step_forward,
)

REPOSITORY = Path(__file__).resolve().parents[4]
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
needs_triton = pytest.mark.skipif(gates_module.kernels is None, reason="Triton is not installed")

# The forms that can be tested in this process.
FORMS = [pytest.param("interpreter", marks=needs_triton)] if INTERPRETED else [
    "plain", pytest.param("card", marks=[pytest.mark.card, needs_triton, pytest.mark.skipif(
        not torch.cuda.is_available(), reason="there is no card")])]

SHAPES = [
    # sentences, units
    (1, 1),
    (1, 257),
    (5, 3),
    (8, 64),
    (17, 70),
]


class Form:
    """The functions of one form, on copies of numpy arrays, which receive the results."""

    def __init__(self, name):
        self.device = "cuda" if name == "card" else "cpu"
        self.interpreted = name == "interpreter"

    def tensor(self, array):
        return None if array is None else torch.tensor(array, device=self.device)

    def _run(self, name, arguments):
        tensors = [self.tensor(argument) if isinstance(argument, np.ndarray) else argument
                   for argument in arguments]
        with pytest.MonkeyPatch.context() as patch:
            if self.interpreted:
                # As on a card, but for the dispatcher, which takes these tensors for the plain one.
                patch.setattr(gates_module, f"_{name}", getattr(gates_module, f"_launch_{name}"))
            getattr(gates_module, name)(*tensors)
        for argument, tensor in zip(arguments, tensors):
            if isinstance(argument, np.ndarray):
                argument[...] = tensor.cpu().numpy()

    def step_forward(self, *arguments):
        self._run("step_forward", arguments)

    def step_backward(self, *arguments):
        self._run("step_backward", arguments)

    def dropout(self, *arguments):
        self._run("dropout", arguments)


@pytest.fixture(params=FORMS)
def form(request):
    return Form(request.param)


def logistic(x):
    return 1 / (1 + np.exp(-x))


def numpy_forward(gates, before, peepholes):
    """Activations, cells and hidden states, in numpy."""
    p_in, p_forget, p_out = np.zeros((3, 1)) if peepholes is None else peepholes
    a_in, a_forget, a_cell, a_out = np.split(gates, 4, axis=1)
    i, f = logistic(a_in + p_in * before), logistic(a_forget + p_forget * before)
    z = np.tanh(a_cell)
    cells = f * before + i * z
    o = logistic(a_out + p_out * cells)
    return np.concatenate([i, f, z, o], axis=1), cells, o * np.tanh(cells)


def numpy_backward(gates, cells, before, d_hidden, peepholes, clip, d_cells):
    """Gradients for the cells before, the pre-activations, and by sentence for the peepholes."""
    p_in, p_forget, p_out = np.zeros((3, 1)) if peepholes is None else peepholes
    i, f, z, o = np.split(gates, 4, axis=1)
    d_out = d_hidden * np.tanh(cells) * o * (1 - o)
    d_cells = d_cells + d_hidden * o * (1 - np.tanh(cells) ** 2) + d_out * p_out
    d_in, d_forget = d_cells * z * i * (1 - i), d_cells * before * f * (1 - f)
    d_cell = d_cells * i * (1 - z ** 2)
    by_sentence = np.stack([d_in * before, d_forget * before, d_out * cells], axis=1)
    d_gates = np.concatenate([d_in, d_forget, d_cell, d_out], axis=1)
    return (d_cells * f + d_in * p_in + d_forget * p_forget, np.clip(d_gates, -clip, clip),
            by_sentence)


def assert_close(result, expected):
    assert np.isfinite(expected).all()
    tolerance = 2e-6 if result.dtype == np.float32 else 1e-13
    np.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("same_before", [True, False])
@pytest.mark.parametrize("peepholes", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_step_forward_equals_numpy(form, random, shape, peepholes, same_before, dtype):
    sentences, units = shape
    gates = random.normal(0, 2, (sentences, 4 * units)).astype(dtype)
    before = random.normal(0, 2, (1 if same_before else sentences, units)).astype(dtype)
    weights = random.normal(size=(3, units)).astype(dtype) if peepholes else None
    cells, hidden = np.full((2, *shape), np.nan, dtype)
    expected = numpy_forward(*(None if array is None else array.astype("float64")
                               for array in (gates, before, weights)))
    form.step_forward(gates, before, weights, cells, hidden)
    for result, value in zip((gates, cells, hidden), expected, strict=True):
        assert_close(result, value)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("clip", [0, 0.02])
@pytest.mark.parametrize("first_and_last", [True, False])
@pytest.mark.parametrize("peepholes", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_step_backward_equals_numpy(form, random, shape, peepholes, first_and_last, clip, dtype):
    sentences, units = shape
    gates = logistic(random.normal(size=(sentences, 4 * units))).astype(dtype)
    before = random.normal(size=(1 if first_and_last else sentences, units)).astype(dtype)
    weights = random.normal(size=(3, units)).astype(dtype) if peepholes else None
    cells, d_hidden, d_cells = random.normal(size=(3, *shape)).astype(dtype)
    after = None if first_and_last else random.normal(size=shape).astype(dtype)
    sums = None
    if peepholes:
        sums = random.normal(size=(peephole_blocks(sentences), 3, units)).astype(dtype)
    d_gates = np.full_like(gates, np.nan)

    exact = [None if array is None else array.astype("float64")
             for array in (gates, cells, before, d_hidden, after, weights, d_cells, sums)]
    d_hidden_exact = exact[3] + (0 if after is None else exact[4])
    expected_cells, expected_gates, by_sentence = numpy_backward(
        *exact[:3], d_hidden_exact, exact[5], clip or np.inf, exact[6])
    form.step_backward(gates, cells, before, d_hidden, after, weights, clip, d_cells, d_gates, sums)
    assert_close(d_cells, expected_cells)
    assert_close(d_gates, expected_gates)
    if clip == 0.02 and units > 1:
        assert (np.abs(expected_gates) == clip).any() and (np.abs(expected_gates) < clip).any()
    if peepholes:
        blocks = np.array([by_sentence[first:first + 8].sum(0) for first in range(0, sentences, 8)])
        if form.interpreted or form.device == "cuda":
            assert_close(sums, exact[7] + blocks)
        assert sums.shape == blocks.shape
        np.testing.assert_allclose(sums.sum(0), exact[7].sum(0) + blocks.sum(0),
                                   atol=2e-5 if dtype == "float32" else 1e-13)


@pytest.mark.parametrize("clip", [0, float("inf"), 0.02])
@pytest.mark.parametrize("peepholes", [True, False])
@pytest.mark.parametrize("shape", [(1, 4, 7, 16), (13, 2, 3, 33)])
def test_sequence_equals_numpy(form, random, shape, peepholes, clip):
    sentences, steps, inputs, units = shape
    parameters = make_parameters(inputs, units, peepholes)
    x = random.normal(size=(sentences, steps, inputs))
    d_hidden = random.normal(size=(steps, sentences, units))
    expected_hidden, expected, expected_inputs = reference(x, parameters, d_hidden, clip or np.inf)

    W, U = (np.concatenate(parameters[n:n + 4], axis=1) for n in (0, 4))
    b = np.concatenate(parameters[8:12])
    weights = np.array(parameters[12:15]) if peepholes else None
    cell_init, hid_init = parameters[-2:]
    cells, hidden = np.empty((2, steps, sentences, units))
    gates = np.empty((steps, sentences, 4 * units))
    for t in range(steps):
        gates[t] = x[:, t] @ W + (hidden[t - 1] if t else hid_init) @ U + b
        form.step_forward(gates[t], cells[t - 1] if t else cell_init, weights, cells[t], hidden[t])
    np.testing.assert_allclose(hidden, expected_hidden, rtol=1e-12, atol=1e-13)

    d_gates, d_cells, after = np.empty_like(gates), np.zeros((sentences, units)), None
    sums = np.zeros((peephole_blocks(sentences), 3, units)) if peepholes else None
    for t in reversed(range(steps)):
        form.step_backward(gates[t], cells[t], cells[t - 1] if t else cell_init, d_hidden[t], after,
                           weights, clip, d_cells, d_gates[t], sums)
        after = d_gates[t] @ U.T
    before = np.concatenate([np.repeat(hid_init, sentences, 0)[None], hidden[:-1]])
    dW, dU = (np.einsum(how, of, d_gates) for how, of in (("sti,tsj->ij", x),
                                                          ("tsi,tsj->ij", before)))
    gradients = [*np.split(dW, 4, axis=1), *np.split(dU, 4, axis=1),
                 *np.split(d_gates.sum((0, 1)), 4), *(sums.sum(0) if peepholes else []),
                 d_cells.sum(0, keepdims=True), after.sum(0, keepdims=True)]
    for result, gradient in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(result, gradient, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(d_gates @ W.T, expected_inputs.swapaxes(0, 1), rtol=1e-10,
                               atol=1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1e-4, 0.01, 0.5, 1, 30, 1000])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_functions_are_accurate(form, random, dtype, scale):
    values = random.normal(0, scale, 2000).astype(dtype)
    exact = values.astype("float64")
    tolerance = 1e-6 if dtype == "float32" else 1e-14
    before, cells, hidden = np.zeros((3, 1, 2000), dtype)

    # Gates that are open: what comes out is the candidate, squashed twice.
    gates = np.concatenate([np.full(2000, value, dtype) for value in (100, -100, 0, 100)])[None]
    gates[:, 4000:6000] = values
    form.step_forward(gates, before, None, cells, hidden)
    np.testing.assert_allclose(cells[0], np.tanh(exact), rtol=tolerance)
    np.testing.assert_allclose(hidden[0], np.tanh(np.tanh(exact)), rtol=tolerance)

    gates = np.tile(values, 4)[None]
    form.step_forward(gates, before, None, cells, hidden)
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(gates[0, 6000:], logistic(exact), rtol=tolerance, atol=1e-30)


@pytest.mark.parametrize("sentence, gate", [(0, 0), (2, 1), (1, 2), (2, 3)])
def test_not_a_number_passes_through(form, random, sentence, gate):
    gates, d_gates = random.normal(size=(2, 3, 20)).astype("float32")
    before, cells, hidden, d_hidden, d_cells = random.normal(size=(5, 3, 5)).astype("float32")
    weights, sums = np.ones((3, 5), "float32"), np.zeros((1, 3, 5), "float32")
    gates[sentence, gate * 5 + 4] = np.nan
    form.step_forward(gates, before, weights, cells, hidden)
    form.step_backward(gates, cells, before, d_hidden, None, weights, 0.01, d_cells, d_gates, sums)
    there = np.zeros((3, 5), bool)
    there[sentence, 4] = True
    for result in (hidden, d_cells, *np.split(d_gates, 4, axis=1)[:3]):
        np.testing.assert_array_equal(np.isnan(result), there)
    assert np.isnan(sums[..., 4]).any() and np.isfinite(sums[..., :4]).all()


def test_infinite_arguments(form):
    gates = np.array([[np.inf] * 4, [-np.inf] * 4], "float32")
    before, cells, hidden = np.ones((3, 2, 1), "float32")
    form.step_forward(gates, before, None, cells, hidden)
    np.testing.assert_array_equal(gates, [[1, 1, 1, 1], [0, 0, -1, 0]])
    np.testing.assert_allclose(hidden, [[np.tanh(2)], [0]], rtol=1e-6)


def test_results_are_the_same_every_time(form, random):
    gates = logistic(random.normal(size=(20, 4 * 70))).astype("float32")
    cells, before, d_hidden, d_cells = random.normal(size=(4, 20, 70)).astype("float32")
    weights = random.normal(size=(3, 70)).astype("float32")
    results = []
    for _ in range(3):
        given, d_gates = d_cells.copy(), np.empty_like(gates)
        sums = np.zeros((peephole_blocks(20), 3, 70), "float32")
        form.step_backward(gates, cells, before, d_hidden, None, weights, 0, given, d_gates, sums)
        results.append((given, d_gates, sums))
    for other in results[1:]:
        for one, same in zip(results[0], other):
            np.testing.assert_array_equal(one, same)


# ---- dropout ----

# counter, key and output of philox4x32 10, from the known-answer tests of Random123.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text):
    return [int(word, 16) for word in text.split()]


def philox(counter, key):
    """Philox4x32-10 in Python's integers."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for n in range(10):
        high0, low0 = divmod(c0 * 0xD2511F53, 2**32)
        high1, low1 = divmod(c2 * 0xCD9E8D57, 2**32)
        c0, c1, c2, c3 = (high1 ^ c1 ^ (k0 + n * 0x9E3779B9) % 2**32, low1,
                          high0 ^ c3 ^ (k1 + n * 0xBB67AE85) % 2**32, low0)
    return [c0, c1, c2, c3]


def random_numbers(shape, key, counter):
    """The number of each value, (steps, sentences, units)."""
    first, stream = counter
    return np.array([[[philox((unit // 4, step, (first + sentence) % 2**32, stream), key)[unit % 4]
                       for unit in range(shape[2])] for sentence in range(shape[1])]
                     for step in range(shape[0])])


@pytest.mark.parametrize("counter, key, output", KNOWN_ANSWERS)
def test_known_answers(form, counter, key, output):
    assert philox(words(counter), words(key)) == words(output)
    if form.interpreted or form.device == "cuda":
        from tests.model.engine.on_torch.philox_kernel import write_philox

        numbers = torch.zeros(4, dtype=torch.int64, device=form.device)
        write_philox[(1,)](numbers, *words(counter), *words(key))
    else:
        numbers = torch.cat(gates_module._philox(
            *torch.tensor(words(counter))[:, None], *words(key)))
    assert numbers.tolist() == words(output)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 5), (1, 1, 259), (1, 2, 8)])
@pytest.mark.parametrize("key, counter", [
    ((0, 0), (0, 0)), ((1, 16), (1, 16)), ((2**32 - 1, 2**31), (2**32 - 2, 2**32 - 1))])
def test_dropout_equals_python(form, random, shape, dtype, key, counter):
    values = random.normal(size=shape).astype(dtype)
    numbers = random_numbers(shape, key, counter)
    scale = 1 / 0.7
    # The limit of one number shows it bit by bit: below it, and not below itself.
    for keep_below in (0, 2**32, int(0.7 * 2**32), numbers.flat[0], numbers.flat[0] + 1):
        result = np.full_like(values, np.nan)
        form.dropout(values, key, counter, int(keep_below), scale, result)
        expected = np.where(numbers < keep_below, values * values.dtype.type(scale), 0)
        np.testing.assert_array_equal(result, expected)


def test_dropout_of_a_part_of_the_batch(form, random, monkeypatch):
    values = random.normal(size=(3, 6, 10))
    whole, part, in_parts = np.empty_like(values), np.empty((3, 2, 10)), np.empty_like(values)
    form.dropout(values, (3, 4), (5, 6), 2**31, 2., whole)
    form.dropout(values[:, 3:5].copy(), (3, 4), (8, 6), 2**31, 2., part)
    np.testing.assert_array_equal(part, whole[:, 3:5])
    monkeypatch.setattr(gates_module, "_NUMBERS", 130)
    form.dropout(values, (3, 4), (5, 6), 2**31, 2., in_parts)
    np.testing.assert_array_equal(in_parts, whole)
    for key, counter in (((9, 4), (5, 6)), ((3, 9), (5, 6)), ((3, 4), (5, 9))):
        form.dropout(values, key, counter, 2**31, 2., in_parts)
        assert ((whole == 0) != (in_parts == 0)).mean() > 0.3


def test_dropout_with_a_key_on_the_device(form, random):
    values = random.normal(size=(2, 3, 9))
    seed, update = 2**32 - 5, 7
    expected, result = np.empty_like(values), np.empty_like(values)
    form.dropout(values, (seed, update), (0, 1), 2**31, 2., expected)
    on_device = [form.tensor(np.array(word)) for word in (seed, update)]
    # The low 32 bits of a number count.
    others = [form.tensor(np.array(word)) for word in (seed - 2**32, update + 2**40)]
    for key in (on_device, (seed, on_device[1]), (on_device[0], update), others,
                (seed - 2**32, update + 2**40)):
        form.dropout(values, key, (0, 1), 2**31, 2., result)
        np.testing.assert_array_equal(result, expected)


def test_dropout_in_place(form, random):
    values = random.normal(size=(2, 3, 9)).astype("float32")
    values[:, 0], values[:, 1] = np.nan, np.inf
    kept = random_numbers(values.shape, (1, 0), (0, 0)) < 2**31
    assert kept.any(2).all() and not kept.all(2).any()
    # Not-a-number is dropped as other values are.
    expected = np.where(kept, values * 2, 0)
    tensor = form.tensor(values)
    with pytest.MonkeyPatch.context() as patch:
        if form.interpreted:
            patch.setattr(gates_module, "_dropout", gates_module._launch_dropout)
        dropout(tensor, (1, 0), (0, 0), 2**31, 2., tensor)
    np.testing.assert_array_equal(tensor.cpu(), expected)


def test_dropout_keeps_the_share_that_is_asked_for(form):
    values, result = np.ones((2, 3, 1000)), np.empty((2, 3, 1000))
    form.dropout(values, (1, 2), (3, 4), int(0.8 * 2**32), 1.25, result)
    # Within four standard deviations.
    assert abs((result != 0).mean() - 0.8) < 4 * (0.8 * 0.2 / values.size) ** 0.5


# ---- the dispatcher, errors ----

def make_tensors(sentences=3, units=5, **kind):
    """Arguments of the three functions."""
    def empty(*shape):
        return torch.zeros(shape, **kind)

    area, width = (sentences, units), (sentences, 4 * units)
    forward = [empty(*width), empty(*area), empty(3, units), empty(*area), empty(*area)]
    backward = [empty(*width), *(empty(*area) for _ in range(4)), empty(3, units), 5.,
                empty(*area), empty(*width), empty(peephole_blocks(sentences), 3, units)]
    return [(step_forward, forward), (step_backward, backward),
            (dropout, [empty(2, *area), (1, 2), (0, 1), 2**31, 2., empty(2, *area)])]


def test_fake_tensors():
    with FakeTensorMode():
        for function, arguments in make_tensors(device="cuda"):
            assert function(*arguments) is None
        values = torch.zeros(2, 3, 5, device="cuda")
        word = torch.zeros((), dtype=torch.int64, device="cuda")
        dropout(values, (word, 3), (0, 1), 2**31, 2., values)
        with pytest.raises(ValueError, match="key has .* on cpu, expected .* on cuda"):
            dropout(values, (word.cpu(), 3), (0, 1), 2**31, 2., values)


def of_each_tensor():
    return [pytest.param(number, n, id=f"{function.__name__}-{n}")
            for number, (function, arguments) in enumerate(make_tensors())
            for n, argument in enumerate(arguments) if isinstance(argument, torch.Tensor)]


@pytest.mark.parametrize("number, n", of_each_tensor())
def test_tensors_that_do_not_fit(number, n):
    function, arguments = make_tensors()[number]
    fitting = arguments[n]
    function(*arguments)
    gaps = torch.zeros(*fitting.shape[:-1], 2 * fitting.shape[-1])[..., ::2]
    for other in (fitting.new_zeros(*fitting.shape[:-1], 7), fitting.double(), gaps):
        arguments[n] = other
        with pytest.raises(ValueError, match="is a .*, expected was a contiguous tensor"):
            function(*arguments)
    with FakeTensorMode():
        function, arguments = make_tensors(device="cuda")[number]
        arguments[n] = torch.zeros(fitting.shape)
        with pytest.raises(ValueError, match="cpu"):
            function(*arguments)


def test_other_arguments_that_do_not_fit():
    (_, forward), (_, backward), (_, drop) = make_tensors()
    with pytest.raises(ValueError, match="both"):
        step_backward(*backward[:-1], None)
    with pytest.raises(ValueError, match="float16"):
        step_forward(*(tensor.half() for tensor in forward))
    for word in (torch.zeros(1, dtype=torch.int64), torch.zeros(())):
        with pytest.raises(ValueError, match="key has"):
            dropout(drop[0], (1, word), *drop[2:])


# ---- in processes of their own ----

def run_python(arguments, **environment):
    return subprocess.run([sys.executable, *arguments], cwd=REPOSITORY, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env={**os.environ, **environment})


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="this is it")
def test_kernels_in_the_interpreter():
    ran = run_python(["-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k",
                      "interpreter and not kernels_in"], TRITON_INTERPRET="1")
    assert ran.returncode == 0, ran.stdout
    assert " passed" in ran.stdout and "skipped" not in ran.stdout, ran.stdout


# Launches the kernels as for a card, on tensors of the processor, but only has them compiled.
COMPILE = """
import sys
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver, jit

class H100:
    def get_current_device(self): return 0
    def get_current_stream(self, device): return 0
    def get_current_target(self): return GPUTarget("cuda", 90, 32)

def only_compile(self, *arguments, grid, warmup, run=jit.JITFunction.run, **options):
    code = run(self, *arguments, grid=grid, warmup=True, **options).asm["ptx"]
    vectors = [f"{kind}.global.v{n}.b{bits}" in code
               for kind in ("ld", "st") for n, bits in ((4, 32), (2, 64))]
    print(self.__name__, grid, "vectors" if sum(vectors) >= 2 else "single", "atom" in code)

driver.set_active(H100())
jit.JITFunction.run = only_compile

from model.engine.on_torch import gates

dtype, sentences, units, peepholes = sys.argv[1], *map(int, sys.argv[2:])

def empty(*shape):
    return torch.empty(shape, dtype=getattr(torch, dtype))

area, width = (sentences, units), (sentences, 4 * units)
weights = empty(3, units) if peepholes else None
sums = empty(gates.peephole_blocks(sentences), 3, units) if peepholes else None
gates._launch_step_forward(empty(*width), empty(1, units), weights, empty(*area), empty(*area))
gates._launch_step_backward(
    empty(*width), *(empty(*area) for _ in range(3)), empty(*area) if peepholes else None, weights,
    5., empty(*area), empty(*width), sums)
gates._launch_dropout(empty(2, *area), 2**32 - 1, torch.tensor(1), 0, 1, 2**32, 2., empty(2, *area))
"""


@needs_triton
@pytest.mark.parametrize("dtype, sentences, units, peepholes", [
    ("float32", 20, 512, 1), ("float64", 20, 512, 1), ("float32", 1, 1, 0)])
def test_kernels_compile(tmp_path, dtype, sentences, units, peepholes):
    ran = run_python(["-c", COMPILE, dtype, str(sentences), str(units), str(peepholes)],
                     TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path))
    assert ran.returncode == 0, ran.stdout
    # 16 bytes at a time where they lie so, nothing atomic.
    vectors = "vectors" if units == 512 else "single"
    assert ran.stdout.splitlines()[-3:] == [
        f"step_forward ({sentences}, {-(-units // 256)}) {vectors} False",
        f"step_backward ({-(-sentences // 8)}, {-(-units // 64)}) {vectors} False",
        f"dropout ({2 * sentences}, {-(-units // 256)}) {vectors} False"]


def test_without_triton():
    program = """
import sys
sys.modules["triton"] = None
import torch
from model.engine.on_torch import gates
assert gates.kernels is None
for name in ("step_forward", "step_backward", "dropout.int_Tensor"):
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"lstm_model::{name}", "CUDA")
values = torch.ones(1, 1, 9)
gates.dropout(values, (1, 2), (0, 0), 2**32, 2., values)
assert values.tolist() == [[[2.] * 9]]
"""
    ran = run_python(["-c", program])
    assert ran.returncode == 0, ran.stdout
