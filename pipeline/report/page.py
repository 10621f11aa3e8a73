"""The report of a run: one page that needs no network, and its plots as files.

Knows nothing of Luigi: `write_report` takes what the stages have left, `write_training_page` a
training's log while it grows.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup

from model.data.vocabulary import SPECIALS, Vocabulary
from model.system.files import publish
from pipeline.artifacts import is_digest
from pipeline.history import rows
from pipeline.report.plots import Plots
from pipeline.vocabulary import WordCounts

WORDS_LISTED = 20
_SURPRISING_LISTED = 10
_REJECTED_LISTED = 20
_INGREDIENTS_LISTED = 8
_RUNS_LISTED = 10
_RUNS_DRAWN = 100


@dataclass(frozen=True)
class Sources:
    """What the report is made from.

    Parameters
    ----------
    manifest : dict
        Of the corpus stage.
    vocabulary : Vocabulary
    words : WordCounts
        Of the training split; the places of those in the vocabulary, and of `WORDS_LISTED` others.
    step_counts : dict
        For each split the number of sentences by number of steps (words + 1).
    log : path
        The training's log; need not exist any more.
    metrics, evaluation : dict
        Of the evaluation: the figures, and the details.
    runs : list of dict
        The history, this run the last; see `pipeline.history`.
    receipts : list of dict
        Those of all artifacts of the run, in the order of the run.
    rejected_lines : path
        The table of lines that could not be used; need not exist.
    """

    manifest: dict
    vocabulary: Vocabulary
    words: WordCounts
    step_counts: dict[str, dict[int, int]]
    log: Path
    metrics: dict
    evaluation: dict
    runs: list[dict]
    receipts: list[dict]
    rejected_lines: Path


def write_report(sources: Sources, path: Path, *,
                 progress: Callable[[str, float], None] = lambda name, share: None) -> None:
    """Publish the report as one HTML file, and its plots in the folder ``plots`` beside it.

    Apart from times it depends on the sources alone.

    Parameters
    ----------
    sources : Sources
    path : path
        The HTML file.
    progress : function
        Called before something is drawn, with its name and the share that is done, 0 to 1.
    """
    plots = Plots(path.parent / "plots")
    updates, validations = read_log(sources.log)
    test = sources.evaluation["sets"]["test"]
    breakdowns = sources.metrics["breakdowns"]
    to_draw: dict[str, Callable[[], dict[str, str]]] = {
        "sentence lengths": lambda: plots.sentence_lengths(
            {steps - 1: count for steps, count in sources.step_counts["train"].items()}),
        "coverage": lambda: plots.coverage(*_coverage(sources)),
        "learning curves": lambda: plots.learning(updates, validations) if updates else {},
        "perplexity by length": lambda: plots.bars(
            "by_length", "words in the sentence", breakdowns["by_length"]),
        "perplexity by position": lambda: plots.bars(
            "by_position", "position in the sentence", breakdowns["by_position"]),
        "perplexity by word": lambda: plots.bars(
            "by_word", "rank of the word", breakdowns["by_frequency"], logarithmic=True),
        "the runs so far": lambda: plots.runs(sources.runs[-_RUNS_DRAWN:]),
    }
    drawn: dict[str, str] = {}
    for number, (name, draw) in enumerate(to_draw.items()):
        progress(name, number / len(to_draw))
        drawn |= draw()
    frequent, outside = _frequent_words(sources)
    _render(path, "report.html",
            metrics=sources.metrics, counts=sources.manifest["counts"],
            files=sources.manifest["files"], remarks=sources.manifest["remarks"],
            splits=_splits(sources),
            buckets=len(sources.step_counts["train"]),
            frequent=frequent, outside=outside, types=len(sources.words.counts),
            plots={name: Markup(svg) for name, svg in drawn.items()},
            validations=validations, log=sources.log,
            breakdowns=breakdowns, samples=sources.evaluation["samples"],
            surprising=test["most_surprising"][:_SURPRISING_LISTED],
            runs=rows(sources.runs[-_RUNS_LISTED:])[::-1], all_runs=len(sources.runs),
            provenance=provenance(sources.receipts),
            rejected_lines=_rejected_lines(sources.rejected_lines,
                                           sources.manifest["counts"]["set_aside"]),
            rejected_lines_file=sources.rejected_lines, made=time.time())


def write_training_page(log: Path, path: Path, *, status: str, share: float,
                        refresh_seconds: int | None) -> None:
    """Publish a page on a training as far as its log goes.

    Parameters
    ----------
    log, path : path
    status : str
        What the training does now.
    share : float
        How much of it is done, 0 to 1.
    refresh_seconds : int or None
        How often a browser is to load the page again; None when the training has ended.
    """
    updates, validations = read_log(log)
    drawn = Plots(None).learning(updates, validations) if updates else {}
    _render(path, "training.html", status=status, share=share, refresh_seconds=refresh_seconds,
            plots={name: Markup(svg) for name, svg in drawn.items()}, updates=len(updates),
            tokens=sum(update["tokens"] for update in updates),
            seconds=updates[-1]["seconds"] if updates else 0.0,
            validations=validations, made=time.time())


def read_log(path: Path) -> tuple[list[dict], list[dict]]:
    """The entries of a training's log, if there is one: its updates, and its validations."""
    updates: list[dict] = []
    validations: list[dict] = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            entry = json.loads(line)
        except ValueError:
            break  # the last line, half-written
        (validations if "validation_perplexity" in entry else updates).append(entry)
    return updates, validations


