"""Sealed HDF5 files: what was written is what is read, or an error."""

import h5py
import numpy as np
import pytest

from model.system.errors import DamagedFile
from model.system.hdf5 import check_hdf5, open_hdf5, write_hdf5


def write_example(path, values=(1, 2, 3)):
    with write_hdf5(path) as file:
        file.attrs["name"] = "example"
        file["values"] = np.array(values)


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
