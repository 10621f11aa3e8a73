import signal
import subprocess
import sys
from pathlib import Path

import pytest

from model.system.errors import UserError
from model.system.processes import children
from pipeline.model_process import how_it_ended, run_model_command

PROGRAM = """
import os, signal, sys
from model.system.processes import end_with_parent
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


FAMILY = "sleep 300 >{0} & echo $! >{1}; sh -c 'sleep 300 & wait' >{0} & sleep 0.2; "


def test_a_signal_ends_what_a_process_has_started(tmp_path):
    family = FAMILY.format("&1", tmp_path / "pid") + "wait"
    program = ("import signal, subprocess, sys\n"
               "from model.system.processes import end_with_descendants\n"
               "signal.signal(signal.SIGTERM, end_with_descendants)\n"
               f"children = subprocess.Popen(['sh', '-c', {family!r}])\n"
               "print('started', flush=True)\n"
               "children.wait()")
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "started\n"
    process.terminate()
    assert process.communicate(timeout=10) == ("", None)  # all of them hold the pipe
    assert process.returncode == -signal.SIGTERM


def test_a_command_that_is_killed_leaves_nothing_behind(tmp_path, monkeypatch):
    bystander = subprocess.Popen(["sleep", "300"])
    command = tmp_path / "command"
    command.write_text("#!/bin/sh\n" + FAMILY.format("/dev/null", tmp_path / "pid")
                       + "kill -9 $$\n")
    command.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(command))
    try:
        before = children()
        with pytest.raises(UserError, match="was ended by SIGKILL"):
            run_model_command("train", {}, tmp_path / "job.json", lambda *_: None)
        assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()
        assert children() == before and bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