def provenance(receipts: Iterable[dict]) -> list[dict]:
    """One row for each stage: from what its artifacts are made, how, in what time and memory.

    Parameters
    ----------
    receipts : iterable of dict
        See `pipeline.artifacts`.

    Returns
    -------
    list of dict
        With "stage", "artifacts" (how many), "bytes", "made_from" and "settings" (lists of
        phrases), "seconds" (of all), "longest" (of one), "peak_memory_mb" and "finished".
    """
    stages: dict[str, list[dict]] = {}
    for receipt in receipts:
        stages.setdefault(receipt["stage"], []).append(receipt)
    return [{
        "stage": stage,
        "artifacts": len(group),
        "path": group[0]["path"] if len(group) == 1 else str(Path(group[0]["path"]).parent),
        "bytes": sum(receipt["identity"][0] for receipt in group),
        **_origins(group),
        "seconds": sum(receipt["seconds"] for receipt in group),
        "longest": max(receipt["seconds"] for receipt in group),
        "peak_memory_mb": max(receipt["notes"].get("peak_memory_mb", 0) for receipt in group),
        "finished": max(receipt["finished"] for receipt in group),
    } for stage, group in stages.items()]


def _origins(group: Sequence[dict]) -> dict[str, list[str]]:
    """What all of a group are made from; where they differ, how many different ones."""
    made_from, settings = [], []
    flat = [_flatten({key: value for key, value in receipt["ingredients"].items()
                      if key != "format"}) for receipt in group]
    for key in dict.fromkeys(key for each in flat for key in each):
        values = {json.dumps(each.get(key)): each.get(key) for each in flat}
        value = next(iter(values.values()))
        if isinstance(value, list):
            made_from.append(f"{key} ({len(value):,})")
        elif is_digest(value):
            made_from.append(f"{key} ({len(values):,} different)" if len(values) > 1
                             else f"{key} {value[:8]}")
        elif len(values) > 1:
            settings.append(f"{key} ({len(values):,} different)")
        else:
            settings.append(f"{key} = {_or_word(value)}")
    if len(made_from) > _INGREDIENTS_LISTED:
        more = len(made_from) - _INGREDIENTS_LISTED
        made_from[_INGREDIENTS_LISTED:] = [f"and {more:,} more"]
    return {"made_from": made_from, "settings": settings}


def _or_word(value: object) -> object:
    return {"": "(empty)", None: "none"}.get(value, value) if value in ("", None) else value


