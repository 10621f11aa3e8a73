"""Which files a corpus is, and that no text is on two sides."""

import os

import pytest

from model.files import UserError
from pipeline.corpus_files import corpus_files, find_corpus


def test_a_folder_stands_for_its_files_in_sorted_order_without_hidden_ones(tmp_path):
    for name in ("b.txt", "a/z.txt", "a/b.txt.gz", ".hidden", ".git/config"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    names = ["a/b.txt.gz", "a/z.txt", "b.txt"]
    assert corpus_files(str(tmp_path)) == [tmp_path / name for name in names]
    assert corpus_files(f"{tmp_path}/**/*.txt") == [tmp_path / "a/z.txt", tmp_path / "b.txt"]
    assert corpus_files(f"{tmp_path}/b.txt") == [tmp_path / "b.txt"]


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
    """A folder with a text for each side."""
    for name in ("train", "valid", "test"):
        (tmp_path / f"{name}.txt").write_text(f"the text for {name}\n")
    return tmp_path


def test_files_of_all_sides_are_found(texts):
    patterns = [str(texts / f"{name}.txt") for name in ("train", "valid", "test")]
    found = find_corpus(*patterns)
    assert [(file.side, str(file.path)) for file in found.files] == list(
        zip(("train", "valid", "test"), patterns))
    assert found.patterns == dict(zip(("train", "valid", "test"), patterns))
    assert len({file.digest for file in found.files}) == 3
    assert [file.side for file in find_corpus(str(texts)).files] == ["train"] * 3


@pytest.mark.parametrize("train, valid, test, sides", [
    ("", "valid.txt", "test.txt", ("valid.txt", "training", "validation")),
    ("", None, "test.txt", ("test.txt", "training", "the test")),
    ("train.txt", "*.txt", None, ("train.txt", "training", "validation")),
    ("train.txt", "../{}/valid.txt", "valid.txt", ("valid.txt", "validation", "the test")),
])
def test_one_file_on_two_sides_is_an_error(texts, train, valid, test, sides):
    patterns = [str(texts / name.format(texts.name)) if name is not None else None
                for name in (train, valid, test)]
    with pytest.raises(UserError) as error:
        find_corpus(*patterns)
    assert all(text in str(error.value) for text in sides) and "\n" not in str(error.value)


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_one_file_on_two_sides_is_seen_through_links(texts, link):
    link(texts / "train.txt", texts / "other.txt")
    with pytest.raises(UserError, match="train.txt and .*other.txt are one file"):
        find_corpus(str(texts / "train.txt"), str(texts / "other.txt"))
    (texts / "folder").symlink_to(texts)
    with pytest.raises(UserError, match="one file.*for training and for the test"):
        find_corpus(str(texts / "train.txt"), None, str(texts / "folder/train.txt"))


def test_equal_content_on_two_sides_is_an_error_unless_it_is_empty(texts):
    (texts / "copy.txt").write_bytes((texts / "test.txt").read_bytes())
    with pytest.raises(UserError, match="copy.txt and .*test.txt have the same content"):
        find_corpus(str(texts / "train.txt"), str(texts / "copy.txt"), str(texts / "test.txt"))
    for name in ("valid.txt", "test.txt"):
        (texts / name).write_text("")
    found = find_corpus(*(str(texts / f"{name}.txt") for name in ("train", "valid", "test")))
    assert len(found.files) == 3
