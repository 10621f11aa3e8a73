"""Fingerprints, receipts, cached digests, and the reasons that come of them."""

import hashlib
import os

import pytest

from model.files import UserError
from pipeline.artifacts import Artifact, DigestCache, fingerprint


def artifact(work, **ingredients):
    path = work / "stage" / f"{fingerprint(ingredients)}.txt"
    return Artifact(work, "stage", "thing", path, ingredients)


def make(one, text="content"):
    one.path.parent.mkdir(exist_ok=True)
    one.path.write_text(text)
    one.record(0.1, lines=1)


def test_an_artifact_is_whole_only_with_its_receipt(tmp_path):
    one = artifact(tmp_path, size=1)
    assert not one.is_whole() and one.reason() == "it was never made"
    one.path.parent.mkdir()
    one.path.write_text("content")
    assert not one.is_whole()
    one.record(0.1)
    assert one.is_whole() and one.reason() is None


def test_the_reason_names_what_differs(tmp_path):
    make(artifact(tmp_path, size=1, parts=["a", "b"], files={"x.txt": "0" * 64}))
    assert artifact(tmp_path, size=2, parts=["a", "b"], files={"x.txt": "0" * 64}
                    ).reason() == "size is 2, was 1"
    assert artifact(tmp_path, size=1, parts=["a", "c", "d"], files={"x.txt": "0" * 64}
                    ).reason() == "parts: 2 new, 1 gone"
    assert artifact(tmp_path, size=1, parts=["b", "a"], files={"x.txt": "0" * 64}
                    ).reason() == "parts: in another order"
    assert artifact(tmp_path, size=1, parts=["a", "b"], files={"x.txt": "1" * 64}
                    ).reason() == "files: x.txt changed"
    assert artifact(tmp_path, size=1, parts=["a", "b"], files={"y.txt": "0" * 64}
                    ).reason() == "files: x.txt is gone; files: y.txt is new"


def test_a_changed_byte_is_noticed_and_a_touch_is_not(tmp_path):
    one = artifact(tmp_path, size=1)
    make(one)
    os.utime(one.path, (1, 1))
    assert one.is_whole()
    one.path.write_text("Content")
    assert not one.is_whole() and "damaged" in one.reason()
    one.path.unlink()
    assert "is gone" in one.reason()


def test_a_damaged_receipt_only_makes_the_artifact_again(tmp_path):
    one = artifact(tmp_path, size=1)
    make(one)
    one.receipt_path.write_text('{"stage": "st')
    assert not one.is_whole()


def test_digests_are_cached_by_what_the_file_system_says(tmp_path):
    file, cache = tmp_path / "corpus.txt", tmp_path / "digests.json"
    file.write_text("one")
    os.utime(file, (1, 1))
    want = hashlib.sha256(b"one").hexdigest()
    assert DigestCache(cache).digest(file) == want
    # The same size, time and inode with other bytes: only a reader would notice, and none reads.
    with open(file, "r+") as handle:
        handle.write("two")
    os.utime(file, (1, 1))
    assert DigestCache(cache).digest(file) == want
    os.utime(file, (2, 2))
    assert DigestCache(cache).digest(file) == hashlib.sha256(b"two").hexdigest()
    cache.write_text("rubbish")
    assert DigestCache(cache).digest(file) == hashlib.sha256(b"two").hexdigest()


def test_a_file_that_changed_since_it_was_looked_at_is_an_error(tmp_path):
    file = tmp_path / "corpus.txt"
    file.write_text("one")
    digests = DigestCache(tmp_path / "digests.json")
    digests.digest(file)
    digests.check_unchanged()
    file.write_text("three")
    with pytest.raises(UserError, match="corpus.txt changed while it was read"):
        digests.check_unchanged()
