"""Scores in a file: what comes back, and what a full disk does."""

import os
import resource
import subprocess
import sys

import numpy as np
import pytest

from model.score_file import ScoreFile


@pytest.fixture
def arrays(random):
    return [random.normal(size=(3, 5)).astype("float32"), random.normal(size=(2, 4)),
            np.zeros((0, 7)), random.normal(size=(6, 4)).T]


def test_what_was_kept_comes_back_each_time(tmp_path, arrays):
    scores = ScoreFile(tmp_path)
    assert list(scores) == []
    for number, each in enumerate(arrays, 1):
        scores.append(each)
        found = list(scores)
        assert len(found) == number
        for before, after in zip(arrays, found):
            np.testing.assert_array_equal(before, after)
            assert before.dtype == after.dtype
    first, second = iter(scores), iter(scores)  # two readers, one further on than the other
    next(first)
    np.testing.assert_array_equal(next(second), arrays[0])
    np.testing.assert_array_equal(next(first), arrays[1])


def test_nothing_is_seen_of_the_file(tmp_path, arrays):
    ScoreFile(tmp_path).append(arrays[0])
    assert os.listdir(tmp_path) == []


def test_what_the_disk_does_not_take_is_told_in_one_line(tmp_path):
    code = """
import signal, sys
import numpy as np
from model.score_file import ScoreFile
from model.system.errors import UserError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    ScoreFile(sys.argv[1]).append(np.zeros(4000))
except UserError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)))
    assert done.stdout == (f"the scores cannot be kept in {tmp_path}: [Errno 27] File too large. "
                           "Nothing was published; check the free space.\n"), done.stderr
