"""The report: complete, closed in itself, escaped, and the same again."""

import html.parser
import json
import math
import re
import time

import numpy as np
import pytest

from model.breakdowns import breakdowns, most_different
from model.data.shards import ShardReader
from model.evaluation import evaluate, headline
from pipeline.report import page as report
from pipeline.report.page import Sources, provenance, read_log, write_report, write_training_page
from pipeline.report.plots import Plots, joined
from pipeline.tokens import read_types
from pipeline.vocabulary import count_words

SENTENCES = ["the lamp & the oil < all", "who ?", "the lamp burns", "a low lamp burns , the end",
             "<script> alert ( 1 ) </script>", "the oil is spent", "the", "low , low oil"]


def log_lines(updates=40, halved_after=30):
    """A training's log with a validation every 10 updates, the rate halved once."""
    lines, tokens, halvings = [], 0, 0
    for update in range(1, updates + 1):
        tokens += 100
        lines.append({"update": update, "epoch": 0, "sentences": 8, "tokens": 100,
                      "loss": 6 / update**0.1, "gradient_norm": 1.0,
                      "rate": 0.004 / 2**halvings, "seconds": 3.0 * update,
                      "tokens_per_second": 90.0 + update})
        if update % 10 == 0 or update == updates:
            halvings += update == halved_after
            lines.append({"update": update, "tokens": tokens, "halvings": halvings,
                          "validation_perplexity": 300 / update**0.1, "seconds": 3.0 * update + 1})
    return "".join(f"{json.dumps(line)}\n" for line in lines)


def receipt(stage, name, ingredients, seconds=1.5, finished=1.7e9):
    return {"stage": stage, "name": name, "path": f"{stage}/{name}.h5", "ingredients": ingredients,
            "identity": [1000, 1, 1], "seconds": seconds, "finished": finished,
            "notes": {"peak_memory_mb": 64}}


def run(**changes):
    """A line of the history."""
    return {"finished": 1.7e9, "host": "here", "run": "0" * 24, "profile": None,
            "model": "fedcba9876543210", "corpus": "1" * 24, "headline": "perplexity",
            "texts": {"valid": "2" * 24, "test": "3" * 24}, "settings": {"network.num_units": 7},
            "test": {"perplexity": 21.25}, "valid": {"perplexity": 20.5}, "interval": [20.0, 22.5],
            "baseline": {"test": 30.5}, "mixture": {"test": 20.75},
            "train": {"seconds": 90.0, "tokens_per_second": 1234.5}, **changes}


