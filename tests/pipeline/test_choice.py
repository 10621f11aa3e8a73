"""Which model is current: the new one, unless it is worse on the same validation text."""

import json

import pytest

from model.current import figures_file, link_to
from pipeline.choice import choose


@pytest.fixture
def models(tmp_path):
    """A function that gives a model its figures; the model."""
    def make(name, perplexity, text="text", headline="perplexity"):
        model = tmp_path / "models" / name / "model.h5"
        model.parent.mkdir(parents=True)
        model.write_bytes(b"")
        figures_file(model).write_text(json.dumps({
            "headline": headline, "texts": {"valid": text, "test": "any"},
            "valid": {"perplexity": perplexity, "perplexity_without_unk": perplexity},
            "test": {"perplexity": 1.0}}))
        return model

    return make


def test_the_first_model_is_current(models, tmp_path):
    new = models("new", 20.0)
    assert choose(new, tmp_path, None, 2.0)[:2] == (True, False)
    link_to(new, tmp_path)
    assert choose(new, tmp_path, None, 2.0)[:2] == (False, False)
    assert choose(new, tmp_path, "night", 2.0)[:2] == (True, False)  # of another profile


@pytest.mark.parametrize("now, tolerance, moves", [
    (19.0, 2.0, True), (20.0, 0.0, True), (20.39, 2.0, True), (20.41, 2.0, False),
    (20.41, 3.0, True), (20.01, 0.0, False)])
def test_a_worse_model_is_not_current(models, tmp_path, now, tolerance, moves):
    link_to(models("old", 20.0), tmp_path)
    choice = choose(models("new", now), tmp_path, None, tolerance)
    assert (choice.moves, choice.worse) == (moves, not moves)
    assert f"validation perplexity {now:,.2f} after 20.00" in choice.reason
    assert "new" in choice.reason and "old" in choice.reason


@pytest.mark.parametrize("change, reason", [
    ({"text": "another"}, "another validation text"),
    ({"headline": "perplexity_without_unk"}, "only one of them had <unk>")])
def test_what_cannot_be_compared_is_current_and_said(models, tmp_path, change, reason):
    link_to(models("old", 20.0), tmp_path)
    choice = choose(models("new", 90.0, **change), tmp_path, None, 2.0)
    assert choice.moves and not choice.worse
    assert "could not be compared" in choice.reason and reason in choice.reason


@pytest.mark.parametrize("harm", [
    lambda old: figures_file(old).unlink(), lambda old: figures_file(old).write_text("{")])
def test_figures_that_are_gone_cannot_be_compared(models, tmp_path, harm):
    old = models("old", 20.0)
    link_to(old, tmp_path)
    harm(old)
    choice = choose(models("new", 90.0), tmp_path, None, 2.0)
    assert choice.moves and "its figures are gone" in choice.reason


def test_a_perplexity_that_is_not_finite_cannot_be_compared(models, tmp_path):
    link_to(models("old", None), tmp_path)
    choice = choose(models("new", 90.0), tmp_path, None, 2.0)
    assert choice.moves and "not finite" in choice.reason
