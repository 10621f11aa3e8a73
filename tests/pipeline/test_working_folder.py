"""Which folders are taken for working folders, and what happens where there are no locks."""

import os

import pytest

from model.system.errors import UserError
from pipeline.working_folder import claim, only_one_run


def listing(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_new_or_empty_folder_is_marked(tmp_path):
    for work in (tmp_path / "a" / "new", tmp_path / "empty"):
        claim(work) if work.name == "new" else (work.mkdir(), claim(work))
        assert listing(work) == [".lstm-batch-pipeline"]
        # What comes later may have any name.
        (work / "corpus").mkdir()
        (work / "corpus" / "mine.txt").write_text("")
        claim(work)


@pytest.mark.parametrize("names", [["corpus/train.txt"], ["models/resnet.pt", "a", "b", "c"],
                                   ["receipts/2026/june/shop.json"], ["log/run.log"], [".x.1.tmp"]])
def test_a_folder_that_holds_something_else_is_refused_and_nothing_written(tmp_path, names):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    before = listing(tmp_path)
    with pytest.raises(UserError) as refused, only_one_run(tmp_path):
        pass
    assert str(tmp_path) in str(refused.value) and "\n" not in str(refused.value)
    assert listing(tmp_path) == before
    (tmp_path / ".lstm-batch-pipeline").touch()
    with only_one_run(tmp_path):
        pass


def test_a_working_folder_of_before_the_marker_is_known(tmp_path):
    (tmp_path / "log").mkdir()
    (tmp_path / "parts").mkdir()
    for name in (".lock", "log/run.log"):
        (tmp_path / name).touch()
    claim(tmp_path)
    assert (tmp_path / ".lstm-batch-pipeline").exists()


@pytest.mark.parametrize("name", ["work", "work/theano"])
def test_a_folder_to_which_all_may_write_is_refused(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    before = listing(tmp_path)
    with pytest.raises(UserError, match="chmod o-w"):
        claim(tmp_path / "work")
    assert listing(tmp_path) == before
    folder.chmod(0o1777)  # as of /tmp: others cannot replace what is there
    claim(tmp_path / "work")


def test_a_folder_of_another_user_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    monkeypatch.setattr(os, "stat", lambda *_: os.stat_result((0o40755, 0, 0, 1, 7, 0, 0, 0, 0, 0)))
    with pytest.raises(UserError, match=r"belongs to another user \(7\)"):
        claim(tmp_path)


def test_a_folder_that_no_program_can_be_loaded_from_is_refused(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(os, "statvfs", lambda path: asked.append(path) or os.statvfs_result(
        (4096, 4096, 1, 1, 1, 1, 1, 1, os.ST_NOEXEC, 255)))
    with pytest.raises(UserError, match="mounted with noexec") as refused:
        claim(tmp_path / "new" / "er")
    assert asked == [tmp_path] and "\n" not in str(refused.value) and not listing(tmp_path)
