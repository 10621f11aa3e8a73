"""Fingerprints, receipts, cached digests, and the reasons that come of them."""

import hashlib
import json
import os
import platform

import numpy

from pipeline import artifacts
from pipeline.artifacts import Artifact, DigestCache, by_age, fingerprint, receipts


def artifact(work, **ingredients):
    path = work / "stage" / f"{fingerprint(ingredients)}.txt"
    return Artifact(work, "stage", "thing", path, ingredients)


def make(one, text="content"):
    one.path.parent.mkdir(exist_ok=True)
    one.path.write_text(text)
    one.record(0.1, lines=1)


def test_an_artifact_is_whole_only_with_its_receipt(tmp_path):
    one = artifact(tmp_path, size=1)
    assert one.fault() and one.fault() == "it was never made"
    one.path.parent.mkdir()
    one.path.write_text("content")
    assert one.fault()
    one.record(0.1)
    assert one.fault() is None and one.fault() is None


def test_the_reason_names_what_differs(tmp_path):
    make(artifact(tmp_path, size=1, parts=["a", "b"], files={"x.txt": "0" * 64}))
    assert artifact(tmp_path, size=2, parts=["a", "b"], files={"x.txt": "0" * 64}
                    ).fault() == "size is 2, was 1"
    assert artifact(tmp_path, size=1, parts=["a", "c", "d"], files={"x.txt": "0" * 64}
                    ).fault() == "parts: 2 new, 1 gone"
    assert artifact(tmp_path, size=1, parts=["a", "a", "b"], files={"x.txt": "0" * 64}
                    ).fault() == "parts: 1 new, 0 gone"
    assert artifact(tmp_path, size=1, parts=["a", "b"], files={"x.txt": "1" * 64}
                    ).fault() == "files: x.txt changed"
    assert artifact(tmp_path, size=1, parts=["a", "b"], files={"y.txt": "0" * 64}
                    ).fault() == "files: x.txt is gone; files: y.txt is new"
    assert artifact(tmp_path, size=1, parts=["a", "b"], files={"x.txt": "0" * 64, "\n\udcff": ""}
                    ).fault() == r"files: \n\udcff is new"


def test_a_changed_byte_is_noticed_and_a_touch_is_not(tmp_path):
    one = artifact(tmp_path, size=1)
    make(one)
    os.utime(one.path, (1, 1))
    assert one.fault() is None
    one.path.write_text("Content")
    assert one.fault() and "damaged" in one.fault()
    one.path.unlink()
    assert "is gone" in one.fault()


def test_a_damaged_receipt_only_makes_the_artifact_again(tmp_path):
    one = artifact(tmp_path, size=1)
    make(one)
    one.receipt_path.write_text('{"stage": "st')
    assert one.fault()


def test_digests_are_cached_by_what_the_file_system_says(tmp_path, monkeypatch):
    file, cache = tmp_path / "corpus.txt", tmp_path / "digests.json"
    file.write_text("one")

    def look():
        digests = DigestCache(cache)
        found = digests.digest(file)
        digests.save()
        return found

    monkeypatch.setattr(artifacts, "_SETTLED_NANOSECONDS", 0)
    want = hashlib.sha256(b"one").hexdigest()
    assert look() == want
    with monkeypatch.context() as unread:
        unread.setattr(artifacts, "digest_file", None)
        assert look() == want
    # The same size, time and inode with other bytes, as `touch -r` and `rsync --inplace -t` do.
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    with open(file, "r+") as handle:
        handle.write("two")
    os.utime(file, ns=times)
    assert look() == hashlib.sha256(b"two").hexdigest()
    cache.write_text("rubbish")
    assert look() == hashlib.sha256(b"two").hexdigest()


def test_an_artifact_that_was_written_over_is_seen_whatever_its_time(tmp_path):
    one = artifact(tmp_path, size=1)
    make(one)
    times = one.path.stat().st_atime_ns, one.path.stat().st_mtime_ns
    with open(one.path, "r+") as handle:
        handle.write("x")
    os.utime(one.path, ns=times)
    assert one.fault()


def test_receipts_of_before_device_and_change_time_count(tmp_path):
    one = artifact(tmp_path, size=1)
    make(one)
    receipt = one.receipt()
    one.receipt_path.write_text(json.dumps({**receipt, "identity": receipt["identity"][:3]}))
    assert one.fault() is None
    assert one.receipt() == receipt


def test_receipts_are_ordered_whatever_the_clock_says(tmp_path, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 2e9)
    make(artifact(tmp_path, size=1))
    monkeypatch.undo()
    make(artifact(tmp_path, size=2))
    newest = max(receipts(tmp_path, "stage"), key=by_age)
    assert newest["ingredients"] == {"size": 2}
    assert artifact(tmp_path, size=3).fault() == "size is 3, was 2"


def test_the_reason_is_a_line_that_people_read(tmp_path):
    make(artifact(tmp_path, files={}))
    reason = artifact(tmp_path, files={f"{n:04d}": "0" * 64 for n in range(5000)}).fault()
    assert reason.startswith("files: 0000 is new; ")
    assert reason.endswith("; files: 4,995 more differ") and len(reason) < 200


def test_the_cache_is_read_and_written_once_for_many_files(tmp_path, monkeypatch):
    files = [tmp_path / f"{n}.txt" for n in range(20)]
    for file in files:
        file.write_text(file.name)
    touched = []
    monkeypatch.setattr(artifacts, "_SETTLED_NANOSECONDS", 0)
    for name in ("loads", "dumps"):
        original = getattr(json, name)
        monkeypatch.setattr(json, name, lambda *given, name=name, original=original: (
            touched.append(name) or original(*given)))
    for _ in range(2):
        cache = DigestCache(tmp_path / "digests.json")
        assert len({cache.digest(file) for file in files}) == len(files)
        cache.save()
    assert touched == ["dumps", "loads"]


def test_without_a_working_folder_no_digests_are_kept(tmp_path):
    file = tmp_path / "corpus.txt"
    file.write_text("one")
    os.utime(file, (1, 1))
    cache = DigestCache(tmp_path / "work" / "digests.json")
    cache.digest(file)
    cache.save()
    assert not (tmp_path / "work").exists()


def test_digests_of_files_that_are_gone_are_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "_SETTLED_NANOSECONDS", 0)
    for night in range(3):
        file = tmp_path / f"{night}.txt"
        file.write_text("text")
        cache = DigestCache(tmp_path / "digests.json")
        cache.digest(file)
        cache.save()
        if night < 2:
            file.rename(tmp_path / "yesterday.txt")
    assert list(json.loads((tmp_path / "digests.json").read_text())) == [str(file)]


def test_what_a_network_file_system_remembers_does_not_count(tmp_path, monkeypatch):
    one = artifact(tmp_path, size=1)
    make(one)
    remembered = os.stat(one.path)
    one.path.write_text("written by another machine")
    original = os.stat
    # As where attributes are cached: only who opens the file is told what it is now.
    monkeypatch.setattr(os, "stat", lambda path, **options: remembered if str(path) == str(
        one.path) else original(path, **options))
    assert one.fault()


def test_a_receipt_names_versions_processor_and_threads(tmp_path):
    one = artifact(tmp_path, size=1)
    make(one)
    made_by = one.receipt()["made_by"]
    assert made_by["python"] == platform.python_version()
    assert made_by["numpy"] == numpy.__version__ and made_by["theano"] == "1.0.5"
    assert made_by["threads"] >= 1 and made_by["processor"]
