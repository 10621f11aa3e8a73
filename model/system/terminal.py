"""The terminal, or what stands in its place: nothing that is printed can steer it."""

from __future__ import annotations

import io
import re
import sys
from typing import Any

# Control characters but tab and line feed steer terminals (ECMA-48, section 5). Those with
# Unicode's property Bidi_Control change the order in which a line is seen (Unicode Standard Annex
# 9), and U+2028 and U+2029 end it.
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    r"""A text with the characters that steer a terminal as ``\uXXXX``, which JSON reads too.

    Names of files, words of a checkpoint and what other programs answer may hold such characters.
    """
    return _STEERING.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def one_line(text: object) -> str:
    r"""A text, such as a file's name, on one line and in valid Unicode; all else as in ``\n``."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1]
                   for character in str(text))


class _Printable(io.TextIOWrapper):
    def write(self, text: str, /) -> int:
        return super().write(printable(text))


class _Forgetful(io.FileIO):
    """Takes what cannot be written any more, and forgets it."""

    def write(self, content: Any, /) -> int:
        try:
            return super().write(content)
        except OSError:
            return len(content)


def guard_output(*, needed: bool) -> None:
    """Make standard output and standard error safe to print anything to, as UTF-8.

    What steers a terminal is escaped. Where the terminal was closed, or nobody reads a pipe to its
    end, what goes there is forgotten, and the program goes on.

    Parameters
    ----------
    needed : bool
        Whether standard output is what the program is for: then a failure there remains an
        OSError.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            continue  # it was closed from the beginning
        kind = io.FileIO if needed and name == "stdout" else _Forgetful
        raw = kind(stream.fileno(), "w", closefd=False)
        setattr(sys, name, _Printable(
            io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace",
            # What was not buffered at all (PYTHONUNBUFFERED) has each line written at once, too.
            line_buffering=stream.line_buffering or stream.write_through))
