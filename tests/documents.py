"""Reading README and docs: their blocks, and the form of what is printed.

A block of commands begins with the language sh. A second word there says why it is left out here,
one of `LEFT_OUT`. What commands print follows them in a block that begins with text printed, and is
compared in form: numbers and the width of blanks may differ, and a line of three dots stands for
any lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Why a block of commands is not run.
LEFT_OUT = {
    "bench": "takes minutes, and measures",
    "card": "needs a graphics card",
    "cluster": "needs several hosts",
    "night": "takes hours, or is for a night",
    "pip": "installs with pip, or needs what that installed: tests/test_package.py does it",
    "tests": "runs the tests themselves, or writes into the checkout",
    "web": "fetches from a place in the web that is not part of the example",
}
# What may stand behind the three marks, beside sh.
LANGUAGES = {"", "console", "ini", "json", "python", "text"}

_NUMBER = re.compile(r"[-+]?\d[\d,]*(\.\d+)?(e[+-]?\d+)?")


@dataclass(frozen=True)
class Block:
    """A block of a document: where it begins, what stands behind its marks, and its text."""

    document: str
    line: int
    language: str
    marks: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"

    @property
    def is_run(self) -> bool:
        return self.language == "sh" and not self.marks

    @property
    def is_printed(self) -> bool:
        return self.language == "text" and self.marks == ("printed",)


def blocks(path: Path, name: str) -> Iterator[Block]:
    """The blocks between marks of three backquotes in a document, in order."""
    begun: tuple[int, list[str]] | None = None
    lines: list[str] = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if begun is None:
            if line.lstrip().startswith("```"):
                begun, lines = (number, line.strip().removeprefix("```").split()), []
        elif line.strip() == "```":
            first, words = begun
            yield Block(name, first, "".join(words[:1]), tuple(words[1:]), "\n".join(lines) + "\n")
            begun = None
        else:
            lines.append(line)
    if begun is not None:
        raise AssertionError(f"{name}:{begun[0]}: a block that does not end")


def form(line: str) -> str:
    """A line without what may differ from machine to machine: its numbers and its blanks."""
    return " ".join(_NUMBER.sub("0", line).split())


def first_missing(printed: str, output: str) -> str | None:
    """The first line of a printed block whose form does not follow in the output, if any."""
    forms = iter([form(line) for line in output.splitlines()])
    for line in printed.splitlines():
        wanted = form(line)
        # Asking an iterator takes from it all that comes before what is found.
        if wanted not in ("", "...") and wanted not in forms:
            return line
    return None
