"""Only what a change affects is done again, and it comes out as if all had been done anew.

Here the model's commands are replaced by ones that only write files; test_pipeline.py trains.
"""

import gzip
import json
import os
import re
import shutil
import threading
import time
from pathlib import Path
from unittest import mock

import pytest

from model.current import current_model, current_ngrams
from model.data.shards import ShardReader
from model.data.vocabulary import SPECIALS
from model.system.errors import DamagedFile, UserError
from pipeline import artifacts, gc, history, stage, tasks
from pipeline.artifacts import fingerprint
from pipeline.corpus.manifest import Manifest
from pipeline.corpus.splits import SPLITS
from tests.jobs import Job, pretend, reset_settings, results, sentences, state, write


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "run_model_command", pretend)
    monkeypatch.setattr("pipeline.report.training_page.write_training_page", lambda *_, **__: None)
    monkeypatch.setattr(os, "fsync", lambda _: None)  # nobody pulls the plug here
    yield Job(tmp_path / "job")
    reset_settings()


ROOT = tasks.EvaluatePerplexity


def stages(made):
    """The names of the stages of which something was made."""
    return {title.split()[0] for title in made}


def used(job):
    """The folder of the model of the present corpus and settings."""
    return job.root(tasks.TrainModel).artifact().path.parent


