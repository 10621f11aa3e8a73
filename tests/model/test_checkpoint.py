"""A checkpoint comes back as it was written, and nothing else passes for one."""

import dataclasses

import h5py
import numpy as np
import pytest

from model.checkpoint import (
    Checkpoint,
    publish_model,
    read_checkpoint,
    write_checkpoint,
)
from model.data.vocabulary import Vocabulary
from model.lineage import TrainingText
from model.system.errors import UserError
from model.system.hdf5 import write_hdf5


@pytest.fixture
def checkpoint(random):
    return Checkpoint(
        parameters={"lstm1.W_in_to_cell": random.normal(size=(5, 2)).astype("float32"),
                    "softmax.b": np.zeros(5, "float32")},
        optimiser=[np.float32(3), random.normal(size=(5, 2))],
        vocabulary=Vocabulary(("the", "<s>", "</s>", "<unk>", "ëndë"), (9, 4, 4, 2, 1)),
        settings={"network": {"num_units": 2}, "source": "abc"},
        position={"epoch": 1, "best_perplexity": 12.345678901234567, "finished": None},
        history=[{"update": n} for n in range(3000)],
        ancestry=[{"model": "0" * 64}],
        text=TrainingText(3, {"valid": 0.1, "test": 0}, {"valid": None, "test": "ab"},
                          {"ab": ["01", "02"]}),
        ancestors_text=TrainingText(3, {"valid": 0.05, "test": 0}, {"valid": None, "test": "ab"},
                                    {"ab": ["02", "03"], "cd": []}))


def test_round_trip(tmp_path, checkpoint):
    write_checkpoint(tmp_path / "a.h5", checkpoint)
    again = read_checkpoint(tmp_path / "a.h5")
    for field in dataclasses.fields(Checkpoint):
        np.testing.assert_equal(getattr(again, field.name), getattr(checkpoint, field.name))
    assert again.seen_text == TrainingText(
        3, {"valid": 0.05, "test": 0}, {"valid": None, "test": "ab"}, {"ab": ["01", "02", "03"]})
    assert list(again.parameters) == list(checkpoint.parameters)
    write_checkpoint(tmp_path / "b.h5", again)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_what_is_no_checkpoint_is_refused(tmp_path, checkpoint):
    with pytest.raises(UserError, match="there is no checkpoint"):
        read_checkpoint(tmp_path / "missing.h5")
    with h5py.File(tmp_path / "plain.h5", "w"):
        pass
    with pytest.raises(UserError, match="plain.h5"):
        read_checkpoint(tmp_path / "plain.h5")
    with write_hdf5(tmp_path / "other.h5") as file:
        file.attrs["format"] = "something else"
    with pytest.raises(UserError, match="other.h5 is not a checkpoint"):
        read_checkpoint(tmp_path / "other.h5")


def test_another_format_version_is_refused(tmp_path):
    with write_hdf5(tmp_path / "new.h5") as file:
        file.attrs["format"] = "lstm-language-model-checkpoint"
        file.attrs["format_version"] = 99
    with pytest.raises(UserError, match="version 99"):
        read_checkpoint(tmp_path / "new.h5")


def test_a_published_model_has_no_state_of_the_training(tmp_path, checkpoint):
    write_checkpoint(tmp_path / "a.h5", checkpoint)
    for name in ("model.h5", "again.h5"):
        publish_model(tmp_path / "a.h5", tmp_path / name)
    assert (tmp_path / "model.h5").read_bytes() == (tmp_path / "again.h5").read_bytes()
    model = read_checkpoint(tmp_path / "model.h5")
    expected = dataclasses.replace(checkpoint, optimiser=[])
    for field in dataclasses.fields(Checkpoint):
        np.testing.assert_equal(getattr(model, field.name), getattr(expected, field.name))
    assert list(model.parameters) == list(checkpoint.parameters)


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path, checkpoint):
    write_checkpoint(tmp_path / "a.h5", checkpoint)
    before = (tmp_path / "a.h5").read_bytes()
    checkpoint.settings = {"network": object()}
    with pytest.raises(TypeError):
        write_checkpoint(tmp_path / "a.h5", checkpoint)
    assert (tmp_path / "a.h5").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]
