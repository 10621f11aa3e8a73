"""A lock that holds between processes and hosts, and that a killed process does not keep."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from model.system import locks
from model.system.locks import holding
from model.system.processes import this_process

HOLD = """
import sys, time
from pathlib import Path
from model.system import locks
locks._BEAT_SECONDS = 0.1
with locks.holding(Path(sys.argv[1]), lambda holder: print("waits for", holder, flush=True)):
    print("holds", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def start(path, seconds, code=HOLD):
    return subprocess.Popen([sys.executable, "-c", code, str(path), str(seconds)],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_one_waits_for_the_other(tmp_path):
    path, waited = tmp_path / "lock", []
    first = start(path, 0.5)
    assert first.stdout.readline() == "holds\n"
    with holding(path, waited.append):
        assert first.wait() == 0 and waited == [f"process {first.pid}"]
        assert path.exists()
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_has_left_is_taken_at_once(tmp_path):
    path, waited = tmp_path / "lock", []
    first = start(path, 60)
    assert first.stdout.readline() == "holds\n"
    first.kill()
    # It is not taken note of by its parent yet, and is dead all the same.
    while locks._look(path).holder().has_ended() is False:
        time.sleep(0.01)
    with holding(path, waited.append):
        pass
    first.wait()
    assert not waited and not list(tmp_path.iterdir())


def test_a_number_that_another_process_has_now_is_no_holder(tmp_path):
    name = this_process()
    content = {"holder": name._replace(started="1"), "lock": "x"}
    (tmp_path / "lock").write_text(json.dumps(content))
    with holding(tmp_path / "lock", pytest.fail):
        pass


@pytest.mark.parametrize("content", [
    b"", b"half of a na", json.dumps({"holder": ["another-host", 1, "1"], "lock": "x"}).encode()])
def test_a_lock_of_another_host_is_taken_when_its_time_stands_still(tmp_path, monkeypatch, content):
    monkeypatch.setattr(locks, "_QUIET_SECONDS", 0.5)
    monkeypatch.setattr(locks, "_LOOK_SECONDS", 0.02)
    path, waited = tmp_path / "lock", []
    path.write_bytes(content)
    with holding(path, waited.append):
        assert locks._look(path).holder() == this_process()
    assert waited == (["process 1 on another-host"] if b"another" in content else [])


def test_a_holder_on_another_host_that_is_alive_keeps_its_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_QUIET_SECONDS", 0.5)
    path = tmp_path / "lock"
    other = start(path, 2, HOLD.replace(
        "locks._BEAT", "locks.this_process = lambda: ('another-host', 1, '1'); locks._BEAT"))
    assert other.stdout.readline() == "holds\n"
    waited = []
    with holding(path, waited.append):
        # It was given back, not taken away.
        assert other.wait() == 0, other.stderr.read()
    assert waited == ["process 1 on another-host"]


def test_who_has_lost_its_lock_ends(tmp_path):
    path = tmp_path / "lock"
    first = start(path, 60)
    assert first.stdout.readline() == "holds\n"
    first.send_signal(signal.SIGSTOP)
    os.rename(path, tmp_path / "aside")
    path.write_text(json.dumps({"holder": ["another-host", 1, "1"], "lock": "x"}))
    first.send_signal(signal.SIGCONT)
    _, errors = first.communicate(timeout=10)
    assert first.returncode == -signal.SIGTERM
    assert "another process's now" in errors and "another-host" in path.read_text()


def test_of_many_that_find_a_lock_that_is_left_one_holds_it_at_a_time(tmp_path):
    path = tmp_path / "lock"
    path.write_text(json.dumps({"holder": this_process()._replace(started="1"), "lock": "x"}))
    code = HOLD.replace('    print("holds", flush=True)\n', (
        "    import os\n"
        "    made = os.open(sys.argv[1] + '.inside', os.O_CREAT | os.O_EXCL)\n"
        "    time.sleep(0.05)\n"
        "    os.unlink(sys.argv[1] + '.inside')\n"))
    processes = [start(path, 0, code) for _ in range(8)]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert not list(tmp_path.iterdir())


def test_a_folder_that_takes_no_file_is_told(tmp_path, full_disk):
    folder = full_disk(4)
    with open(folder / "full", "wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)) == 4096:
                pass
        except OSError:
            pass
    with pytest.raises(OSError, match="No space left"), holding(folder / "lock", print):
        pass
    assert not (folder / "lock").exists()
