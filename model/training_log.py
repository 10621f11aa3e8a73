"""The log of a training: an entry for every update and every validation, as JSON and as CSV.

``log.jsonl`` has an object a line, and is what everything here reads. ``log.csv`` beside it holds
the same for spreadsheets and the like, a row for each entry under the names of `COLUMNS`; where an
entry has no such figure its place is empty. It is made anew from the first when a training goes on.

=======================  ==========================================================================
kind                     ``update`` or ``validation``
update                   number of the update, from 1; for a validation, how many there were before
epoch                    from 0
sentences, tokens        of this update; the end of a sentence is a token
all_tokens               of all updates so far
loss                     mean negative log-probability of its tokens, in nats, with dropout
gradient_norm            Euclidean norm of the average gradient
rate                     learning rate
seconds                  of work since the training began, over all its runs
tokens_per_second        of this update
validation_perplexity    without ``<unk>`` where training has none
halvings                 how often the rate was halved, this validation counted
=======================  ==========================================================================
"""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import IO

from model.system.errors import UserError
from model.system.files import publish, to_json

COLUMNS = ("kind", "update", "epoch", "sentences", "tokens", "all_tokens", "loss",
           "gradient_norm", "rate", "seconds", "tokens_per_second", "validation_perplexity",
           "halvings")


class TrainingLog:
    """The log of a training, cut back to where the training resumes.

    Parameters
    ----------
    path : path
        Of the JSON lines; the table lies beside it, with the suffix ``.csv``.
    updates : int
    validated_at : int or None
        The last update, and the last one that was validated, where the training resumes: lines of
        later ones, and what a killed run left unfinished, are dropped.

    Attributes
    ----------
    seconds : float
        How long the training had worked there.
    """

    def __init__(self, path: Path, updates: int, validated_at: int | None):
        kept, rows, self.seconds = [], [], 0.0
        self._tokens = 0
        if path.exists():
            for line in path.read_text().splitlines(keepends=True):
                try:
                    entry = json.loads(line)
                except ValueError:
                    break
                is_validation = "validation_perplexity" in entry
                reached = validated_at if is_validation else updates
                if reached is None or entry["update"] > reached or not line.endswith("\n"):
                    break
                kept.append(line)
                rows.append(self._row(entry))
                self.seconds = entry["seconds"]
        table = path.with_suffix(".csv")
        with publish(path) as temporary:
            temporary.write_text("".join(kept))
        with publish(table) as temporary, open(temporary, "w", newline="") as file:
            writer = _writer(file)
            writer.writeheader()
            writer.writerows(rows)
        self._file = open(path, "a")  # noqa: SIM115
        self._table = open(table, "a", newline="")  # noqa: SIM115
        self._writer = _writer(self._table)

    def write(self, entry: dict) -> None:
        """Add a line."""
        try:
            line = to_json(entry)
            self._file.write(f"{line}\n")
            self._file.flush()
            self._writer.writerow(self._row(json.loads(line)))
            self._table.flush()
        except OSError as error:
            raise self._failure(error) from error

    def _row(self, entry: dict) -> dict:
        """An entry as a row of the table; counts its tokens."""
        if "validation_perplexity" in entry:
            return {**entry, "kind": "validation", "tokens": None, "all_tokens": entry["tokens"]}
        self._tokens += entry["tokens"]
        return {**entry, "kind": "update", "all_tokens": self._tokens}

    def sync(self) -> None:
        """Make what is written so far survive a loss of power, before a checkpoint counts on it."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> UserError:
        return UserError(f"cannot write the log {self._file.name}: {error}. The last checkpoint "
                         "is kept; the next run goes on from there.")


def _writer(file: IO[str]) -> csv.DictWriter:
    return csv.DictWriter(file, COLUMNS, lineterminator="\n")
class NoLog:
    """In place of a log in the processes that write none: see `TrainingLog`."""

    seconds = 0.0

    def write(self, entry: dict) -> None:
        """Do nothing."""

    def sync(self) -> None:
        """Do nothing."""