def _flatten(ingredients: dict, before: str = "") -> dict:
    result = {}
    for key, value in ingredients.items():
        if isinstance(value, dict):
            # The names of these groups tell nothing more.
            named = before if key in ("files", "settings", "network", "training", "tokens") else (
                f"{before}{key} ")
            result.update(_flatten(value, named))
        else:
            result[f"{before}{key}"] = value
    return result


def _splits(sources: Sources) -> list[dict]:
    rows = []
    for split, label in (("train", "training"), ("valid", "validation"), ("test", "test")):
        counts = sources.step_counts[split]
        sentences = sum(counts.values())
        words = sum((steps - 1) * count for steps, count in counts.items())
        if split == "train":
            outside = sources.vocabulary.counts[sources.vocabulary.unknown]
            rate = outside / words if words else 0.0
        else:
            rate = sources.metrics[split]["oov_rate"]
        rows.append({"label": label, "parts": len(sources.manifest["sides"][split]),
                     "sentences": sentences, "words": words, "tokens": words + sentences,
                     "oov_rate": rate, "longest": max(counts) - 1})
    return rows


def _coverage(sources: Sources) -> tuple[np.ndarray, np.ndarray, tuple[int, float]]:
    counts = np.sort(sources.words.counts.astype("float64"))[::-1]
    total = _training_words(sources.vocabulary)
    kept = np.unique(np.geomspace(1, len(counts), 300).astype(int))
    shares = np.cumsum(counts)[kept - 1] / total
    outside = sources.vocabulary.counts[sources.vocabulary.unknown]
    return kept + len(SPECIALS), shares, (len(sources.vocabulary), 1 - outside / total)


def _training_words(vocabulary: Vocabulary) -> int:
    """The number of words of the training split, those outside the vocabulary among them."""
    return sum(vocabulary.counts) - sum(
        vocabulary.counts[border] for border in (vocabulary.start, vocabulary.end))


def _frequent_words(sources: Sources) -> tuple[list[dict], list[dict]]:
    """The most frequent words of the training split in the vocabulary, and outside of it."""
    total = _training_words(sources.vocabulary)
    known = set(sources.vocabulary.words)
    listed: tuple[list[dict], list[dict]] = [], []
    counts = {word: int(sources.words.counts[place])
              for word, place in sources.words.places.items()}
    for word in sorted(counts, key=lambda word: (-counts[word], word)):
        rows = listed[word not in known]
        if len(rows) < WORDS_LISTED:
            rows.append({"rank": sources.words.rank(word), "word": word, "count": counts[word],
                         "share": counts[word] / total})
    return listed


def _rejected_lines(path: Path, count: int) -> list[dict]:
    """The first of the lines that could not be used."""
    if not count or not path.exists():
        return []
    rows = []
    with open(path, encoding="utf-8", errors="backslashreplace", newline="\n") as table:
        names = table.readline().rstrip("\n").split("\t")
        for line in table:
            rows.append(dict(zip(names, line.rstrip("\n").split("\t", len(names) - 1))))
            if len(rows) == _REJECTED_LISTED:
                break
    return rows


def _render(path: Path, template: str, **values: object) -> None:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "number": lambda value: f"{value:,}",
        "decimal": lambda value: "n/a" if value is None else f"{value:,.2f}",
        "percent": _percent, "signed": _signed, "interval": _interval,
        "duration": _duration, "size": _size,
        "moment": lambda value: time.strftime("%Y-%m-%d %H:%M", time.localtime(value)),
    }
    with publish(path) as temporary:
        page = environment.get_template(template).render(values)
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")


def _duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def _signed(value: float | None) -> str:
    return "n/a" if value is None else f"{value:+,.2f}".replace("-", "\N{MINUS SIGN}")


def _interval(bounds: tuple[float, float], signed: bool = False) -> str:
    return " to ".join(_signed(bound) if signed else f"{bound:,.2f}" for bound in bounds)


def _percent(share: float) -> str:
    # The space does not break a line.
    return f"{100 * share:.2g}\u00a0%" if 0 < share < 0.001 else f"{100 * share:.2f}\u00a0%"


def _size(number: float) -> str:
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"
