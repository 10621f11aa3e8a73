"""The log of a training: one JSON object a line for every update and every validation."""

from __future__ import annotations

import json
import os
from pathlib import Path

from model.system.errors import UserError
from model.system.files import publish, to_json


class TrainingLog:
    """The log of a training, one JSON object a line, cut back to where the training resumes.

    Parameters
    ----------
    path : path
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
        kept, self.seconds = [], 0.0
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
                self.seconds = entry["seconds"]
        with publish(path) as temporary:
            temporary.write_text("".join(kept))
        self._file = open(path, "a")  # noqa: SIM115

    def write(self, entry: dict) -> None:
        """Add a line."""
        try:
            self._file.write(to_json(entry) + "\n")
            self._file.flush()
        except OSError as error:
            raise self._failure(error) from error

    def sync(self) -> None:
        """Make what is written so far survive a loss of power, before a checkpoint counts on it."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> UserError:
        return UserError(f"cannot write the log {self._file.name}: {error}. The last checkpoint "
                         "is kept; the next run goes on from there.")


class NoLog:
    """In place of a log in the processes that write none: see `TrainingLog`."""

    seconds = 0.0

    def write(self, entry: dict) -> None:
        """Do nothing."""

    def sync(self) -> None:
        """Do nothing."""
