"""Which training a run takes: a finished one, one that was begun, or a new one and its parent.

The model's commands only write files here; test_pipeline.py trains.
"""

import json
import logging
import os
import shutil

import pytest

from model.system.errors import UserError
from pipeline import tasks
from pipeline.artifacts import fingerprint
from tests.jobs import Job, pretend, reset_settings, sentences, write

ROOT = tasks.EvaluatePerplexity


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "run_model_command", pretend)
    monkeypatch.setattr("pipeline.report.training_page.write_training_page", lambda *_, **__: None)
    monkeypatch.setattr(os, "fsync", lambda _: None)  # nobody pulls the plug here
    yield Job(tmp_path / "job", train=120)
    reset_settings()


@pytest.fixture
def said(caplog):
    """What the training says of its start, newest last."""
    caplog.set_level(logging.INFO, logger="pipeline")
    return lambda: [message for message in caplog.messages if "it starts from" in message]


def night(job):
    """Run the job; the model it has now, and the one that this began with, both by folder."""
    job.build(ROOT)
    training = job.root(tasks.TrainModel).training()
    started_from = training.artifact.ingredients["started_from"]
    folder = training.artifact.path.parent
    previous = json.loads((folder / "job.json").read_text())["previous"]
    metrics = job.metrics()["train"]
    assert metrics["model"] == f"models/{folder.name}/model.h5"
    assert (metrics["started_from"] or {}).get("model") == started_from
    assert (previous is None) == (started_from is None)
    return folder, previous and os.path.dirname(previous).rsplit("/", 1)[1]


def edit(job, *more):
    job.lines += more
    write(job.train, job.lines)


def test_new_sentences_every_night_start_from_the_night_before(job, said):
    before, parent = night(job)
    assert parent is None and said() == []
    for number in range(3):
        edit(job, *sentences(5, seed=10 + number, words=60))
        folder, parent = night(job)
        assert parent == before.name and folder != before
        assert job.build(ROOT) == {}  # one training a night
        assert job.metrics()["train"]["started_from"]["ancestors"][number:] == []
        before = folder
    assert len(job.metrics()["train"]["started_from"]["ancestors"]) == 2


def test_a_parent_that_has_seen_the_test_text_is_refused(job, said, tmp_path):
    """And the honest run comes out as in an empty working folder."""
    lines = list(job.lines)
    job.lines += job.test.read_text().splitlines()
    write(job.train, job.lines)
    job.set("corpus", valid="", test="", valid_share=0.1, test_share=0.1)
    night(job)
    write(job.train, lines)
    job.set("corpus", valid=job.valid, test=job.test)
    folder, parent = night(job)
    assert parent is None
    assert "text, which it does not know" in said()[-1] and "\n" not in said()[-1]
    model, job.work = (folder / "model.h5").read_bytes(), tmp_path / "empty"
    fresh, _ = night(job)
    assert fresh.name == folder.name and (fresh / "model.h5").read_bytes() == model


def test_a_test_sentence_that_training_no_longer_holds_is_a_leak(job, said):
    leaked = job.test.read_text().splitlines()[0]
    edit(job, leaked)
    first, _ = night(job)
    edit(job, "word01 word02")
    second, parent = night(job)
    assert parent == first.name  # a training from the start sees it as well
    job.lines.remove(leaked)
    write(job.train, job.lines)
    _, parent = night(job)
    assert parent is None and "1 sentence of the test text" in said()[-1]
    # The ancestor's sin is inherited, and forgotten by the training from the start.
    edit(job, "word03 word04")
    assert night(job)[1] is not None


def test_another_split_is_refused_as_a_parent(job, said):
    night(job)
    job.set("corpus", valid="", test="", valid_share=0.1, test_share=0.1)
    drawn, parent = night(job)
    assert parent is None and "drawn for validation now" in said()[-1]
    job.set("corpus", valid_share=0.2)
    assert night(job)[1] is None and "0.1, and is 0.2" in said()[-1]
    job.set("corpus", valid_share=0.05)
    assert night(job)[1] is not None  # no sentence of the smaller split was trained on


@pytest.mark.parametrize("section, setting", [
    ("training", {"seed": 2}), ("network", {"num_units": 5}), ("vocabulary", {"size": 50}),
    ("corpus", {"sentences_per_part": 40}), ("tokens", {"lowercase": "false"})])
