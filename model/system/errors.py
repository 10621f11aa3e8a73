"""The errors that are shown to people as one line, without a traceback."""

from __future__ import annotations

import os
from pathlib import Path


class UserError(Exception):
    """A failure explained to the person who runs the job; shown without a traceback."""


class BadInput(UserError):
    """A failure that comes again until a person changes what the job was given."""


class DamagedFile(UserError):
    """A file that is not what was once published under its name.

    Parameters
    ----------
    path : path
        The file.
    reason : str
        What is wrong with it.
    """

    def __init__(self, path: str | os.PathLike, reason: str):
        self.path = Path(path)
        self.reason = reason
        super().__init__(f"{path} is damaged: {reason}. It is made again by the next run.")
