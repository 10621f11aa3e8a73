"""What a stage is, shown on a small job of files: words, their lengths, and a sum of these."""

import luigi
import pytest

from model.system.errors import BadInput, DamagedFile, UserError
from pipeline import stage
from pipeline.artifacts import Artifact, fingerprint
from pipeline.stage import ArtifactStage, NamedPart, PartStage, Stage, all_needs, faults
from tests.jobs import reset_settings

MADE = []


class Words(ArtifactStage):
    """One file with the words of a text beside the working folder."""

    def artifact(self):
        text = self.folder.parent / "text.txt"
        if not text.exists():
            raise BadInput(f"there is no {text}")
        words = text.read_text()
        return made_of(self.folder, "words", "words", words=words)

    def make(self, artifact):
        return write(artifact, artifact.ingredients["words"])

    def parts(self):
        words = self.artifact().path.read_text().split()
        return [self.clone(Length, **stage.part_parameters([NamedPart("train", n, word)]))
                for n, word in enumerate(words, 1)]


class Length(PartStage):
    """A file for each word."""

    doing = "measuring"

    def artifact(self):
        return made_of(self.folder, "lengths", self.digest, word=self.digest)

    def make(self, artifact):
        return write(artifact, len(artifact.ingredients["word"]))


class Lengths(Stage):
    """All of them: no file of its own."""

    working_folder = ArtifactStage.working_folder

    def needs(self):
        words = self.clone(Words)
        return [words, *words.parts()] if words.complete() else [words]

    def fault(self):
        return None


class Total(ArtifactStage):
    """Of the lengths."""

    def needs(self):
        return [self.clone(Lengths)]

    def artifact(self):
        parts = self.clone(Words).parts()
        return made_of(self.folder, "total", "total",
                       lengths=sorted(fingerprint(part.artifact().ingredients) for part in parts))

    def make(self, artifact):
        total = 0
        for part in self.clone(Words).parts():
            content = part.artifact().path.read_text()
            if not content.isdigit():
                raise DamagedFile(part.artifact().path, "it is no number")
            total += int(content)
        return write(artifact, total)


def made_of(work, kind, name, **ingredients):
    path = work / kind / f"{fingerprint(ingredients)}.txt"
    return Artifact(work, kind, name, path, ingredients)


def write(artifact, content):
    MADE.append(artifact.stage)
    artifact.path.parent.mkdir(parents=True, exist_ok=True)
    artifact.path.write_text(str(content))


@pytest.fixture
def total(tmp_path):
    (tmp_path / "text.txt").write_text("in the beginning")
    config = reset_settings()
    config.set("worker", "force_multiprocessing", "false")
    config.set("core", "no_configure_logging", "true")  # it would silence loggers
    yield Total(working_folder=str(tmp_path / "work"))
    reset_settings()


def build(root):
    """Run a stage and what it needs, in this process; which artifacts were made."""
    MADE.clear()
    failed = []
    luigi.Task.event_handler(luigi.Event.FAILURE)(fail := lambda _, error: failed.append(error))
    try:
        luigi.build([root], local_scheduler=True, workers=1, no_lock=True)
    finally:
        luigi.Task.remove_event_handler(luigi.Event.FAILURE, fail)
    return failed or MADE


def test_stages_are_made_in_order_and_parts_once_they_are_known(total):
    assert not total.complete()
    assert dict(faults(total)) == {
        "Words": "it was never made", "Lengths": "depends on what the tasks above make",
        "Total": "depends on what the tasks above make"}
    assert build(total) == ["words", "lengths", "lengths", "lengths", "total"]
    assert total.complete() and total.artifact().path.read_text() == "14"
    assert dict(faults(total)) == {} and build(total) == []
    assert [type(each).__name__ for each in all_needs(total)] == [
        "Words", "Length", "Length", "Length", "Lengths", "Total"]


def test_a_change_makes_what_it_affects(total):
    build(total)
    (total.folder.parent / "text.txt").write_text("in the end")
    assert dict(faults(total))["Words"] == "words is in the end, was in the beginning"
    assert build(total) == ["words", "lengths", "total"]
    assert total.artifact().path.read_text() == "8"


def test_what_is_damaged_in_the_middle_is_made_again_though_the_result_is_right(total):
    build(total)
    part = total.clone(Words).parts()[1].artifact().path
    part.write_text("4")
    assert not total.complete()
    assert dict(faults(total)) == {
        "Length train 2": f"{part} is damaged: its bytes are not those that were made",
        "Lengths": "depends on what the tasks above make",
        "Total": "depends on what the tasks above make"}
    assert build(total) == ["lengths"] and total.complete()


def test_a_file_that_a_stage_finds_damaged_is_made_again_by_the_next_run(total, monkeypatch):
    build(total)
    total.artifact().path.unlink()
    part = total.clone(Words).parts()[0].artifact()
    part.path.write_text("two")
    monkeypatch.setattr(Artifact, "fault", lambda self: None if self.stage == "lengths"
                        else "gone" if self.stage == "total" else None)
    failed, = build(total)
    assert isinstance(failed, DamagedFile) and not part.path.exists()
    monkeypatch.undo()
    assert build(total) == ["lengths", "total"] and total.complete()


def test_what_the_user_gave_is_told_when_it_is_met(total):
    text = total.folder.parent / "text.txt"
    text.unlink()
    assert not total.complete()
    with pytest.raises(UserError, match="there is no"):
        list(faults(total))
    failed, = build(total)
    assert isinstance(failed, BadInput) and not MADE


def test_each_stage_is_looked_at_once_for_one_question(total, monkeypatch):
    build(total)
    looked = []
    real = Artifact.fault
    monkeypatch.setattr(Artifact, "fault", lambda self: looked.append(self.path) or real(self))
    assert total.complete()
    assert len(looked) == len(set(looked)) == 5
    assert total.complete()  # another question
    assert len(looked) == 10


def test_a_group_of_parts_has_the_fault_of_any(total):
    build(total)
    single = total.clone(Words).parts()
    group = single[0].clone(**stage.part_parameters([part.named[0] for part in single]))
    assert group.part.startswith("train 1-3 (") and group.complete()
    single[2].artifact().path.unlink()
    assert not group.complete() and "is gone" in group.fault()
    list(group.run() or ())
    assert group.complete() and MADE[-1] == "lengths"
