"""Killed at any moment and run again, a job ends with the bytes of one that was never killed."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline import daemon
from tests.jobs import REPOSITORY, Job, children, free_port, kill_group, results

FAILPOINTS = Path(__file__).parent / "failpoints"


@pytest.mark.parametrize("stages, least", [("data", 40), ("training", 20)])
def test_a_kill_at_every_write(tmp_path, stages, least):
    job = Job(tmp_path / "job")
    environment = job.environment(PYTHONPATH=f"{REPOSITORY}:{FAILPOINTS}")
    done = subprocess.run(
        [sys.executable, str(FAILPOINTS / "every.py"), stages, str(tmp_path / "jobs")],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.split()[-1]) >= least
