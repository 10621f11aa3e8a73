"""What a run will need of the disk is told before it begins, with what there is."""

import shutil
from pathlib import Path

import pytest

from model.system.errors import UserError
from pipeline import disk_space, tasks
from tests.jobs import Job, reset_settings


@pytest.fixture
def job(tmp_path):
    yield Job(tmp_path / "job")
    reset_settings()


def free(monkeypatch, count, total=10**12):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: (total, total - count, count))


def test_both_numbers_are_told(tmp_path, monkeypatch):
    free(monkeypatch, 2_500_000)
    disk_space.check(tmp_path / "work", 2_500_000)
    with pytest.raises(UserError) as refused:
        disk_space.check(tmp_path / "work", 3_000_000_000)
    assert "about 3.0 GB in" in str(refused.value) and "2.5 MB are free" in str(refused.value)
    free(monkeypatch, 0, total=0)  # a file system that does not tell
    disk_space.check(tmp_path / "work", 3_000_000_000)


def test_what_a_text_takes_is_that_which_is_new():
    sizes = [(Path("a.txt"), 1000), (Path("b.txt.xz"), 100)]
    assert disk_space.for_corpus(sizes, 0) == 2 * (1000 + 3 * 100)
    assert disk_space.for_corpus(sizes, 1200) == 2 * 100
    assert disk_space.for_corpus(sizes, 5000) == 0


@pytest.mark.parametrize("layers", [1, 2])
def test_what_a_training_takes_is_that_of_its_parameters(layers):
    from model.configuration import NetworkConfig
    from model.network import build_network  # isort: skip
    import lasagne

    config = {"num_units": 64, "num_layers": layers, "grad_clipping": 5.0, "peepholes": True,
              "learn_init": False, "dropout": 0.0, "recurrence": "fused"}
    network = build_network(NetworkConfig(**config), 1000)
    parameters = lasagne.layers.count_params(network.output)
    assert disk_space.for_training(config, "adam", 1000) == pytest.approx(
        3 * 3 * 4 * parameters, rel=0.02)
    assert disk_space.for_training(config, "adagrad", 1000) == pytest.approx(
        3 * 2 * 4 * parameters, rel=0.02)


def test_a_run_is_refused_before_it_begins_and_an_edit_is_not(job, monkeypatch):
    text = sum(path.stat().st_size for path in (job.train, job.valid, job.test))
    training = disk_space.for_training({"num_units": 4}, "adam", 60)
    free(monkeypatch, 2 * text + training - 1)
    with pytest.raises(UserError, match="will need about"):
        job.build(tasks.SplitCorpus)
    assert not (job.work / "parts").exists()
    free(monkeypatch, 2 * text + training)
    job.build(tasks.SplitCorpus)
    free(monkeypatch, text + training)
    job.train.write_text(job.train.read_text().replace("word00", "word01", 1))
    assert job.build(tasks.SplitCorpus)
