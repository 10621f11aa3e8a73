"""What is measured of a training: on real shards, every figure above nothing."""

import json

import pytest

from model.__main__ import main
from model.configuration import NetworkConfig, TrainingConfig
from model.data.batches import epoch_windows
from model.data.shards import ShardReader
from model.data.vocabulary import write_vocabulary
from model.measurement import _largest
from tests.jobs import sentences

TRAINING = {"optimiser": "adam", "rate": 0.01, "window": 16, "denominator": "sentences",
            "micro_batch_sentences": 8, "micro_batch_tokens": 40, "max_epochs": 1,
            "max_minutes": 0, "cooldown": 0.5, "validations_per_epoch": 1, "patience": 4,
            "shards_in_memory": 2, "seed": 1}


@pytest.fixture(scope="module")
def made(tmp_path_factory, make_shards):
    folder = tmp_path_factory.mktemp("measured")
    shards, vocabulary = make_shards(folder, [sentences(100), sentences(20, seed=2)], size=40)
    write_vocabulary(vocabulary, folder / "vocabulary.tsv")
    return folder, shards, vocabulary


@pytest.mark.parametrize("order", [3, 0])
def test_every_part_takes_time_and_room(made, capsys, order):
    folder, (train, valid), vocabulary = made
    job = {"folder": str(folder), "train_shards": [str(train)], "valid_shards": [str(valid)],
           "vocabulary": str(folder / "vocabulary.tsv"), "words": 60, "tokens": 10**9,
           "network": vars(NetworkConfig(4, dropout=0.1)), "training": TRAINING, "order": order,
           "device": "cpu", "seconds": 0.05}
    (folder / "job.json").write_text(json.dumps(job))
    assert main(["measure", str(folder / "job.json")]) == 0
    *said, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert [each["share"] for each in said] == sorted(each["share"] for each in said)
    found = last["result"]
    # What counting so small a text takes may fit into memory that the process has already.
    assert found.pop("counting_bytes") >= 0
    without = {"counted_token", "ngram_bytes"} if order == 0 else set()
    for name, value in found.items():
        assert (value == 0) == (name in without), name
    assert found["checkpoint_bytes"] > 2 * found["model_bytes"] > 4 * 4 * 4 * 4 * 60
    assert found["peak_bytes"] > 50e6


def test_the_largest_micro_batch_is_as_large_as_any_of_an_epoch(made):
    _, (train, _), vocabulary = made
    config = TrainingConfig(**TRAINING)
    inputs, targets = _largest(ShardReader([train]), config)
    windows = epoch_windows([train], vocabulary.digest, seed=1, epoch=0, window=10**6,
                            micro_batch_sentences=8, micro_batch_tokens=40, shards_in_memory=2)
    assert inputs.shape == targets.shape
    assert inputs.size == max(batch.inputs.size for window in windows for batch in window)
