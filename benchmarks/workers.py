"""Processes that do one thing at a time when asked to: the side that asks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from types import TracebackType

from benchmarks.extent import THREADS, Shape
from model.system import environment
from model.system.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[1]


class Worker:
    """A process of `benchmarks.worker`; a context manager that waits for it, and ends it.

    Parameters
    ----------
    task : str
        What it does: a name in `benchmarks.worker.TASKS`.
    shape : Shape or None
    compile_cache : path or None
        Where Theano keeps compiled code; None for the usual place.
    **more : str, int, float or list
        What else the task needs.

    Raises
    ------
    UserError
        When the process fails: from all that waits for it.
    """

    def __init__(self, task: str, shape: Shape | None = None, *,
                 compile_cache: Path | None = None, **more: str | float | list[str]):
        self.task = task
        job = {"task": task, "shape": asdict(shape) if shape else None, **more}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", json.dumps(job)], cwd=REPOSITORY,
            env=_environment(compile_cache), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True)

    @cached_property
    def ready(self) -> dict:
        """What it said when it was ready; waits until it is."""
        return self._answer()

    def turn(self, seconds: float) -> dict:
        """Let it work for at least so many seconds; what it says then."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        return self._answer()

    def end(self) -> dict:
        """Let it do its last thing, after which it ends; what it says then."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self._answer()

    def _answer(self) -> dict:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            raise UserError(f"the benchmark's process for {self.task} ended with exit code {code}; "
                            "its messages are above")
        return json.loads(line)

    def __enter__(self) -> Worker:
        _ = self.ready
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()  # it ends when there is nothing more to do
        if error is not None:
            self._process.kill()
        self._process.wait()
        self._process.stdout.close()


def left_out() -> dict[str, str]:
    """Settings of BLAS libraries in the environment, which the workers do not get.

    A processor type named by OPENBLAS_CORETYPE, say, can halve the rate of sgemm, and with it what
    training is measured against: each library chooses for itself.
    """
    return {name: value for name, value in os.environ.items()
            if name.startswith(("OPENBLAS_", "MKL_"))}


def _environment(compile_cache: Path | None) -> dict[str, str]:
    ignored = left_out()
    variables = {name: value for name, value in os.environ.items() if name not in ignored}
    variables |= {"PIPELINE_WORK": environment.work_folder(), "PIPELINE_ENVIRONMENT": "keep"}
    for library in ("OMP", "OPENBLAS", "MKL"):
        variables[f"{library}_NUM_THREADS"] = str(THREADS)
    if compile_cache is not None:
        flags = [os.environ.get("THEANO_FLAGS", ""), f"base_compiledir={compile_cache}"]
        variables["THEANO_FLAGS"] = ",".join(filter(None, flags))
    return variables
