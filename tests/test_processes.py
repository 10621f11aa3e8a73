import signal
import subprocess
import sys

import pytest

from pipeline.model_process import how_it_ended

PROGRAM = """
import os, signal, sys
from model.processes import end_with_parent
end_with_parent(int(sys.argv[1]), signal.SIGTERM)
print(os.getpid(), flush=True)
signal.pause()
"""


def test_a_process_ends_with_its_parent():
    # The one between starts the other and waits for its word, so that it is at work when this
    # one is killed.
    between = (
        "import os, subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {PROGRAM!r}, str(os.getpid())])\n"
        "child.wait()")
    parent = subprocess.Popen([sys.executable, "-c", between], stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline()
    parent.kill()
    # Until the last process that holds the pipe is gone.
    assert parent.communicate(timeout=10) == ("", None)


def test_a_process_whose_parent_is_gone_already_ends_at_once():
    gone = subprocess.Popen(["true"])
    gone.wait()
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(gone.pid)], stdout=subprocess.PIPE)
    assert done.returncode == -signal.SIGTERM and done.stdout == b""


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_a_command_whose_parent_is_gone_does_nothing(tmp_path, command):
    gone = subprocess.Popen(["true"])
    gone.wait()
    done = subprocess.run([sys.executable, "-m", "model", command, str(tmp_path / "no job"),
                           "--with-parent", str(gone.pid)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGTERM, "", "")


@pytest.mark.parametrize(("number", "ignored", "stops"), [
    ("SIGTERM", False, True), ("SIGINT", False, True), ("SIGHUP", False, True),
    ("SIGHUP", True, False)])  # as nohup starts a process
def test_what_stops_a_training(number, ignored, stops):
    asks = ("import os, signal; from model.__main__ import _stop_requests; "
            f"number = signal.{number}; "
            f"signal.signal(number, signal.{'SIG_IGN' if ignored else 'SIG_DFL'}); "
            "should_stop = _stop_requests(); assert not should_stop(); "
            "os.kill(os.getpid(), number); print(should_stop())")
    done = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"{stops}\n", "")


def test_how_a_process_ended_is_told():
    assert how_it_ended(3) == "ended with exit code 3; its messages are above"
    assert how_it_ended(-signal.SIGKILL).startswith("was ended by SIGKILL, perhaps for want of mem")
    assert how_it_ended(-signal.SIGTERM) == "was ended by SIGTERM"
    assert how_it_ended(-signal.SIGRTMIN - 1) == f"was ended by signal {signal.SIGRTMIN + 1}"