@pytest.fixture
def make_sources(tmp_path, make_shards):
    """A function that makes all that a report is made from out of some sentences."""

    def make(sentences=SENTENCES, size=12, log=None, set_aside=2):
        folder = tmp_path / "made"
        (shard,), vocabulary = make_shards(folder, [sentences], size=size)
        reader = ShardReader([shard])
        tables = np.log(np.random.default_rng(1).dirichlet(
            np.ones(len(vocabulary)), (2, len(vocabulary))))
        evaluations = {
            name: evaluate(lambda x, y, table=table: table[x, y], reader, vocabulary)
            for name, table in zip(("network", "kneser_ney_4"), tables)}
        details = evaluations["network"].details(vocabulary)
        figures = {key: value for key, value in details.items() if not isinstance(
            value, (dict, list))}
        figures["sentences_also_in_training"] = {"count": 2, "share": 0.25}
        (folder / "log.jsonl").write_text(log_lines() if log is None else log)
        (folder / "set_aside.tsv").write_text(
            "file\tline\toffset\treason\traw\n"
            "<i>.txt\t3\t17\tnot valid UTF-8\t\\xff<b>bold</b>\tand a tab\n" * set_aside)
        counts = {"files": 1, "bytes": 500, "lines": 11, "empty": 1, "set_aside": set_aside,
                  "sentences": len(sentences)}
        part = [{"digest": "0" * 64, "sentences": len(sentences), "bytes": 500}]
        digest = "0123456789abcdef" * 4
        return Sources(
            manifest={"sides": {"train": part, "valid": part, "test": part}, "counts": counts,
                      "remarks": ["<i>.txt repeats the text of another"],
                      "files": [{"side": "train", "path": "<i>.txt", "sentences": 8,
                                 "bytes": 500}]},
            vocabulary=vocabulary,
            words=count_words([read_types(folder / "tokens0.h5")], folder / "words",
                              frozenset(vocabulary.words), 20),
            step_counts={split: reader.step_counts for split in ("train", "valid", "test")},
            log=folder / "log.jsonl",
            metrics={"test": figures, "valid": figures, "headline": headline(vocabulary),
                     "vocabulary": {"size": len(vocabulary), "words_not_in_training": 0},
                     "baselines": {name: {"smoothing": 0.1, "test": 9.5, "valid": 9.25}
                                   for name in ("unigram", "bigram")}
                     | {"kneser_ney_4": {"test": 7.5, "valid": 7.25}},
                     "mixture": {"baseline": "kneser_ney_4", "order": 4, "network_weight": 0.625,
                                 "test": 6.5, "valid": 6.25},
                     "breakdowns": {**breakdowns(evaluations, vocabulary), "most_different":
                                    most_different(evaluations, reader, vocabulary)},
                     "confidence": {"figure": headline(vocabulary), "level": 0.95,
                                    "resamples": 2000, "interval": [6.0, 1234.5], "last_run": None,
                                    "baseline": {"difference": -1.5, "interval": [-2.0, 0.25]}},
                     "train": {"tokens_per_second": 95.4, "updates": 40, "tokens": 4000,
                               "epochs": 1, "seconds": 120.0, "started_from": None}},
            evaluation={"sets": {"test": details, "valid": details},
                        "samples": ["the lamp burns", ""]},
            runs=[run()],
            receipts=[receipt("tokens", str(n), {"format": 1, "part": digest[n:] + digest[:n],
                                                 "lowercase": True}) for n in range(3)],
            rejected_lines=folder / "set_aside.tsv")

    return make


class Page(html.parser.HTMLParser):
    """Text, headings, and everything that refers to something else, of a page."""

    def __init__(self, path):
        super().__init__()
        self.text, self.headings, self.references, self.tags = [], [], [], []
        self.source = path.read_text()
        self._in = []
        self.feed(self.source)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self._in.append(tag)
        self.references += [value for name, value in attributes
                            if name in ("src", "href", "xlink:href", "action")]

    def handle_endtag(self, tag):
        self._in.append("/" + tag)

    def handle_data(self, data):
        if self._in and self._in[-1] not in ("style", "script"):
            self.text.append(data)
        if self._in and self._in[-1] == "h2":
            self.headings.append(data)

    def words(self):
        return " ".join(" ".join(self.text).split())


def test_the_report_says_all_and_needs_no_network(tmp_path, make_sources):
    write_report(make_sources(), tmp_path / "report" / "index.html")
    page = Page(tmp_path / "report" / "index.html")
    assert page.headings == [
        "Result", "Corpus", "Vocabulary", "Training", "Where the model is good", "Runs so far",
        "Sentences drawn from the model", "Test sentences that surprised the model most",
        "Test sentences where network and n-grams differ most", "Where everything comes from",
        "Set aside"]
    plots = {"by_length", "by_position", "by_word", "coverage", "learning_time", "learning_tokens",
             "rate", "runs", "sentence_lengths", "speed"}
    assert page.tags.count("svg") == len(plots)
    assert {path.stem for path in (tmp_path / "report" / "plots").iterdir()} == plots
    local = {"metrics.json", "plots/", "data:,"}
    assert all(reference in local or reference.startswith("#") for reference in page.references)
    assert not re.search(r"url\((?!#)|@import|<script|<link[^>]*stylesheet", page.source)
    for text in ("words in the sentence", "training tokens covered (%)", "tokens per second",
                 "learning rate", "rate halved", "time (minutes)", "(an empty sentence)",
                 "Sentences that also occur in training 2 (25",
                 "<i>.txt repeats the text of another."):
        assert text in page.words()


