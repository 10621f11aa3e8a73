"""The model's commands in a process of their own: Theano never runs in a forked worker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from model.system import environment
from model.system.errors import BadInput, DamagedFile, UserError
from model.system.files import publish
from model.system.processes import nothing_left


def run_model_command(command: str, job: dict, job_file: Path,
                      say: Callable[[str, float], None]) -> dict:
    """Run ``python -m model COMMAND`` on a job, passing its progress on.

    The process ends when this one is gone, whatever ended it; a training writes a checkpoint
    first.

    Parameters
    ----------
    command : str
    job : dict
        What the command reads.
    job_file : path
        Where to write it.
    say : function
        Called with a status line and the share that is done, 0 to 1.

    Returns
    -------
    dict
        What the command has told as its result, if anything.

    Raises
    ------
    UserError
        With the command's own message, when it failed; BadInput where it says so.
    DamagedFile
        When it failed because of a damaged file.
    """
    with publish(job_file) as temporary:
        temporary.write_text(json.dumps(job, indent=1))
    error, damaged, failure, result = None, None, UserError, {}
    with nothing_left(), subprocess.Popen(
            [*environment.module_command("model"), command, str(job_file),
             "--with-parent", str(os.getpid())],
            stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
        for line in process.stdout or ():
            try:
                report = json.loads(line)
            except ValueError:  # a library's own message
                print(line, end="", file=sys.stderr)
                continue
            if "result" in report:
                result = report["result"]
            elif "error" in report:
                error, damaged = report["error"], report.get("damaged")
                failure = BadInput if report.get("bad_input") else UserError
            else:
                say(report["status"], report["share"])
    if damaged:
        raise DamagedFile(damaged, error or "")
    if process.returncode:
        raise failure(error or f"python -m model {command} {how_it_ended(process.returncode)}")
    return result


_PERHAPS = {
    signal.SIGKILL: ", perhaps for want of memory (the kernel's log tells: dmesg)",
    signal.SIGSEGV: ", perhaps for want of stack (ulimit -s)",
}


def how_it_ended(exit_code: int) -> str:
    """What an exit code of another process tells, negative for a signal, as a part of a line."""
    if exit_code >= 0:
        return f"ended with exit code {exit_code}; its messages are above"
    try:
        number = signal.Signals(-exit_code)
    except ValueError:  # a real-time signal has no name
        return f"was ended by signal {-exit_code}"
    return f"was ended by {number.name}{_PERHAPS.get(number, '')}"
