"""Publishing is atomic, and what killed processes leave is swept."""

import hashlib
import os
import subprocess
import sys
import time

import pytest

from model.system.errors import UserError
from model.system.files import (
    digest_file,
    look_anew,
    open_beginning,
    publish,
    sweep_temporaries,
)
from model.system.processes import host_name


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
    # Of another host a process of the same number may be alive.
    elsewhere = tmp_path / dead.name.replace(host_name(), "another-host")
    for path in (alive, elsewhere, *others):
        path.write_text("")
    assert sweep_temporaries(tmp_path) == [dead]
    assert not dead.exists() and all(path.exists() for path in (alive, elsewhere, *others))
    os.utime(elsewhere, (0, time.time() - 25 * 3600))
    assert sweep_temporaries(tmp_path) == [elsewhere]
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "a", alive, *others])


def test_processes_of_two_hosts_write_the_same_file_under_names_of_their_own(
        tmp_path, monkeypatch):
    with publish(tmp_path / "x") as ours:
        ours.write_text("ours")
        monkeypatch.setattr("model.system.files.host_name", lambda: "another-host")
        with publish(tmp_path / "x") as theirs:
            theirs.write_text("theirs")
        assert (tmp_path / "x").read_text() == "theirs"
    assert (tmp_path / "x").read_text() == "ours" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("has_renamed", [True, False])
def test_a_renaming_whose_first_answer_was_lost(tmp_path, monkeypatch, has_renamed):
    replace = os.replace

    def asked_twice(old, new):
        if has_renamed:
            replace(old, new)
        replace(old, new.with_name("gone") / "x")  # there is no such file

    (tmp_path / "x").write_text("before")
    monkeypatch.setattr(os, "replace", asked_twice)
    if has_renamed:
        with publish(tmp_path / "x") as temporary:
            temporary.write_text("after")
    else:
        with pytest.raises(UserError, match="Nothing was published"), publish(
                tmp_path / "x") as temporary:
            temporary.write_text("after")
    assert (tmp_path / "x").read_text() == ("after" if has_renamed else "before")


def test_a_file_of_another_host_is_asked_for_from_the_folder_that_was_there_on(
        tmp_path, monkeypatch):
    opened, open_ = [], os.open
    monkeypatch.setattr(os, "open", lambda path, *rest: opened.append(path) or open_(path, *rest))
    folder = tmp_path / "receipts" / "tokens" / "a"
    folder.mkdir(parents=True)
    look_anew(folder, tmp_path)
    assert opened == [tmp_path, folder.parents[1], folder.parents[0], folder]
    look_anew(tmp_path / "none" / "x", tmp_path)


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
    processes = [subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "work"), str(shard)], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "LD_PRELOAD": str(library)}) for _ in range(2)]
    for process in processes:
        output, errors = process.communicate(timeout=60)
        assert output.splitlines() == ["[(1, 2), (1, 4)]"], errors
        assert process.returncode == 0 and "Traceback" not in errors


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