def known(expected):
    """Of what a run would make, that which does not depend on what it makes before."""
    return {title: reason for title, reason in expected.items()
            if reason != "depends on what the tasks above make"}


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("parts", [0, 1, 2, 33, 200])
def test_parts_are_grouped(monkeypatch, workers, parts):
    monkeypatch.setattr("luigi.interface.core", lambda: mock.Mock(workers=workers))
    single = [tasks.EncodePart(working_folder="w", vocabulary="v", **stage.part_parameters(
        [stage.NamedPart("train", n, f"{n:016x}")])) for n in range(parts)]
    groups = stage._together(single)
    assert [part for group in groups for part in group.named] == [
        part for each in single for part in each.named]
    assert all(1 <= len(group.named) <= stage._MOST_PARTS_TOGETHER for group in groups)
    assert len(groups) >= min(parts, workers // 2 + 1)


@pytest.mark.parametrize(("places", "name"), [
    (["train/3"], "train 3"),
    (["train/1", "train/2", "train/3"], "train 1-3"),
    (["train/1", "train/3", "train/4", "train/9", "valid/1", "test/1", "test/2"],
     "train 1, 3-4, 9, valid 1, test 1-2"),
])
def test_names_of_parts(places, name):
    parts = [stage.NamedPart(place.split("/")[0], int(place.split("/")[1]), f"{n:016x}")
             for n, place in enumerate(places)]
    parameters = stage.part_parameters(parts)
    assert re.fullmatch(rf"{name} \([0-9a-f]{{8}}\)", parameters["part"])
    # Another text in the same places is another task, though people are not shown its digests.
    changed = stage.part_parameters([*parts[:-1], parts[-1]._replace(digest="f" * 16)])
    task, other = (tasks.TokenizePart(working_folder="w", **each)
                   for each in (parameters, changed))
    assert task.named == parts and task.task_id != other.task_id


def test_parts_of_the_same_text_are_one():
    parts = [{"digest": digest} for digest in ("a", "b", "a")]
    manifest = Manifest({"sides": {"train": parts, "valid": parts[1:2], "test": []}})
    first, second = stage.NamedPart("train", 1, "a"), stage.NamedPart("train", 2, "b")
    assert manifest.parts("train") == [first, second, first]
    assert manifest.parts("valid") == [second]


def tokenized(made):
    return [title for title in made if title.startswith("TokenizePart")]


def encoded(made):
    return [title for title in made if title.startswith("EncodePart")]


def anew(job, tmp_path):
    """The shards that the job's corpus has when nothing was made before."""
    work, job.work = job.work, tmp_path / "anew"
    job.build()
    shards = job.shards()
    job.work = work
    return shards


def border(job, parts=3):
    """The position of the first sentence after so many parts of the corpus."""
    manifest = job.root(tasks.SplitCorpus).manifest().content["sides"]["train"]
    return sum(part["sentences"] for part in manifest[:parts])


def test_an_unchanged_rerun_makes_and_writes_nothing(job, monkeypatch):
    # The corpus was written a moment ago, but nothing writes to it any more.
    monkeypatch.setattr(artifacts, "_SETTLED_NANOSECONDS", 0)
    assert stages(job.build(ROOT)) == {"SplitCorpus", "TokenizePart", "BuildVocabulary",
                                       "EncodePart", "CountNGrams", "TrainModel",
                                       "EvaluatePerplexity"}
    before = state(job.work)
    assert job.build(ROOT) == {}
    assert state(job.work) == before
    assert job.why(ROOT) == {}


def test_a_touch_reruns_nothing(job):
    job.build()
    os.utime(job.train)
    assert job.why() == {} and job.build() == {}
    shutil.copyfile(job.train, job.folder / "copy")
    os.replace(job.folder / "copy", job.train)  # the same bytes in another inode
    assert job.why() == {} and job.build() == {}


def test_an_unchanged_corpus_is_not_read_again(job, monkeypatch):
    monkeypatch.setattr(artifacts, "_SETTLED_NANOSECONDS", 0)
    job.build()

    def refuse(path):
        assert path not in (job.train, job.valid, job.test), "the corpus was read"

    monkeypatch.setattr("pipeline.artifacts.digest_file", refuse)
    assert job.build() == {}


@pytest.mark.parametrize("place", ["first", "inside", "end of a part", "begin of a part", "last"])
@pytest.mark.parametrize("edit", ["changed", "inserted", "removed"])
def test_a_sentence_costs_at_most_two_parts(job, tmp_path, edit, place):
    job.build()
    position = {"first": 0, "inside": border(job) + 5, "end of a part": border(job) - 1,
                "begin of a part": border(job), "last": len(job.lines) - 1}[place]
    if edit == "inserted":
        job.lines.insert(position + (place == "last"), "word01 word02 another")
    elif edit == "removed":
        del job.lines[position]
    else:
        job.lines[position] += " another word07"
    write(job.train, job.lines)
    made = job.build()
    assert 0 < len(tokenized(made)) <= 2
    assert {"SplitCorpus", "BuildVocabulary"} <= stages(made)
    assert job.shards() == anew(job, tmp_path)
    assert job.build() == {}


def test_a_change_on_another_side_leaves_the_vocabulary(job):
    job.build()
    write(job.valid, sentences(60, seed=2) + ["word01 unheard of"])
    made = job.build()
    assert stages(made) == {"SplitCorpus", "TokenizePart", "EncodePart"}
    assert len(encoded(made)) == len(tokenized(made)) == 1


def test_a_change_that_leaves_the_vocabulary_leaves_the_other_shards(job, tmp_path):
    job.build()
    position = border(job) + 5
    # The same words in another order: no count changes.
    job.lines[position] = " ".join(reversed(job.lines[position].split()))
    write(job.train, job.lines)
    made = job.build()
    assert 1 <= len(tokenized(made)) <= 2
    assert [title.split()[1:] for title in encoded(made)] == [
        title.split()[1:] for title in tokenized(made)]
    assert job.shards() == anew(job, tmp_path)


def test_another_vocabulary_encodes_the_stored_tokens_without_the_text(job):
    job.build()
    for text in (job.work / "parts").iterdir():
        # A reader would notice: the text is not what its name tells.
        text.write_bytes(b"x" * text.stat().st_size)
    job.set("vocabulary", size=50)
    made = job.build()
    assert stages(made) == {"BuildVocabulary", "EncodePart"}
    assert len(encoded(made)) == sum(len(job.parts(split)) for split in ("train", "valid", "test"))
    assert made["BuildVocabulary"] == "size is 50, was 60"
    assert {made[title] for title in encoded(made)} == {"vocabulary changed"}


@pytest.fixture
def folder(job):
    """The corpus as a folder of three files."""
    folder = job.folder / "corpus"
    folder.mkdir()
    for number in range(3):
        write(folder / f"{number}.txt", job.lines[200 * number:200 * (number + 1)])
    job.set("corpus", path=folder)
    job.build()
    return folder


def test_a_file_added(job, folder, tmp_path):
    before = set(job.parts())
    write(folder / "3.txt", sentences(100, seed=9))
    made = job.build()
    # Nothing ended the last part but the end of the corpus, so it grows.
    assert len(tokenized(made)) == len(set(job.parts()) - before)
    assert len(before - set(job.parts())) <= 1
    assert job.shards() == anew(job, tmp_path)


def test_a_file_removed(job, folder, tmp_path):
    before = set(job.parts())
    (folder / "1.txt").unlink()
    made = job.build()
    assert len(tokenized(made)) == len(set(job.parts()) - before) <= 1
    assert "1.txt is gone" in made["SplitCorpus"]
    assert job.shards() == anew(job, tmp_path)


def rename_all(folder):
    for name, other in zip("012", ("9", "1 first", "a/1")):
        (folder / other).parent.mkdir(exist_ok=True)
        (folder / f"{name}.txt").rename(folder / f"{other}.txt")


def rename_and_compress(folder):
    rename_all(folder)
    content = (folder / "9.txt").read_bytes()
    (folder / "9.txt").unlink()
    (folder / "5").write_bytes(gzip.compress(content))


@pytest.mark.parametrize("change", [rename_all, rename_and_compress])
def test_names_and_their_order_are_no_ingredients(job, folder, tmp_path, change):
    job.build(ROOT)
    before = results(job.work)
    change(folder)
    made = job.build(ROOT)
    # The size of what was read stays, and so do all counts.
    assert stages(made) == {"SplitCorpus"}
    after = results(job.work)
    assert before.items() <= after.items()
    assert {name.split("/")[0] for name in after.keys() - before.keys()} == {
        "corpus", "receipt receipts"}
    # All that is made now in an empty folder is the same, byte for byte.
    job.work = tmp_path / "anew"
    job.build(ROOT)
    names = ("parts/", "tokens/", "vocabulary/", "shards/")
    assert {name: content for name, content in results(job.work).items()
            if name.startswith(names)} == {
        name: content for name, content in after.items() if name.startswith(names)}
    assert jobs_of(job.work) == jobs_of(job.folder / "work")


def jobs_of(work):
    """What the model's commands were told, the working folder left out."""
    return [path.read_text().replace(str(work), "WORK") for path in sorted(
        (work / "models").glob("*/*.json"))]


def test_the_order_of_parts_is_no_ingredient(job):
    job.build(ROOT)
    begin, end = border(job), border(job, 4)
    # A part is moved from its place to the beginning.
    job.lines[:end] = job.lines[begin:end] + job.lines[:begin]
    before = job.parts()
    write(job.train, job.lines)
    assert stages(job.build(ROOT)) == {"SplitCorpus"}
    assert sorted(job.parts()) == sorted(before) and job.parts() != before


def test_lines_moved_between_files(job, folder, tmp_path):
    before = job.parts()
    # From the middle of one to the middle of another: the part they leave and the one they enter.
    write(folder / "0.txt", job.lines[:50] + job.lines[60:200])
    write(folder / "2.txt", job.lines[400:500] + job.lines[50:60] + job.lines[500:])
    made = job.build()
    assert len(tokenized(made)) == len(set(job.parts()) - set(before)) <= 4
    assert job.shards() == anew(job, tmp_path)


def test_a_file_that_begins_otherwise_changes_the_parts_at_its_ends(job, folder, tmp_path):
    before = job.parts()
    write(folder / "1.txt", ["word01 begins", *job.lines[200:400]])
    made = job.build()
    # Two at each end of it, where it was and where it comes.
    assert len(tokenized(made)) == len(set(job.parts()) - set(before)) <= 8
    assert set(job.parts()) & set(before)
    assert job.shards() == anew(job, tmp_path)


def test_a_text_that_never_rests(job):
    stop = threading.Event()
    written = list(job.lines)

    def write_on():
        while not stop.is_set():
            for half in ("word01 word", f"{len(written)}\n"):
                with open(job.train, "a") as file:
                    file.write(half)
                time.sleep(0.01)
            written.append(f"word01 word{len(written)}")

    writer = threading.Thread(target=write_on)
    writer.start()
    try:
        for _ in range(3):
            job.build()
            # What was there when it began, and no half of a line.
            newest = max(job.work.glob("corpus/*.json"), key=lambda path: path.stat().st_mtime_ns)
            sentences = [line for part in json.loads(newest.read_text())["sides"]["train"] for line
                         in (job.work / f"parts/{part['digest']}.txt").read_text().splitlines()]
            assert sentences == written[:len(sentences)] and len(sentences) >= len(job.lines)
    finally:
        stop.set()
        writer.join()
    assert "SplitCorpus" in job.build()
    assert job.root(tasks.SplitCorpus).manifest().sentences("train") == len(written)


def test_a_sentence_never_changes_side(job):
    job.set("corpus", valid="", test="", valid_share=0.1, test_share=0.1)
    job.build()

    def splits():
        return {line: split for split in ("train", "valid", "test") for part in job.parts(split)
                for line in (job.work / "parts" / f"{part}.txt").read_text().splitlines()}

    before = splits()
    job.lines[100:200] = sentences(150, seed=8)
    write(job.train, job.lines)
    job.build()
    after = splits()
    both = before.keys() & after.keys()
    assert len(both) >= 500 and all(before[line] == after[line] for line in both)


def test_sentences_that_also_occur_in_training_are_told(job):
    def also_in_training():
        metrics = json.loads((job.work / "report" / "metrics.json").read_text())
        return {split: metrics[split]["sentences_also_in_training"] for split in ("valid", "test")}

    others = ["word01 nowhere else", "word02 nor this one"]
    write(job.valid, [*job.lines[:3], *job.lines[2:4], *others, "word03 neither"])
    write(job.test, others)
    job.build(ROOT)
    assert also_in_training() == {"valid": {"count": 5, "share": 5 / 8},
                                  "test": {"count": 0, "share": 0}}
    # The same words in another order: the vocabulary, and the test's shards, stay.
    job.lines[3] = " ".join(reversed(job.lines[3].split()))
    write(job.train, job.lines)
    assert "EvaluatePerplexity" in stages(job.build(ROOT))
    assert also_in_training()["valid"]["count"] == 4
    job.set("corpus", valid="", valid_share=0.1)  # drawn by hash: never
    job.build(ROOT)
    assert also_in_training() == {"valid": {"count": 0, "share": 0},
                                  "test": {"count": 0, "share": 0}}


MODEL = {"TrainModel", "EvaluatePerplexity"}
SHARDS = {"BuildVocabulary", "EncodePart", "CountNGrams"} | MODEL


@pytest.mark.parametrize("section, name, value, want", [
    ("corpus", "sentences_per_part", 100, {"SplitCorpus", "TokenizePart"} | SHARDS),
    ("corpus", "on_bad_line", "set_aside", {"SplitCorpus"}),
    ("corpus", "max_line_bytes", 1000, {"SplitCorpus"}),
    ("tokens", "lowercase", "false", {"TokenizePart"} | SHARDS),
    ("tokens", "split", "spaces", {"SplitCorpus", "TokenizePart"} | SHARDS),
    ("vocabulary", "size", 50, SHARDS),
    ("vocabulary", "minimum_count", 2, {"BuildVocabulary"}),  # the words stay the same
    ("baseline", "order", 3, {"CountNGrams", "EvaluatePerplexity"}),
    ("network", "num_units", 5, MODEL),
    ("training", "rate", 0.5, MODEL),
    ("training", "seed", 2, MODEL),
    ("training", "checkpoint_minutes", 7, set()),
    ("run", "workers", 3, set()),
    ("run", "port", 9999, set()),
])
def test_a_setting_reruns_what_it_affects(job, section, name, value, want):
    job.build(ROOT)
    old = job.settings.get(section, {}).get(name)
    job.set(section, **{name: value})
    expected = known(job.why(ROOT))
    made = job.build(ROOT)
    assert stages(made) == want
    reasons = [reason for reason in made.values() if f"{name} is {value}, was " in reason.replace(
        "False", "false")]
    assert bool(reasons) == bool(want), made
    assert expected.items() <= made.items()
    # Back again: all that was made with the former value is still there, but for the baseline.
    if old is not None:
        job.set(section, **{name: old})
        assert stages(job.build(ROOT)) <= {"CountNGrams", "EvaluatePerplexity"}


def test_of_the_baseline_the_newest_alone_is_kept_and_none_where_none_is_wanted(job):
    end = tasks.ConcludeRun

    def there():
        return [sorted(path for path in (job.work / folder).rglob("*") if path.is_file())
                for folder in ("baseline", "receipts/baseline")]

    job.build(end)
    before = there()
    assert [len(files) for files in before] == [1, 1]
    job.set("baseline", order=2)
    job.build(end)
    assert [len(files) for files in there()] == [1, 1] and there() != before
    job.set("baseline", order=0)
    assert job.build(end)["EvaluatePerplexity"] == "baseline is gone"
    assert there() == [[], []] and job.metrics()["mixture"] is None
    assert job.build(end) == {}


def test_the_current_model_keeps_its_n_grams_until_another_takes_its_place(job, monkeypatch):
    end, figure = tasks.ConcludeRun, 2.0

    def evaluated(command, content, job_file, say, launch=None):
        result = pretend(command, content, job_file, say, launch)
        if command == "evaluate":
            output = Path(content["output"])
            details = json.loads(output.read_text())
            details["sets"]["valid"]["perplexity"] = figure
            output.write_text(json.dumps(details))
        return result

    monkeypatch.setattr(tasks, "run_model_command", evaluated)
    job.set("run", tolerance=2)
    job.build(end)
    first, (ngrams, weight) = used(job), current_ngrams(current_model(job.work), job.work)
    assert current_model(job.work) == first / "model.h5" and weight == 0.5
    edited = [*job.lines, "word01 word02 word03"]
    write(job.train, edited)
    figure = 2.05
    job.build(end)
    second = used(job)
    # What gc removes, too.
    assert current_model(job.work) == first / "model.h5" and ngrams.is_file()
    assert ngrams not in gc.unneeded_files(job.work, job.root(end))
    gc.remove(gc.unneeded_files(job.work, job.root(end)))
    assert current_ngrams(current_model(job.work), job.work)[0].is_file()
    assert gc.in_use(job.root(end)) == {first, second}
    assert gc.surplus_models(gc.models(job.work), 1, gc.in_use(job.root(end))) == []
    assert job.build(end) == {}
    # The next one begins with the weights of the current one, though another is newer.
    figure = 2.039
    write(job.train, [*edited, "word04 word05"])
    job.build(end)
    assert json.loads((used(job) / "job.json").read_text())["previous"] == str(first / "model.h5")
    assert current_model(job.work) == used(job) / "model.h5" and not ngrams.exists()


def test_each_run_that_makes_something_new_has_its_line_in_the_history(job):
    end = tasks.ConcludeRun
    assert job.build(end)["ConcludeRun"] == "it is the first run"
    first, = history.runs(job.work)
    assert first["model"] == used(job).name and first["profile"] is None
    assert first["settings"].items() >= {
        "corpus.path": str(job.train), "network.num_units": 4, "vocabulary.size": 60}.items()
    assert first["test"]["perplexity"] == 2.0 and first["train"]["updates"] == 1
    assert job.build(end) == {}
    # Before its line is written a run may be killed: its figures are not made again.
    (job.work / "history.jsonl").unlink()
    assert stages(job.build(end)) == {"ConcludeRun"}
    job.set("network", num_units=5)
    job.build(end)
    job.set("network", num_units=4)
    assert job.build(end)["ConcludeRun"] == "the last line of the history is of another run"
    runs = history.runs(job.work)
    assert [run["settings"]["network.num_units"] for run in runs] == [4, 5, 4]
    assert runs[0]["run"] == runs[2]["run"] != runs[1]["run"]


def test_a_run_is_compared_with_the_last_one_on_the_same_test_text(job):
    end, jobs = tasks.ConcludeRun, job.work / "models"

    def last_sums():
        content = json.loads((used(job) / "evaluate.json").read_text())
        return content["last_sums"]

    job.build(end)
    first = used(job)
    assert last_sums() is None
    write(job.train, [*job.lines, "word01 word02 word03"])
    job.build(end)
    assert last_sums() == str(first / "sums.h5") and first.parent == jobs
    second = used(job)
    write(job.valid, sentences(50, seed=9))
    job.build(end)
    assert last_sums() == str(second / "sums.h5")
    # Where other words count as known, or the sentences are others, the figures say nothing.
    job.set("vocabulary", size=50)
    job.build(end)
    assert last_sums() is None
    job.set("vocabulary", size=60)
    write(job.test, sentences(50, seed=10))
    job.build(end)
    assert last_sums() is None


def test_what_was_made_before_there_was_another_rule_for_tokens_stays(job):
    corpus = job.root(tasks.SplitCorpus)
    job.build()
    assert corpus.artifact().ingredients["settings"] == {
        "format": "auto", "on_bad_line": "stop", "max_line_bytes": 32768, "valid_share": 0.01,
        "test_share": 0.01, "sentences_per_part": 50}
    part, *_ = job.root(tasks.EncodeCorpus).shards("train")
    assert part.tokens().artifact().ingredients == {
        "format": 4, "part": part.digest, "lowercase": True}


def test_a_text_that_is_tokenized_already_goes_to_shards_as_it_is(job):
    texts = {split: [f" = The lamp {number % 9} n't {split} @-@ <unk> = " if number % 3 else " "
                     for number in range(90)] for split in SPLITS}
    for split, lines in texts.items():
        write(getattr(job, split), lines)
    job.set("tokens", split="spaces", lowercase="false")
    job.set("vocabulary", size="all")
    job.build()
    words = [word for line in texts["train"] for word in line.split()]
    vocabulary = job.root(tasks.BuildVocabulary).vocabulary()
    assert set(vocabulary.words) == {*words, *SPECIALS}
    counts = dict(zip(vocabulary.words, vocabulary.counts))
    assert (counts["The"], counts["@-@"], counts["<unk>"], counts["</s>"]) == (60, 60, 60, 90)
    for split, lines in texts.items():
        reader = ShardReader(job.root(tasks.EncodeCorpus).shard_files(split))
        assert reader.step_counts == {1: 30, 10: 60}
        found = {" ".join(vocabulary.words[n] for n in sentence)
                 for sentence in reader.sentences(10)[1]}
        assert found == {" ".join([*line.split(), "</s>"]).replace(
            split, split if split == "train" else "<unk>") for line in lines if line.strip()}


def test_a_word_list_is_read_for_its_content(job):
    words = job.folder / "words.txt"
    write(words, ["word", "00", "01"])
    job.set("vocabulary", word_list=words)
    job.build()
    os.utime(words)
    assert job.build() == {}
    write(words, ["word", "00", "03"])
    made = job.build()
    assert stages(made) == {"BuildVocabulary", "EncodePart"}
    assert made["BuildVocabulary"] == "word_list changed"
    job.set("tokens", lowercase="false")
    assert "BuildVocabulary" in job.build()


def test_words_of_a_list_that_training_lacks_are_counted_and_said(job, caplog):
    words = job.folder / "words.txt"
    write(words, ["Word", "01", "zebra", "lamp"])
    job.set("vocabulary", word_list=words)
    job.build()
    assert f"2 of the 4 words of {words} do not occur in training, as lamp, zebra" in caplog.text
    receipt = job.root(tasks.BuildVocabulary).artifact().receipt()
    assert receipt["notes"]["words_not_in_training"] == 2
    write(words, ["zebra"])
    with pytest.raises(UserError, match="none of the 1 words of .*words.txt occurs"):
        job.build()


def test_code_of_another_format_makes_anew(job, monkeypatch):
    job.build()
    before = tasks._FORMATS["shards"]
    monkeypatch.setitem(tasks._FORMATS, "shards", before + 1)
    made = job.build()
    assert stages(made) == {"EncodePart"}
    assert set(made.values()) == {f"format is {before + 1}, was {before}"}


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def artifact_of(job, stage):
    one = sorted((job.work / stage).rglob("*"))
    return next(path for path in one if path.is_file() and path.suffix != ".jsonl")


@pytest.mark.parametrize("harm", [damage, Path.unlink, lambda path: path.write_bytes(b"")],
                         ids=["damaged", "gone", "empty"])
@pytest.mark.parametrize("stage, want", [
    ("corpus", {"SplitCorpus"}),
    ("tokens", {"TokenizePart"}),
    ("vocabulary", {"BuildVocabulary"}),
    ("shards", {"EncodePart"}),
    ("baseline", {"CountNGrams"}),
    ("models", {"TrainModel"}),
    ("report", {"EvaluatePerplexity"}),
])
def test_what_is_damaged_is_made_again(job, stage, want, harm):
    job.build(ROOT)
    before = results(job.work)
    path = (job.work / "report" / "metrics.json" if stage == "report"
            else next((job.work / "models").glob("*/model.h5")) if stage == "models"
            else artifact_of(job, stage))
    harm(path)
    expected = known(job.why(ROOT))
    made = job.build(ROOT)
    assert stages(made) == want and len(made) == 1
    assert str(path) in next(iter(made.values()))
    assert expected == made
    assert results(job.work) == before
    assert job.build(ROOT) == {}


def test_a_receipt_deleted_makes_its_artifact_again(job):
    job.build(ROOT)
    before = results(job.work)
    for folder, want in (("corpus", "SplitCorpus"), ("tokens", "TokenizePart"),
                         ("vocabulary", "BuildVocabulary"), ("shards", "EncodePart"),
                         ("baseline", "CountNGrams"), ("models", "TrainModel"),
                         ("evaluation", "EvaluatePerplexity")):
        sorted((job.work / "receipts" / folder).rglob("*.json"))[0].unlink()
        made = job.build(ROOT)
        assert stages(made) == {want} and list(made.values()) == ["it was never made"]
        assert results(job.work) == before


def test_a_part_that_is_gone_is_written_again(job):
    job.build()
    sorted((job.work / "parts").iterdir())[0].unlink()
    assert job.build() == {"SplitCorpus": "the text of a part is gone"}
    assert job.build() == {}


def test_a_damaged_part_is_found_when_it_is_read_and_then_made_again(job):
    job.root(tasks.SplitCorpus)
    job.build(tasks.SplitCorpus)
    part = job.work / "parts" / f"{job.parts()[0]}.txt"
    damage(part)
    with pytest.raises(DamagedFile, match=part.name):
        job.build()
    made = job.build()
    assert made["SplitCorpus"] == "the text of a part is gone" and tokenized(made)
    assert job.build() == {}


def test_without_the_training_s_log_the_evaluation_is_made_again(job):
    job.build(ROOT)
    before = results(job.work)["metrics.json"]
    for log in job.work.glob("models/*/log.jsonl"):
        log.unlink()
    assert job.build(ROOT) == {}
    (job.work / "report" / "metrics.json").unlink()
    assert stages(job.build(ROOT)) == {"EvaluatePerplexity"}
    assert results(job.work)["metrics.json"] == before


def test_an_unchanged_folder_of_files_is_looked_at_once(job, folder, monkeypatch):
    looks = []
    original = artifacts.identify
    monkeypatch.setattr(artifacts, "identify", lambda path: looks.append(str(path))
                        or original(path))
    fingerprints = mock.Mock(side_effect=fingerprint)
    monkeypatch.setattr(tasks, "fingerprint", fingerprints)
    assert job.build() == {}
    # Once more where it has changed a moment ago, to be sure that it is at rest.
    assert all(1 <= looks.count(str(path)) <= 2 for path in folder.iterdir())
    of_corpus = [call for call in fingerprints.call_args_list if "files" in call.args[0]]
    assert len(of_corpus) == 1
    fingerprints.reset_mock()
    assert job.why() == {}
    assert len([call for call in fingerprints.call_args_list if "files" in call.args[0]]) == 1


def test_why_tells_what_comes_first_and_runs_nothing(job):
    work = job.work
    assert job.why(ROOT)["SplitCorpus"] == "it was never made"
    assert results(work) == {}
    job.build(ROOT)
    job.lines[300] += " another"
    write(job.train, job.lines)
    before = results(work)
    expected = job.why(ROOT)
    assert expected["SplitCorpus"] == f"files: train: {job.train} changed"
    assert set(expected.values()) == {expected["SplitCorpus"],
                                      "depends on what the tasks above make"}
    assert results(work) == before
    made = job.build(ROOT)
    assert made["SplitCorpus"] == expected["SplitCorpus"]
    assert made["BuildVocabulary"] == "training parts: 1 new, 1 gone"


def test_gc_lists_what_nothing_refers_to_and_only_that(job):
    job.build(ROOT)
    assert gc.unneeded_files(job.work, job.root(ROOT)) == []
    old = results(job.work)
    job.lines[300] += " another another another another another another"
    write(job.train, job.lines)
    job.build(ROOT)
    now = results(job.work)
    listed = gc.unneeded_files(job.work, job.root(ROOT))
    # What was there before and is no part of a job that knows only the present corpus.
    fresh, job.work = job.work, job.folder / "fresh"
    job.set("training", warm_start="false")
    job.build(tasks.EncodeCorpus)
    needed = results(job.work)
    job.work = fresh
    job.set("training", warm_start="true")
    data = ("corpus/", "parts/", "tokens/", "vocabulary/", "shards/")
    removed = {str(path.relative_to(job.work)) for path in listed}
    assert {name for name in removed if name.startswith(data)} == {
        name for name in {**old, **now} if name.startswith(data)} - set(needed)
    assert not any(name.startswith("models/") for name in removed)
    gc.remove(listed)
    assert not any(path.exists() for path in listed)
    assert job.build(ROOT) == {} and job.why(ROOT) == {}
    assert gc.unneeded_files(job.work, job.root(ROOT)) == []


def test_gc_leaves_what_the_user_keeps_in_the_working_folder(job):
    work = job.work
    mine = [work / name for name in (
        "corpus/train.txt", "corpus/notes.json", "parts/0123456789abcdef.txt", "tokens/a.h5",
        "shards/old.h5", "vocabulary/words.tsv", "models/resnet.pt", "models/old/kenlm.arpa",
        f"models/{'a' * 24}/model.h5", "download/page.html", "receipts/2026/june/shop.json",
        "receipts/shop.txt")]
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    # The corpus lies there, too.
    write(work / "corpus" / "train.txt", job.lines)
    job.set("corpus", path=work / "corpus" / "train.txt")
    job.build(ROOT)
    beside = job.root(tasks.TrainModel).artifact().path.with_name("notes.txt")
    beside.write_text("of the user")
    job.lines[300] += " another"
    write(work / "corpus" / "train.txt", job.lines)
    job.build(ROOT)
    root, found = job.root(ROOT), gc.models(work)
    removed = gc.unneeded_files(work, root)
    assert {path.parent.name for path in removed} >= {"corpus", "parts", "tokens", "shards"}
    gc.remove(removed)
    gc.remove(path for model in gc.named_models(found, ["all"], gc.in_use(root))
              for path in model.files)
    assert os.listdir(beside.parent) == [beside.name]
    assert all(path.exists() for path in (*mine, beside))
    assert job.build(ROOT) == {}


def test_a_receipt_that_names_another_file_removes_nothing(job):
    job.build()
    outside = job.folder / "mine.txt"
    outside.write_text("mine")
    receipt = next((job.work / "receipts" / "tokens").glob("*/*.json"))
    content = json.loads(receipt.read_text())
    for number, path in enumerate(("../mine.txt", str(outside), "corpus/mine.txt")):
        forged = {**content, "name": str(number), "path": path}
        folder = receipt.parent.with_name(str(number))
        folder.mkdir()
        (folder / receipt.name).write_text(json.dumps(forged))
    assert gc.unneeded_files(job.work, job.root(tasks.EncodeCorpus)) == []


def test_models_are_removed_only_by_name(job):
    folders = []
    for units in (4, 5, 6):
        job.set("network", num_units=units)
        job.build(ROOT)
        folders.append(used(job))
    # A training that was stopped has no receipt yet.
    job.set("network", num_units=7)
    job.build(tasks.EncodeCorpus)
    training = job.root(tasks.TrainModel).training()
    training.record(job.root(tasks.SplitCorpus).splits())
    stopped = training.record_path.parent
    found = gc.models(job.work)
    assert [model.folder for model in found] == [stopped, *folders]
    in_use = {folders[2]}
    first, = gc.named_models(found, [folders[0].name], in_use)
    gc.remove(first.files)
    assert [path.exists() for path in (*folders, stopped)] == [False, True, True, True]
    assert {model.folder for model in gc.named_models(found, ["all"], in_use)} == {
        stopped, *folders[:2]}
    with pytest.raises(UserError, match="in use"):
        gc.named_models(found, [folders[2].name], in_use)
    with pytest.raises(UserError, match="there is no model abc"):
        gc.named_models(found, ["abc"], in_use)


def test_surplus_models_are_the_oldest_but_not_what_the_newest_came_from(tmp_path):
    def model(number, parent=None):
        return gc.Model(tmp_path / str(number), {}, {
            "sha256": f"digest {number}", "ingredients": {"started_from": parent}})

    found = [gc.Model(tmp_path / "stopped", {}), model(1), model(2), model(3, "digest 2"),
             model(4, "digest 1"), model(5, "digest 3")]

    def surplus(keep, used):
        return [int(one.folder.name) for one in gc.surplus_models(
            found, keep, {tmp_path / str(number) for number in used})]

    assert surplus(0, [5]) == []
    assert surplus(3, [5]) == [1, 2]
    assert surplus(1, [5]) == [1, 2, 4]
    assert surplus(1, [4]) == [2]  # 4 is in use, 1 its parent; 5 is the newest, 3 its parent
    assert surplus(1, [4, 2]) == []
    assert surplus(5, [5]) == []


@pytest.mark.parametrize("change, message", [
    (lambda job: job.train.unlink(), "there is no corpus"),
    (lambda job: job.set("corpus", path=job.folder / "*.txt"), "valid.txt is given for training"),
    (lambda job: job.set("corpus", path=job.folder), "the working folder .*work lies in the corp"),
    (lambda job: shutil.copy(job.test, job.train), "train.txt and .*test.txt have the same"),
])
def test_a_corpus_that_is_gone_or_unfit_is_an_error_and_keeps_everything(job, change, message):
    job.build()
    before = results(job.work)
    change(job)
    for command in (job.why, job.build):
        with pytest.raises(UserError, match=message):
            command()
    assert results(job.work) == before


def test_the_names_of_files_reach_the_visualiser_as_text(job):
    """It puts the status into its page as HTML."""
    folder = job.folder / "texts"
    folder.mkdir()
    job.set("corpus", path=folder)
    write(folder / "a.txt", job.lines)
    job.build(tasks.SplitCorpus)
    (folder / "a.txt").rename(folder / "<img src=x onerror=alert(1)>&.txt")
    task = job.root(tasks.SplitCorpus)
    shown = []
    task.set_status_message = shown.append
    list(task.run())
    assert any("&lt;img src=x onerror=alert(1)>&amp;.txt" in status.replace("&gt;", ">")
               for status in shown)
    assert not any("<" in status for status in shown)
