"""Publishing is atomic, and a sealed file tells of any byte that differs."""

import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

from model.files import (
    DamagedFile,
    UserError,
    check_hdf5,
    open_hdf5,
    printable,
    publish,
    sweep_temporaries,
    write_hdf5,
)


def write_example(path, values=(1, 2, 3)):
    with write_hdf5(path) as file:
        file.attrs["name"] = "example"
        file["values"] = np.array(values)


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
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    dead = tmp_path / "a" / f".x.{child.pid}.tmp"
    alive = tmp_path / f".x.{os.getppid()}.tmp"
    other = tmp_path / "notes.tmp"
    for path in (dead, alive, other):
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    assert sweep_temporaries(tmp_path) == [dead]
    assert not dead.exists() and alive.exists() and other.exists()


def test_the_same_content_gives_the_same_bytes(tmp_path):
    write_example(tmp_path / "a.h5")
    write_example(tmp_path / "b.h5")
    write_example(tmp_path / "c.h5", (1, 2, 4))
    a, b, c = ((tmp_path / f"{name}.h5").read_bytes() for name in "abc")
    assert a == b != c


def test_a_sealed_file_is_an_ordinary_hdf5_file(tmp_path):
    write_example(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["values"][()].tolist() == [1, 2, 3]
    with open_hdf5(tmp_path / "a.h5") as file:
        assert file.attrs["name"] == "example"


def test_every_flipped_byte_and_every_truncation_is_found(tmp_path):
    path = tmp_path / "a.h5"
    write_example(path)
    content = path.read_bytes()
    for place in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(DamagedFile, match="a.h5"):
            check_hdf5(path)
        path.write_bytes(content[:place])
        with pytest.raises(DamagedFile, match="a.h5"):
            check_hdf5(path)


def test_a_file_of_another_kind_is_refused(tmp_path):
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file["values"] = [1]
    with pytest.raises(DamagedFile, match="seal"), open_hdf5(tmp_path / "plain.h5"):
        pass
    with pytest.raises(FileNotFoundError), open_hdf5(tmp_path / "missing.h5"):
        pass


def test_names_are_printed_on_one_line_whatever_they_are():
    assert printable("café 東京 a\\b") == "café 東京 a\\b"
    odd = "a\tb\n\r\x1b[31m\u202e\udcff"
    assert printable(odd) == r"a\tb\n\r\x1b[31m\u202e\udcff"