def test_all_text_of_the_corpus_is_escaped(tmp_path, make_sources):
    write_report(make_sources(size=40), tmp_path / "index.html")
    page = Page(tmp_path / "index.html")
    assert "<b>bold</b>" not in page.source and "<i>.txt" not in page.source
    assert r"\xff<b>bold</b> and a tab" in page.words()
    assert "<i>.txt, line 3, byte 17" in page.words()
    assert "the lamp & the oil < all" in page.words()
    assert "< script > alert" in page.words()


def test_the_same_sources_give_the_same_bytes(tmp_path, make_sources, monkeypatch):
    sources = make_sources()
    monkeypatch.setattr(time, "time", lambda: 1.7e9)
    for name in ("one", "two"):
        write_report(sources, tmp_path / name / "index.html")
    for path in (tmp_path / "one").rglob("*.*"):
        other = tmp_path / "two" / path.relative_to(tmp_path / "one")
        assert path.read_bytes() == other.read_bytes()


def test_the_report_says_that_training_has_no_unknown_word(tmp_path, make_sources):
    never = "<unk> never occurs in training"
    write_report(make_sources(), tmp_path / "with.html")
    assert never not in " ".join(Page(tmp_path / "with.html").text)
    sources = make_sources(size=2000)
    for split in ("test", "valid"):
        sources.metrics[split] |= {"perplexity": 304.25, "perplexity_without_unk": 2.75}
    write_report(sources, tmp_path / "without.html")
    page = Page(tmp_path / "without.html")
    text = " ".join(" ".join(page.text).split())
    assert never in text and "2.75 test perplexity without <unk>" in text
    assert "Bigram baseline without <unk>" in text
    assert "Kneser-Ney 4-gram model without <unk> 7.50 7.25" in text
    assert text.index("Perplexity without <unk> 2.75") < text.index("Perplexity 304.25")
    assert "<title>Language model: test perplexity 2.75</title>" in page.source


def test_the_report_compares_with_ngrams_where_there_are_any(tmp_path, make_sources):
    sources = make_sources()
    write_report(sources, tmp_path / "with.html")
    text = Page(tmp_path / "with.html").words()
    assert "Network and 4-gram model (weights 0.62 and 0.38) 6.50 6.25" in text
    assert "Kneser-Ney 4-gram model 7.50 7.25" in text
    assert "6.50 with the 4-gram model 7.50 of the 4-gram model alone" in text
    assert "interval of the test perplexity: 6.00 to 1,234.50. Its difference" in text
    assert "of the 4-gram model: \N{MINUS SIGN}1.50, \N{MINUS SIGN}2.00 to +0.25." in text
    found = sources.metrics["breakdowns"]
    for row in [*found["by_position"], *found["by_knowledge"]]:
        network, ngrams = (f"{value:,.2f}" for value in row["perplexity"].values())
        share = f"{100 * row['share']:.2f} %"
        assert f"{row['group']} {row['tokens']} {share} {network} {ngrams}" in text
    better, worse = (text.index(f"The {name} is better") for name in ("network", "4-gram model"))
    for rows, start, end in ((found["most_different"]["network"], better, worse),
                             (found["most_different"]["kneser_ney_4"], worse, None)):
        for row in rows:
            figures = " ".join(f"{value:,.2f}" for value in row["perplexity"].values())
            assert f"{' '.join(row['words'])} {figures}" in text[start:end]
    sources.metrics["mixture"] = None
    found |= {"most_different": None}
    for kind in ("by_length", "by_position", "by_frequency", "by_knowledge"):
        for row in found[kind]:
            del row["perplexity"]["kneser_ney_4"]
    write_report(sources, tmp_path / "without.html")
    text = Page(tmp_path / "without.html").words()
    assert "-gram model" not in text and "9.50 of the bigram baseline" in text
    sources.metrics["confidence"]["interval"] = None
    write_report(sources, tmp_path / "without.html")
    assert "confidence interval" not in Page(tmp_path / "without.html").words()