def test_a_changed_setting_trains_from_the_start(job, said, section, setting):
    night(job)
    job.set(section, **setting)
    if setting != {"lowercase": "false"}:
        assert night(job)[1] is None
        assert next(iter(setting)) in said()[-1]
    else:  # the same words, and so the same shards
        edit(job, "Word05 word06")
        assert night(job)[1] is None and "lowercase" in said()[-1]


def test_nothing_trains_again_because_of_its_own_child(job):
    first, _ = night(job)
    lines = list(job.lines)
    edit(job, "word05 word06 word07")
    second, parent = night(job)
    assert parent == first.name
    write(job.train, lines)
    made = job.build(ROOT)
    assert not any(title.startswith("TrainModel") for title in made)
    assert night(job)[0] == first
    edit(job)
    assert night(job)[0] == second


def test_a_finished_model_is_trained_again_when_its_parent_is_refused_today(job, said, tmp_path):
    """A new test text changes nothing that the model was made from but what its parent may be."""
    other = job.folder / "other.txt"
    write(other, sentences(60, seed=4))
    night(job)
    edit(job, "word05 word06 word07")
    warm, parent = night(job)
    assert parent
    job.set("corpus", test=other)
    cold, parent = night(job)
    assert parent is None and cold != warm
    model, job.work = (cold / "model.h5").read_bytes(), tmp_path / "empty"
    assert (night(job)[0] / "model.h5").read_bytes() == model
    # And back: the warm one is as good as it was.


def test_a_resume_keeps_its_parent(job, monkeypatch):
    first, _ = night(job)
    edit(job, "word05 word06 word07")

    def stopped(command, content, job_file, say, launch=None):
        pretend(command, content, job_file, say, launch)
        os.rename(os.path.join(content["folder"], "model.h5"),
                  os.path.join(content["folder"], "last.h5"))
        raise UserError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(tasks, "run_model_command", stopped)
        with pytest.raises(UserError, match="stopped"):
            job.build(ROOT)
    begun, = (path.parent for path in job.work.glob("models/*/last.h5"))
    # A newer model that could be its parent as well.
    lines = list(job.lines)
    write(job.train, lines[:-5])
    newer, _ = night(job)
    write(job.train, lines)
    folder, parent = night(job)
    assert (folder, parent) == (begun, first.name) and newer != first


def test_a_parent_can_be_declined_or_named(job, said, tmp_path):
    first, _ = night(job)
    kept = tmp_path / "kept.h5"
    shutil.copyfile(first / "model.h5", kept)
    edit(job, "word05 word06 word07")
    warm, _ = night(job)
    job.set("training", warm_start="false")
    cold, parent = night(job)
    assert parent is None and cold != warm
    job.set("training", warm_start=kept, seed=3)
    assert night(job)[1] is not None
    job.set("training", warm_start=tmp_path / "none.h5")
    with pytest.raises(UserError, match="warm_start = .*none.h5"):
        job.build(ROOT)
    with pytest.raises(UserError, match="warm_start = .*none.h5"):
        job.why(ROOT)


def test_a_named_parent_that_breaks_the_rule_is_an_error(job, tmp_path):
    first, _ = night(job)
    kept = tmp_path / "kept.h5"
    shutil.copyfile(first / "model.h5", kept)
    other = job.folder / "other.txt"
    write(other, sentences(60, seed=4))
    job.set("corpus", test=other)
    job.set("training", warm_start=kept)
    with pytest.raises(UserError, match="must not be the parent.*test text"):
        job.build(ROOT)


def test_a_model_of_an_older_version_is_no_parent(job, said):
    first, _ = night(job)
    receipt, = (job.work / "receipts" / "models").rglob("*.json")
    content = json.loads(receipt.read_text())
    content["notes"] = {"previous": None}
    content["ingredients"] = {"format": 2, "warm_start": True}
    name = fingerprint(content["ingredients"])
    first.rename(first.with_name(name))
    content["path"] = f"models/{name}/model.h5"
    receipt.unlink()
    receipt.with_name(f"{name}.json").write_text(json.dumps(content))
    edit(job, "word05 word06 word07")
    assert night(job)[1] is None and "older version" in said()[-1]
