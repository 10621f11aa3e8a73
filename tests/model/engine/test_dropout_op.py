"""Dropout against the published numbers of its generator, and against a slow form."""

import ctypes
import subprocess

import numpy as np
import pytest

from model.engine import available, dropout, dropout_op, native  # isort: skip

import theano
import theano.tensor as T
from theano.gof.cmodule import GCC_compiler

# Counter, key and numbers of Philox4x32-10 in Random123's file of known answers.
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
     (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]


def slow_philox(counter, key):
    """In Python's own integers."""
    a, b, c, d = counter
    for number in range(10):
        left, right = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = (right >> 32 ^ b ^ (key[0] + number * 0x9E3779B9) % 2**32, right % 2**32,
                      left >> 32 ^ d ^ (key[1] + number * 0xBB67AE85) % 2**32, left % 2**32)
    return a, b, c, d


@pytest.fixture(params=["compiled", "numpy"])
def way(request, monkeypatch):
    if request.param == "numpy":
        monkeypatch.setattr(native, "available", lambda: "there is no compiler")
    elif available() is not None:
        pytest.skip(str(available()))
    return request.param


def masked(values, update=0, sentence=0, rate=0.5, seed=1, stream=0):
    return dropout(values, np.int64(update), np.int64(sentence), rate=rate, seed=seed,
                   stream=stream).eval()


@pytest.mark.parametrize("counter, key, numbers", KNOWN_ANSWERS)
def test_numpys_numbers_are_the_published_ones(counter, key, numbers):
    assert slow_philox(counter, key) == numbers
    assert tuple(map(int, dropout_op.philox(list(counter), list(key)))) == numbers


@pytest.fixture(scope="module")
def compiled_philox(tmp_path_factory):
    """The generator of the library's source, with the compiler's options for this processor."""
    if available() is not None:
        pytest.skip(str(available()))
    folder = tmp_path_factory.mktemp("philox")
    (folder / "philox.cpp").write_text("""
        #include "dropout.h"
        extern "C" void numbers(const uint32_t *counter, const uint32_t *key, uint32_t *result) {
          philox(counter[0], counter[1], counter[2], counter[3], key[0], key[1], result);
        }
    """)
    flags = [flag for flag in GCC_compiler.compile_args() if flag.startswith("-m")]
    subprocess.run([theano.config.cxx, "-std=c++17", "-O3", "-shared", "-fPIC", *flags,
                    f"-I{native._SOURCE.parent}", str(folder / "philox.cpp"),
                    "-o", str(folder / "philox.so")], check=True)
    function = ctypes.CDLL(str(folder / "philox.so")).numbers

    def numbers(counter, key):
        """Of this counter and the fifteen after it."""
        result = np.empty((16, 4), "uint32")
        function(*(ctypes.c_void_p(np.array(words, "uint32").ctypes.data)
                   for words in (counter, key)), ctypes.c_void_p(result.ctypes.data))
        return result

    return numbers


@pytest.mark.parametrize("counter, key, numbers", KNOWN_ANSWERS)
def test_the_librarys_numbers_are_the_published_ones(compiled_philox, counter, key, numbers):
    found = compiled_philox(counter, key)
    assert tuple(map(int, found[0])) == numbers
    for number, words in enumerate(found):
        assert tuple(map(int, words)) == slow_philox(
            ((counter[0] + number) % 2**32, *counter[1:]), key)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 5), (2, 3, 64), (2, 1, 131)])
def test_each_value_is_kept_or_dropped_by_its_own_number(way, random, shape, dtype):
    values = random.normal(size=shape).astype(dtype)
    found = masked(values, update=7, sentence=90, rate=0.3, seed=2**32 - 1, stream=2)
    assert found.dtype == dtype
    for step, sentence, unit in np.ndindex(*shape):
        number = slow_philox((unit // 4, step, 90 + sentence, 2), (2**32 - 1, 7))[unit % 4]
        wanted = values[step, sentence, unit] / 0.7 if number < 0.7 * 2**32 else 0
        np.testing.assert_allclose(found[step, sentence, unit], wanted, rtol=1e-6)


def test_the_share_that_is_dropped_and_the_mean(way):
    found = masked(np.ones((20, 50, 100)), rate=0.3)
    assert abs((found == 0).mean() - 0.3) < 0.01
    assert abs(found.mean() - 1) < 0.01


def test_all_that_a_mask_depends_on_changes_it(way):
    values = np.ones((3, 4, 64))
    base = masked(values)
    np.testing.assert_array_equal(base, masked(values))
    for change in ({"update": 1}, {"sentence": 1}, {"seed": 2}, {"stream": 1}):
        assert ((masked(values, **change) == 0) != (base == 0)).mean() > 0.3
    assert len({row.tobytes() for row in base.reshape(12, 64)}) == 12


def test_masks_do_not_depend_on_how_sentences_are_put_together(way, random):
    values = random.normal(size=(3, 7, 20))
    whole = masked(values, sentence=5)
    parts = [masked(values[:, :4], sentence=5), masked(values[:, 4:], sentence=9)]
    np.testing.assert_array_equal(whole, np.concatenate(parts, axis=1))


def test_the_gradient_goes_where_the_values_went(way, random):
    values, weights = random.normal(size=(2, 3, 4, 70))
    x = T.dtensor3()
    result = dropout(x, np.int64(3), np.int64(0), rate=0.4, seed=1, stream=0)
    compute = theano.function([x], [result, theano.grad((result * weights).sum(), x)])
    found, gradient = compute(values)
    np.testing.assert_allclose(gradient, np.where(found != 0, weights / 0.6, 0))


def test_wrong_types():
    with pytest.raises(TypeError, match="three dimensions"):
        dropout(np.ones((2, 3)), 0, 0, rate=0.5, seed=1, stream=0)