def test_the_report_compares_with_the_runs_before(tmp_path, make_sources):
    sources = make_sources()
    sources.metrics["confidence"]["last_run"] = {
        "model": "fedcba9876543210", "difference": 0.5, "interval": [0.25, 0.75]}
    sources.runs.insert(0, run(model="0123456789", test={"perplexity": 24.25}, settings={},
                               profile="night", baseline=None, mixture=None))
    write_report(sources, tmp_path / "index.html")
    text = Page(tmp_path / "index.html").words()
    assert "To that of the last run on this text, of model fedcba98 : +0.50, +0.25 to +0.75" in text
    assert ("fedcba98 , default 21.25 text 33333333 20.50 30.50 20.75 1.5 network.num_units = 7"
            in text)
    assert "01234567 , night 24.25 text 33333333 20.50 none none 1.5 as the profile has" in text
    assert text.index("21.25 text") < text.index("24.25 text")
    sources.runs[:] = [run() for _ in range(11)]
    write_report(sources, tmp_path / "many.html")
    assert "The last 10 of 11" in Page(tmp_path / "many.html").words()


def test_only_runs_on_one_text_are_joined_in_the_chart():
    def groups(*found):
        return [[place for place, _ in group] for group in joined(found, "test")]

    other = {"valid": "4" * 24, "test": "5" * 24}
    assert groups(run(), run(), run(texts=other), run()) == [[1, 2], [3], [4]]
    # Not finite, so it is null in the history.
    assert groups(run(), run(test={"perplexity": None}), run()) == [[1, 3]]
    assert groups(run(), run(headline="perplexity_without_unk",
                             test={"perplexity_without_unk": 9.5})) == [[1], [2]]
    drawn = Plots(None).runs([run(), run(interval=None)])["runs"]
    assert "test, with its 95% interval" in drawn and drawn.count("validation") == 1


def test_the_report_counts_the_words_of_a_list_that_do_not_occur(tmp_path, make_sources):
    sources = make_sources()
    sources.metrics["vocabulary"]["words_not_in_training"] = 1234
    write_report(sources, tmp_path / "index.html")
    assert "1,234 of the words of its list" in " ".join(Page(tmp_path / "index.html").text)


def test_a_tiny_corpus_has_a_report_too(tmp_path, make_sources):
    sources = make_sources(["a a", "a a"], size=2000, log=log_lines(updates=1), set_aside=0)
    sources.metrics["train"]["updates"] = 1
    write_report(sources, tmp_path / "index.html")
    text = Page(tmp_path / "index.html").words()
    assert "None: every word of the training side is in the vocabulary" in text
    assert "Nothing: every line of the corpus could be used" in text
    assert "in 1 update, 1 validation," in text


def test_coverage_and_frequent_words_agree_with_counting(make_sources):
    sources = make_sources()
    sizes, shares, (size, share) = report._coverage(sources)
    assert size == 12 and shares[-1] == pytest.approx(1)
    assert share == pytest.approx(shares[sizes.tolist().index(12)])
    inside, outside = report._frequent_words(sources)
    assert (inside[0]["word"], inside[0]["rank"], outside[0]["rank"]) == ("the", 1, 10)
    assert len(inside) + len(outside) == len(sources.words.counts)
    assert sum(row["count"] for row in inside + outside) == sources.words.counts.sum()
    assert sum(row["share"] for row in inside) == pytest.approx(share)


