"""Keys come back range by range, from memory or from the disk."""

import numpy as np
import pytest

from model.scattered import Scattered
from model.system.errors import UserError


@pytest.mark.parametrize("ranges", [1, 2, 5])
def test_keys_come_back_by_their_range(tmp_path, random, ranges):
    keys = random.integers(0, 256, (1000, 6)).astype("u1").view("S6").ravel()
    of_range = random.integers(0, ranges, len(keys))
    sizes = np.bincount(of_range, minlength=ranges).tolist()
    with Scattered(sizes, keys.dtype, tmp_path / "x") as scattered:
        for some in np.array_split(np.arange(len(keys)), 7):
            scattered.add(keys[some], of_range[some])
        assert len(list(tmp_path.iterdir())) == (ranges > 1)
        for number in range(ranges):
            assert (scattered.take(number) == keys[of_range == number]).all()
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told(full_disk):
    folder = full_disk(64)
    keys = np.zeros(100_000, "S10")
    with (pytest.raises(UserError, match="No space left"),
          Scattered([len(keys), 0], keys.dtype, folder / "x") as scattered):
        scattered.add(keys, np.zeros(len(keys), int))
    assert not list(folder.iterdir())
