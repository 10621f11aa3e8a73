"""Which files a corpus is, and that no text is on two splits."""

import os

import pytest

from model.system.errors import UserError
from pipeline.corpus import files as corpus_files_module
from pipeline.corpus.files import corpus_files, find_corpus


@pytest.fixture
def folder(tmp_path):
    """A folder of texts, and of files that are none."""
    for name in ("b.txt", "a/z.txt", "a/b.txt.gz", ".hidden", ".git/config.txt", "b.txt~",
                 "#b.txt#", "a/.z.txt.swp", "a/z.txt.bak"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def names(folder, pattern):
    return [str(path.relative_to(folder)) for path in corpus_files(f"{folder}/{pattern}")]


def test_a_folder_stands_for_its_files_in_sorted_order_without_hidden_ones(folder):
    everything = ["a/b.txt.gz", "a/z.txt", "b.txt"]
    assert names(folder, "") == names(folder, "**") == names(folder, "**/*") == everything
    assert names(folder, "*") == ["b.txt"] and names(folder, "*/*") == everything[:2]
    assert names(folder, "**/*.txt") == names(folder, "**/**/*.txt") == ["a/z.txt", "b.txt"]
    assert names(folder, "**/a/*") == names(folder, "a/**") == names(folder, "a") == everything[:2]
    assert names(folder, "b.txt") == ["b.txt"]
    assert corpus_files(f"file://{folder}/b.txt") == [folder / "b.txt"]


def test_hidden_files_and_backups_are_read_where_they_are_asked_for(folder):
    assert names(folder, ".git") == names(folder, ".*/*") == [".git/config.txt"]
    assert names(folder, ".git/**/*.txt") == [".git/config.txt"]
    assert names(folder, "*.txt~") == names(folder, "b.txt~") == ["b.txt~"]


def test_paths_may_be_relative(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert list(map(str, corpus_files("**/z*"))) == ["a/z.txt"]
    assert list(map(str, corpus_files("."))) == ["a/b.txt.gz", "a/z.txt", "b.txt"]
    monkeypatch.setenv("HOME", str(folder / "a"))
    assert corpus_files("~/*.txt") == [folder / "a/z.txt"]


def test_links_are_followed_and_nothing_is_met_twice(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "more.txt").write_text("more")
    (folder / "c").symlink_to(elsewhere)
    (folder / "c/loop").symlink_to(folder)
    (folder / "a/other loop").symlink_to(folder)
    (folder / "d.txt").symlink_to("b.txt")
    os.link(folder / "b.txt", folder / "e.txt")
    for pattern in ("", "**", "**/*"):
        found = find_corpus(f"{folder}/{pattern}").files
        assert [str(file.path.relative_to(folder)) for file in found] == [
            "a/b.txt.gz", "a/z.txt", "b.txt", "c/more.txt"]


@pytest.mark.parametrize("target", ["not mounted", "broken.txt"])
@pytest.mark.parametrize("pattern", ["", "**/*.txt", "*", "a/*.txt", "*/*.txt", "a/broken.txt"])
def test_a_broken_link_is_an_error_that_names_it(folder, pattern, target):
    (folder / "a/broken.txt").symlink_to(target)
    if pattern == "*":
        assert names(folder, pattern) == ["b.txt"]  # it does not look there
        return
    with pytest.raises(UserError, match=f"a/broken.txt is a link to {target}, which is not there"):
        names(folder, pattern)


def test_the_working_folder_may_not_lie_in_the_corpus(folder):
    work = folder / "a/work"
    (work / "parts").mkdir(parents=True)
    (work / "parts/1.txt").write_text("made")
    for pattern in ("", "**", "a", "*/*/*/*", "a/work"):
        with pytest.raises(UserError, match=f"the working folder {work} lies in the corpus"):
            corpus_files(f"{folder}/{pattern}", work)
    assert corpus_files(f"{folder}/a/*.txt", work) == [folder / "a/z.txt"]
    assert corpus_files(f"{work}/parts/1.txt", work) == [work / "parts/1.txt"]


@pytest.mark.parametrize("address", ["http://host/text.txt", "FTP://host/a", "file://host/a",
                                     "s3://bucket/key"])
def test_an_address_is_no_file(address):
    with pytest.raises(UserError, match=f"'{address}' is no file"):
        corpus_files(address)


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tmp_path):
    (tmp_path / "a[1].txt").write_text("x")
    assert corpus_files(f"{tmp_path}/a[1].txt") == [tmp_path / "a[1].txt"]


def test_a_missing_or_empty_corpus_is_an_error_that_names_it(tmp_path):
    with pytest.raises(UserError, match="no corpus .*nothing.txt"):
        corpus_files(str(tmp_path / "nothing.txt"))
    with pytest.raises(UserError, match=r"no corpus .*\*\.gz"):
        corpus_files(str(tmp_path / "*.gz"))
    with pytest.raises(UserError, match=f"{tmp_path} holds no files"):
        corpus_files(str(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="neither a regular file nor a folder"):
        corpus_files(str(tmp_path / "pipe"))


# Sides


@pytest.fixture
def texts(tmp_path):
    """A folder with a text for each split."""
    for name in ("train", "valid", "test"):
        (tmp_path / f"{name}.txt").write_text(f"the text for {name}\n")
    return tmp_path


def test_files_of_all_sides_are_found(texts):
    patterns = [str(texts / f"{name}.txt") for name in ("train", "valid", "test")]
    found = find_corpus(*patterns)
    assert [(file.split, str(file.path)) for file in found.files] == list(
        zip(("train", "valid", "test"), patterns))
    assert found.patterns == dict(zip(("train", "valid", "test"), patterns))
    assert len({file.digest for file in found.files}) == 3
    assert [file.split for file in find_corpus(str(texts)).files] == ["train"] * 3


@pytest.mark.parametrize("train, valid, test, splits", [
    ("", "valid.txt", "test.txt", ("valid.txt", "training", "validation")),
    ("", None, "test.txt", ("test.txt", "training", "the test")),
    ("train.txt", "*.txt", None, ("train.txt", "training", "validation")),
    ("train.txt", "../{}/valid.txt", "valid.txt", ("valid.txt", "validation", "the test")),
])
def test_one_file_on_two_sides_is_an_error(texts, train, valid, test, splits):
    patterns = [str(texts / name.format(texts.name)) if name is not None else None
                for name in (train, valid, test)]
    with pytest.raises(UserError) as error:
        find_corpus(*patterns)
    assert all(text in str(error.value) for text in splits) and "\n" not in str(error.value)


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_one_file_on_two_sides_is_seen_through_links(texts, link):
    link(texts / "train.txt", texts / "other.txt")
    with pytest.raises(UserError, match="train.txt and .*other.txt are one file"):
        find_corpus(str(texts / "train.txt"), str(texts / "other.txt"))
    (texts / "folder").symlink_to(texts)
    with pytest.raises(UserError, match="one file.*for training and for the test"):
        find_corpus(str(texts / "train.txt"), None, str(texts / "folder/train.txt"))


def test_one_file_on_two_sides_is_seen_while_it_grows(texts, monkeypatch):
    original = corpus_files_module.identify

    def write_on(path):
        with open(path, "a") as file:
            file.write("one more line\n")
        return original(path)

    monkeypatch.setattr(corpus_files_module, "identify", write_on)
    with pytest.raises(UserError, match="valid.txt is given for training and for validation"):
        find_corpus(str(texts), str(texts / "valid.txt"))


def test_equal_content_on_two_sides_is_an_error_unless_it_is_empty(texts):
    (texts / "copy.txt").write_bytes((texts / "test.txt").read_bytes())
    with pytest.raises(UserError, match="copy.txt and .*test.txt have the same content"):
        find_corpus(str(texts / "train.txt"), str(texts / "copy.txt"), str(texts / "test.txt"))
    for name in ("valid.txt", "test.txt"):
        (texts / name).write_text("")
    found = find_corpus(*(str(texts / f"{name}.txt") for name in ("train", "valid", "test")))
    assert len(found.files) == 3
