"""Publishing is atomic, and what killed processes leave is swept."""

import errno
import fcntl
import hashlib
import os
import subprocess
import sys

import pytest

from model.system.errors import UserError
from model.system.files import digest_file, open_beginning, publish, sweep_temporaries, try_lock


def test_publish_replaces_the_file_only_when_the_block_has_succeeded(tmp_path):
    path = tmp_path / "folder" / "file.txt"
    with publish(path) as temporary:
        temporary.write_text("first")
        assert not path.exists()
    assert path.read_text() == "first"
    with pytest.raises(RuntimeError), publish(path) as temporary:
        temporary.write_text("second")
        raise RuntimeError
    assert path.read_text() == "first"
    assert os.listdir(path.parent) == ["file.txt"]


def test_a_failed_write_is_an_error_that_names_the_file(tmp_path):
    folder = tmp_path / "file"
    folder.write_text("not a folder")
    with pytest.raises(UserError, match=f"cannot write {folder}/x.txt"), publish(
            folder / "x.txt") as temporary:
        temporary.write_text("text")


def test_only_the_temporary_files_of_dead_processes_are_swept(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", (
        "import os, sys; from model.system.files import publish\n"
        "with publish(sys.argv[1]) as temporary: temporary.touch(); os._exit(0)")]
        + [str(tmp_path / "a" / "x")])
    child.wait()
    dead, = (tmp_path / "a").iterdir()
    assert str(child.pid) in dead.name
    alive = tmp_path / dead.name.replace(str(child.pid), str(os.getppid()))
    # Other programs name their temporary files alike.
    others = [tmp_path / "notes.tmp", tmp_path / f".x.{child.pid}.tmp"]
    for path in (alive, *others):
        path.write_text("")
    assert sweep_temporaries(tmp_path) == [dead]
    assert not dead.exists() and all(path.exists() for path in (alive, *others))


def test_without_locks_it_goes_on_with_a_warning(tmp_path, monkeypatch, capsys):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with open(tmp_path / "lock", "w") as file:
        assert try_lock(file)
    assert "has no locks" in capsys.readouterr().err


def test_a_file_system_without_locks_will_do(tmp_path, make_shards):
    source, library = tmp_path / "flock.cpp", tmp_path / "flock.so"
    source.write_text("#include <errno.h>\nextern \"C\" int flock(int file, int operation) "
                      "{ errno = ENOLCK; return -1; }\n")
    subprocess.run(["g++", "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    (shard,), _ = make_shards(tmp_path / "shards", [["a b a", "b"]])
    code = ("import sys; from pathlib import Path; from model.data.shards import ShardReader\n"
            "from pipeline.working_folder import only_one_run\n"
            "with only_one_run(Path(sys.argv[1])):\n"
            " reader = ShardReader([Path(sys.argv[2])])\n"
            " print([reader.sentences(steps)[0].shape for steps in reader.step_counts])")
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "work"), str(shard)], capture_output=True,
        text=True, env={**os.environ, "LD_PRELOAD": str(library)})
    assert done.stdout == "[(1, 2), (1, 4)]\n", done.stderr
    assert done.stderr.count("has no locks (No locks available)") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("size", [0, 1, 5_000, 100_000, 150_000])
def test_the_beginning_of_a_growing_file(tmp_path, size):
    path = tmp_path / "growing"
    content = bytes(range(250)) * 400
    path.write_bytes(content)
    with open_beginning(path, size) as file, open(path, "ab") as other:
        beginning = file.read(10)
        other.write(b"more")
        other.flush()
        assert beginning + file.read(40_000) + file.read() == (content + b"more")[:size]
    assert digest_file(path, size) == hashlib.sha256((content + b"more")[:size]).hexdigest()
    assert digest_file(path) == hashlib.sha256(content + b"more").hexdigest()
