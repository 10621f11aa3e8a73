"""The links to the current models: one for each profile, moved at once, and what they name."""

import json
import os

import pytest

from model.current import (
    current_model,
    current_ngrams,
    figures_file,
    link_of,
    link_to,
    linked_model,
    linked_models,
    ngrams_of,
)
from model.system.errors import UserError


@pytest.fixture
def work(tmp_path):
    """A working folder with two models."""
    for name in ("one", "two"):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "model.h5").write_text(name)
    return tmp_path


def model(work, name):
    return work / "models" / name / "model.h5"


def test_a_link_names_the_model_of_its_profile(work):
    assert linked_models(work) == {} and linked_model(work) is None
    link_to(model(work, "one"), work)
    link_to(model(work, "two"), work, "night")
    link_to(model(work, "one"), work, "million")
    assert linked_models(work) == {None: model(work, "one"), "million": model(work, "one"),
                                   "night": model(work, "two")}
    link_to(model(work, "two"), work)
    assert linked_model(work) == model(work, "two") and linked_model(work, "large") is None
    # As a file, too, and from wherever the folder is moved to.
    assert (work / "models" / "current").read_text() == "two"
    work.rename(work.with_name("moved"))
    moved = work.with_name("moved")
    assert current_model(moved) == model(moved, "two")
    assert sorted(os.listdir(moved / "models")) == [
        "current", "current-million", "current-night", "one", "two"]


def test_a_link_is_moved_by_rename(work, monkeypatch):
    link_to(model(work, "one"), work)
    seen = []
    replace = os.replace

    def watched(source, target):
        seen.append(linked_model(work))
        replace(source, target)
        seen.append(linked_model(work))

    monkeypatch.setattr(os, "replace", watched)
    link_to(model(work, "two"), work)
    assert seen == [model(work, "one"), model(work, "two")]


def test_without_a_profile_the_default_one_or_the_only_one(work):
    with pytest.raises(UserError, match=r"no complete run in .* 'make run'.*\(--model\)\.$"):
        current_model(work)
    link_to(model(work, "two"), work, "night")
    assert current_model(work) == current_model(work, "night") == model(work, "two")
    link_to(model(work, "one"), work, "large")
    with pytest.raises(UserError, match=r"models/current\..*--profile\): large, night\.$"):
        current_model(work)
    with pytest.raises(UserError, match="current-million"):
        current_model(work, "million")
    link_to(model(work, "one"), work)
    assert current_model(work) == model(work, "one")
    model(work, "one").unlink()
    with pytest.raises(UserError, match="models/current names is gone"):
        current_model(work)


def test_a_copy_of_a_model_is_no_link(work):
    link_of(work).write_text("a copy that followed the link")
    assert linked_model(work) is None and linked_models(work) == {}
    link_to(model(work, "one"), work)
    assert linked_model(work) == model(work, "one")


@pytest.mark.parametrize("figures", [
    None, "", "[]", "{}", '{"mixture": null}', '{"mixture": {"model": "baseline/a.h5"}}',
    '{"mixture": {"model": 7, "network_weight": 0.5}}',
    '{"mixture": {"model": "baseline/a.h5", "network_weight": "half"}}'])
def test_figures_that_name_no_n_grams(work, figures):
    if figures is not None:
        figures_file(model(work, "one")).write_text(figures)
    assert ngrams_of(model(work, "one"), work) is None
    with pytest.raises(UserError, match="had no n-gram model"):
        current_ngrams(model(work, "one"), work)


def test_the_n_grams_of_a_model_stand_in_its_figures(work):
    figures_file(model(work, "one")).write_text(json.dumps(
        {"mixture": {"model": "baseline/a.h5", "network_weight": 0.25}}))
    assert ngrams_of(model(work, "one"), work) == (work / "baseline" / "a.h5", 0.25)
    with pytest.raises(UserError, match="is gone: .*a.h5"):
        current_ngrams(model(work, "one"), work)
    (work / "baseline").mkdir()
    (work / "baseline" / "a.h5").write_text("")
    assert current_ngrams(model(work, "one"), work) == ngrams_of(model(work, "one"), work)