def test_the_parts_of_a_stage_are_one_row():
    digests = [f"{n:064x}" for n in range(3)]
    (tokens, models) = provenance([
        *(receipt("tokens", digest, {"format": 1, "part": digest, "lowercase": True},
                  seconds=n + 1, finished=n) for n, digest in enumerate(digests)),
        receipt("models", "model", {
            "format": 1, "training shards": digests, "warm_start": "",
            "network": {"num_units": 7}})])
    assert tokens == {
        "stage": "tokens", "artifacts": 3, "path": "tokens", "bytes": 3000,
        "made_from": ["part (3 different)"], "settings": ["lowercase = True"], "seconds": 6,
        "longest": 3, "peak_memory_mb": 64, "finished": 2}
    assert models["made_from"] == ["training shards (3)"]
    assert models["settings"] == ["warm_start = (empty)", "num_units = 7"]


def test_a_model_tells_whose_weights_it_began_with():
    model = receipt("models", "model", {"format": 1, "training shards": ["0" * 24]})
    model["ingredients"]["started_from"] = "0123abcd" * 8
    row, = provenance([model])
    assert row["made_from"] == ["training shards (1)", "started_from 0123abcd"]


def test_a_few_very_long_sentences_leave_room_for_the_others():
    for count, text in ((2, "not shown: 2 sentences<"), (1, "not shown: 1 sentence<")):
        drawn = Plots(None).sentence_lengths({10: 300, 20: 199, 900: count})["sentence_lengths"]
        assert text in drawn and "of up to 900 words" in drawn
    assert "not shown" not in Plots(None).sentence_lengths({10: 5, 900: 5})["sentence_lengths"]


def test_a_report_without_the_training_s_log_has_all_but_the_curves(make_sources, tmp_path):
    sources = make_sources()
    whole, without = tmp_path / "whole.html", tmp_path / "without.html"
    write_report(sources, whole)
    sources.log.unlink()
    write_report(sources, without)
    assert "is gone, so no curve can be drawn" in without.read_text()
    assert "is gone, so no curve" not in whole.read_text()
    assert whole.read_text().count("<figure>") == without.read_text().count("<figure>") + 4


def test_the_log_is_read_up_to_a_half_written_line(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text(log_lines(20) + '{"update": 21, "tok')
    updates, validations = read_log(log)
    assert (len(updates), len(validations)) == (20, 2)


def test_a_long_training_is_drawn_in_few_points():
    updates = [{"tokens": 10, "seconds": float(n), "loss": 1.0, "tokens_per_second": 5.0,
                "rate": 0.1} for n in range(1, 100_001)]
    from pipeline.report.plots import _averages

    tokens, seconds, perplexity, speed, rate = _averages(updates)
    assert len(tokens) == 200 and tokens[-1] == 1_000_000 and seconds[-1] == 100_000
    np.testing.assert_allclose(perplexity, math.e)
    np.testing.assert_allclose(speed, 5)


def test_the_cooldown_begins_where_the_rate_falls_little_by_little():
    from pipeline.report.plots import _cooldown

    rates = [0.4, 0.4, 0.2, 0.2, 0.15, 0.1]  # halved once before
    updates = [{"tokens": 10, "seconds": 2.0 * n, "rate": rate} for n, rate in enumerate(rates, 1)]
    assert _cooldown(updates) == (40, 8.0)
    assert _cooldown(updates[:4]) is None


def test_the_training_page_refreshes_only_while_the_training_runs(tmp_path):
    log, path = tmp_path / "log.jsonl", tmp_path / "training.html"
    write_training_page(log, path, status="compiling", share=0, refresh_seconds=30)
    assert "compiling" in path.read_text() and "location.reload" in path.read_text()
    log.write_text(log_lines())
    write_training_page(log, path, status="<done>", share=1, refresh_seconds=None)
    assert "reload" not in path.read_text() and "refresh" not in path.read_text()
    page = Page(path)
    assert page.tags.count("svg") == 4 and "<done>" in page.words()
