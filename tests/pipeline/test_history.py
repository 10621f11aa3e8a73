"""The history of the runs: each once, whole lines only, and what can be compared."""

import json
import time

import pytest

from model.system.errors import UserError
from pipeline import history, settings
from tests.pipeline.report.test_page import run as line


def test_lines_come_back_in_their_order(tmp_path):
    assert history.runs(tmp_path) == []
    for number in range(3):
        history.append(tmp_path, line(run=str(number), host="Zoë's"))
    assert [run["run"] for run in history.runs(tmp_path)] == ["0", "1", "2"]
    assert history.runs(tmp_path)[0] == line(run="0", host="Zoë's")
    assert [path.name for path in tmp_path.iterdir()] == ["history.jsonl"]


def test_what_is_no_line_of_ours_is_left_out_and_left_alone(tmp_path):
    path = tmp_path / "history.jsonl"
    odd = b'{"run": "half\n\xff\xfe\n[1]\n{"run": "0"}\n\nmy own note'
    path.write_bytes(odd)
    history.append(tmp_path, line())
    assert history.runs(tmp_path) == [line()]
    assert path.read_bytes() == odd + b"\n" + json.dumps(line()).encode() + b"\n"


def test_a_line_that_cannot_be_written_leaves_those_that_are_there(tmp_path, full_disk):
    folder = full_disk(8)
    history.append(folder, line())
    before = (folder / "history.jsonl").read_bytes()
    with pytest.raises(UserError, match="history.jsonl"):
        history.append(folder, line(host="x" * 10_000))
    assert (folder / "history.jsonl").read_bytes() == before


def test_the_last_run_on_a_text_is_another_one():
    other = {"valid": "", "test": "other"}
    found = [line(run="1"), line(run="2"), line(run="3", texts=other), line(run="4")]
    assert history.last_on(found, "3" * 24, but="4")["run"] == "2"
    assert history.last_on(found, "3" * 24, but="5")["run"] == "4"
    assert history.last_on(found, "none", but="4") is None


def test_the_table_has_a_row_for_each_run(monkeypatch):
    monkeypatch.setattr(time, "localtime", time.gmtime)
    found = [line(), line(profile="night", interval=None, baseline=None, mixture=None, settings={},
                          test={"perplexity": None})]
    head, first, second = history.table(found).splitlines()
    assert head.split() == ["finished", "profile", "model", "corpus", "test", "text", "test", "95%",
                            "interval", "validation", "n-grams", "mixture", "minutes", "tokens/s",
                            "host", "settings"]
    assert first.split() == [
        "2023-11-14", "22:13", "default", "fedcba98", "11111111", "33333333", "21.25", "20.00",
        "to", "22.50", "20.50", "30.50", "20.75", "1.5", "1,234", "here", "network.num_units", "=",
        "7"]
    assert second.split() == ["2023-11-14", "22:13", "night", "fedcba98", "11111111", "33333333",
                              "20.50", "1.5", "1,234", "here"]
    assert first.index("20.50") == second.index("20.50") == head.index("validation")


def test_the_settings_that_differ_from_the_profile(tmp_path, monkeypatch):
    mine = tmp_path / "mine.cfg"
    monkeypatch.setenv("LUIGI_CONFIG_PATH", str(mine))
    mine.write_text("[run]\nport = 8082\n")
    try:
        settings.load()
        assert settings.profile_in_force() is None and settings.differing() == {}
        settings.load("million")
        assert settings.profile_in_force() == "million" and settings.differing() == {}
        units = settings.values(settings.network)["num_units"]
        mine.write_text("[training]\nrate = 0.5\nseed = 1\n[network]\nnum_units = 3\n")
        settings.load("million")  # which goes before
        assert settings.values(settings.network)["num_units"] == units != 3
        assert "network.num_units" not in settings.differing()
        settings.load()
        assert settings.differing() == {"network.num_units": 3, "training.rate": 0.5}
    finally:
        monkeypatch.delenv("LUIGI_CONFIG_PATH")
        settings.load()
