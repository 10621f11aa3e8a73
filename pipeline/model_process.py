"""The model's commands in a process of their own: Theano never runs in a forked worker."""

from __future__ import annotations

import functools
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from model.system import environment
from model.system.errors import BadInput, DamagedFile, UserError
from model.system.files import publish
from model.system.processes import end_with_all_below, end_with_parent, nothing_left

# Seconds that a launcher is given to end once one of its processes has told why it has.
_END_OF_LAUNCHER = 15.0


@dataclass(frozen=True)
class Launch:
    """How several processes of a command are started, and what they are to know of it.

    Parameters
    ----------
    launcher : str
        The command, with ``{processes}`` for their number.
    processes : int
    longest_wait : float
        Seconds that one waits for another.
    """

    launcher: str
    processes: int
    longest_wait: float

    def words(self) -> list[str]:
        """The words of the launcher; UserError where there is no such program."""
        words = [word.replace("{processes}", str(self.processes))
                 for word in shlex.split(self.launcher)]
        program = shutil.which(words[0], path=self.path())
        if program is None:
            raise UserError(f"[run] launcher = {self.launcher}: there is no program {words[0]}; "
                            f"'make run PROCESSES={self.processes}' installs an mpiexec")
        return [program, *words[1:]]

    def path(self) -> str:
        """Where programs are looked for: an MPI of this environment goes before the system's."""
        return os.pathsep.join(
            [os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])


def run_model_command(command: str, job: dict, job_file: Path,
                      say: Callable[[str, float], None], launch: Launch | None = None) -> dict:
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
    launch : Launch, optional
        How to start several processes; one alone without it.

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
    with nothing_left(), _start(command, job_file, launch) as process:
        for line in process.stdout or ():
            try:
                report = json.loads(line)
            except ValueError:  # a library's own message
                print(line, end="", file=sys.stderr)
                continue
            if "result" in report:
                result = report["result"]
            elif "error" in report and error is None:  # or else what came of it in other processes
                error, damaged = report["error"], report.get("damaged")
                failure = BadInput if report.get("bad_input") else UserError
                if launch:
                    _end_later(process)
            elif "error" in report:
                continue
            else:
                say(report["status"], report["share"])
    if damaged:
        raise DamagedFile(damaged, error or "")
    if process.returncode:
        ended = (how_all_ended(launch, process.returncode) if launch
                 else how_it_ended(process.returncode))
        raise failure(error or f"python -m model {command} {ended}")
    return result


def _start(command: str, job_file: Path, launch: Launch | None) -> subprocess.Popen:
    words = [*environment.module_command("model"), command, str(job_file)]
    pipes: dict = {"stdout": subprocess.PIPE, "stdin": subprocess.DEVNULL, "text": True}
    if launch is None:
        return subprocess.Popen([*words, "--with-parent", str(os.getpid())], **pipes)
    words = [*launch.words(), *words, "--processes", str(launch.processes),
             "--longest-wait", str(launch.longest_wait)]
    # A launcher passes the signal on; those that it starts end when it is gone.
    return subprocess.Popen(
        words, env={**os.environ, "PATH": launch.path()}, **pipes,
        preexec_fn=functools.partial(end_with_parent, os.getpid(), signal.SIGTERM))


def _end_later(launcher: subprocess.Popen) -> None:
    """End a launcher that does not end by itself, as one that waits for a host that is lost."""
    def end() -> None:
        if launcher.poll() is None:
            end_with_all_below(launcher.pid)

    timer = threading.Timer(_END_OF_LAUNCHER, end)
    timer.daemon = True
    timer.start()


_PERHAPS = {
    signal.SIGKILL: ", perhaps for want of memory (the kernel's log tells: dmesg)",
    signal.SIGSEGV: ", perhaps for want of stack (ulimit -s)",
}


def how_all_ended(launch: Launch, exit_code: int) -> str:
    """The same of several processes, whose launcher's exit code it is."""
    # Launchers tell of a signal that has ended a process as it is, or as a shell does.
    number = exit_code - 128 if exit_code > 128 else exit_code
    try:
        name = signal.Signals(number).name if number > 2 else None  # ours end with 1 or 2
    except ValueError:
        name = None
    if exit_code < 0:
        return f"has lost the launcher of its processes, which {how_it_ended(exit_code)}"
    if name is None:
        return f"on {launch.processes} processes {how_it_ended(exit_code)}"
    return (f"has lost one of its {launch.processes} processes: it was ended by {name}"
            f"{_PERHAPS.get(signal.Signals(number), '')}; the launcher's messages are above")


def how_it_ended(exit_code: int) -> str:
    """What an exit code of another process tells, negative for a signal, as a part of a line."""
    if exit_code >= 0:
        return f"ended with exit code {exit_code}; its messages are above"
    try:
        number = signal.Signals(-exit_code)
    except ValueError:  # a real-time signal has no name
        return f"was ended by signal {-exit_code}"
    return f"was ended by {number.name}{_PERHAPS.get(number, '')}"
