import signal
import subprocess
import sys

import pytest

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
