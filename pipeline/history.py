"""The runs so far: for each a line in the working folder's history.jsonl."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Sequence
from pathlib import Path

from model.system.files import publish, to_json

_DIGITS = 8  # of digests, for people
_OF_TRAINING = ("updates", "tokens", "seconds", "tokens_per_second", "device", "precision")
_KEYS = {"finished", "host", "run", "profile", "model", "corpus", "texts", "settings", "headline",
         "test", "valid", "interval", "baseline", "mixture", "train"}


def runs(work: Path) -> list[dict]:
    """All runs, the oldest first, as `describe` made them; lines that are none are left out.

    Parameters
    ----------
    work : path
        Working folder.
    """
    found = []
    for line in _read(work).splitlines():
        try:
            run = json.loads(line)
        except ValueError:
            continue
        if isinstance(run, dict) and run.keys() >= _KEYS:
            found.append(run)
    return found


def append(work: Path, run: dict) -> None:
    """Add a run; the file is published anew, so that it never ends in half a line.

    Raises
    ------
    UserError
        When the disk does not take it.
    """
    before = _read(work)
    if before and not before.endswith(b"\n"):  # somebody has edited it
        before += b"\n"
    with publish(_file(work)) as temporary:
        temporary.write_bytes(before + to_json(run).encode() + b"\n")


def _read(work: Path) -> bytes:
    try:
        return _file(work).read_bytes()
    except FileNotFoundError:
        return b""


def _file(work: Path) -> Path:
    return work / "history.jsonl"


def describe(metrics: dict, *, run: str, profile: str | None, corpus: str,
             settings: dict) -> dict:
    """What the history keeps of a run that has just ended.

    Parameters
    ----------
    metrics : dict
        Its figures.
    run : str
        Fingerprint of its evaluation, which depends on all that came before.
    profile : str or None
        None for the default one.
    corpus : str
        Digest of the text of all splits.
    settings : dict
        Those that are not as the profile has them.
    """
    mixture, train = metrics["mixture"], metrics["train"]
    return {
        "finished": time.time(), "host": platform.node(), "run": run, "profile": profile,
        "model": Path(train["model"]).parent.name, "corpus": corpus, "texts": metrics["texts"],
        "settings": settings, "headline": metrics["headline"], "test": metrics["test"],
        "valid": metrics["valid"], "interval": metrics["confidence"]["interval"],
        "baseline": metrics["baselines"].get(mixture["baseline"]) if mixture else None,
        "mixture": mixture, "train": {name: train.get(name) for name in _OF_TRAINING},
    }


def last_on(found: Sequence[dict], text: str, but: str) -> dict | None:
    """The last run on a test text, but for the one with a certain fingerprint."""
    return next((run for run in reversed(found)
                 if run["texts"]["test"] == text and run["run"] != but), None)


def rows(found: Sequence[dict]) -> list[dict[str, str]]:
    """A row of texts for each run, by the names of the columns.

    Perplexities are comparable where "test text" is the same: it stands for the sentences, and the
    settings that say which of their words are known.
    """
    return [{
        "finished": time.strftime("%Y-%m-%d %H:%M", time.localtime(run["finished"])),
        "profile": run["profile"] or "default",
        "model": run["model"][:_DIGITS],
        "corpus": run["corpus"][:_DIGITS],
        "test text": run["texts"]["test"][:_DIGITS],
        "test": _decimal(run["test"].get(run["headline"])),
        "95% interval": " to ".join(map(_decimal, run["interval"])) if run["interval"] else "",
        "validation": _decimal(run["valid"].get(run["headline"])),
        "n-grams": _decimal((run["baseline"] or {}).get("test")),
        "mixture": _decimal((run["mixture"] or {}).get("test")),
        "minutes": f"{run['train']['seconds'] / 60:,.1f}",
        "tokens/s": f"{run['train']['tokens_per_second']:,.0f}",
        "host": run["host"],
        "settings": ", ".join(f"{name} = {value}" for name, value in run["settings"].items()),
    } for run in found]


def table(found: Sequence[dict]) -> str:
    """All runs as lines of text, the names of the columns above."""
    texts = rows(found)
    columns = [[name, *(row[name] for row in texts)] for name in texts[0]]
    widths = [max(map(len, column)) for column in columns]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in zip(*columns))


def _decimal(value: float | None) -> str:
    return "" if value is None else f"{value:,.2f}"
