"""A corpus as a whole: its parts, its manifest, and what is refused."""

import gzip
import os

import pytest

from model.system.errors import UserError
from pipeline.corpus.files import find_corpus
from pipeline.corpus.publishing import split_corpus
from tests.pipeline.corpus.texts import VERSES, read_parts, write_others


def test_the_first_bad_line_stops_the_run_and_publishes_no_manifest(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_bytes(b"good\nb\xe4d\n")
    with pytest.raises(UserError, match=rf"{path}, line 2, byte offset 6: not valid UTF-8"):
        split_corpus(find_corpus(str(path)), tmp_path / "parts", tmp_path / "aside.tsv")
    assert not (tmp_path / "aside.tsv").exists()


def test_bad_lines_are_set_aside_in_a_table(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_bytes(b"a\xff\n" + b"%d\n" * 300 % tuple(range(300)) + b"a\tb\xff\n")
    table = tmp_path / "aside.tsv"
    manifest = split_corpus(
        find_corpus(str(path)), tmp_path / "parts", table, valid_share=0.2, test_share=0.2,
        on_bad_line="set_aside",
    )  # fmt: skip
    assert manifest["counts"]["set_aside"] == 2
    rows = [line.split("\t") for line in table.read_text().splitlines()]
    assert rows[0] == ["file", "line", "offset", "reason", "raw"]
    assert rows[2][:3] == [str(path), "302", str(path.stat().st_size - 2)]
    assert rows[2][4] == r"a\tb\xff"
    assert len(rows) == 3


def test_lines_that_are_set_aside_may_not_be_most_of_a_corpus(tmp_path):
    path = tmp_path / "corpus.txt"
    others = write_others(tmp_path)
    for good, fits in ((3, True), (2, False)):  # and the one of each other split
        path.write_bytes(b"good\n\n" * good + b"b\xe4d\n" * 5)
        table = tmp_path / f"{good}.tsv"
        arguments = find_corpus(str(path), *others), tmp_path / "parts", table
        if fits:
            assert split_corpus(*arguments, on_bad_line="set_aside")["counts"]["set_aside"] == 5
        else:
            with pytest.raises(UserError, match="more than half of the lines.*, 5 of 9, are not"):
                split_corpus(*arguments, on_bad_line="set_aside")
        assert table.exists() == fits


def test_the_stream_of_a_side_runs_across_files(tmp_path):
    for number in range(100):
        (tmp_path / "corpus").mkdir(exist_ok=True)
        (tmp_path / f"corpus/{number:02}.txt").write_text(f"{VERSES[number % 6]} {number}\n")
    folder = str(tmp_path / "corpus")
    progress = []
    found = find_corpus(folder, *write_others(tmp_path))
    manifest = split_corpus(
        found, tmp_path / "parts", tmp_path / "aside", progress=progress.append
    )
    assert [part["sentences"] for part in manifest["sides"]["train"]] == [100]
    assert manifest["counts"]["files"] == 102
    assert manifest["files"][1] == {
        "side": "train",
        "path": f"{folder}/01.txt",
        "sentences": 1,
        "bytes": len(VERSES[1]) + 4 - 1,
    }
    assert progress[-1] == sum(file.path.stat().st_size for file in found.files)


def test_the_same_text_on_two_sides_is_seen_through_compression(tmp_path):
    content = "".join(f"{verse}\n" for verse in VERSES).encode()
    (tmp_path / "train.txt").write_bytes(content * 2)
    (tmp_path / "valid.txt").write_bytes(content)
    (tmp_path / "test").write_bytes(gzip.compress(content))
    with pytest.raises(UserError, match="valid.txt and .*test hold the same text, and are given"):
        split_corpus(find_corpus(*(str(tmp_path / name) for name in (
            "train.txt", "valid.txt", "test"))), tmp_path / "parts", tmp_path / "aside")


def test_text_that_is_twice_on_one_side_is_told(tmp_path):
    content = "".join(f"{verse}\n" for verse in VERSES).encode()
    folder = tmp_path / "corpus"
    folder.mkdir()
    others = write_others(tmp_path)

    def remarks():
        found = find_corpus(str(folder), *others)
        return split_corpus(found, tmp_path / "parts", tmp_path / "aside")["remarks"]

    (folder / "a.txt").write_bytes(content)
    (folder / "c.txt").write_bytes(content.replace(b"J", b"j"))
    assert remarks() == []
    (folder / "b.gz").write_bytes(gzip.compress(content))
    remark, = remarks()
    assert remark.startswith(f"{folder}/b.gz repeats the text of {folder}/a.txt: ")
    (folder / "d.txt").write_bytes(content)
    remark, = remarks()
    assert "repeats the text of" in remark and "and 1 more files do so" in remark


@pytest.fixture
def moving(tmp_path):
    """A function that splits a corpus of two files, at each step of which something is done."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name in ("a.txt", "b.txt"):
        (folder / name).write_text("".join(f"{verse} {name} {n}\n" for n in range(50)
                                           for verse in VERSES))  # fmt: skip
    others = write_others(tmp_path)

    def split_while(change, parts="parts"):
        found = find_corpus(str(folder), *others)
        manifest = split_corpus(found, tmp_path / parts, tmp_path / "s",
                                progress=lambda _: change(folder))  # fmt: skip
        return read_parts(tmp_path / parts, manifest, "train"), manifest

    return split_while


def test_what_is_written_behind_the_end_is_left_for_the_next_run(moving):
    def write(folder):
        for name in ("a.txt", "b.txt"):
            with open(folder / name, "a") as file:
                file.write("more\n")
        (folder / "c.txt").write_text("another")
        content = (folder / "b.txt").read_bytes()
        (folder / "new").write_bytes(content)
        os.replace(folder / "new", folder / "b.txt")

    expected = moving(lambda folder: None)
    assert moving(write, "again") == expected
    assert moving(lambda folder: None)[0] != expected[0]


def test_a_corpus_that_changes_while_it_is_read_is_an_error(moving):
    def rewrite(folder):
        content = (folder / "b.txt").read_bytes()
        status = (folder / "b.txt").stat()
        (folder / "b.txt").write_bytes(content.replace(b"Jesus", b"jesus"))
        # As programs do that copy in place, and keep the time.
        os.utime(folder / "b.txt", ns=(status.st_atime_ns, status.st_mtime_ns))

    def shorten(folder):
        os.truncate(folder / "b.txt", 100)

    def remove(folder):
        (folder / "b.txt").unlink(missing_ok=True)

    for change in (rewrite, shorten, remove):
        fault = "cannot read .*b.txt" if change is remove else "^$"
        with pytest.raises(UserError, match=f"b.txt changed while the corpus was read|{fault}"):
            moving(change)
