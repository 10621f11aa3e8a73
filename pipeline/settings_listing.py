"""All settings in force as a file of settings, each with its reason and where it comes from."""

from __future__ import annotations

import textwrap

from model.system import environment
from pipeline import settings

_WIDTH = 100


def listing(given: dict[tuple[str, str], tuple[str, str]]) -> str:
    """Every setting, its value, where that comes from, and its reason.

    Parameters
    ----------
    given : dict
        For the settings, by section and name, that an option of the command stands for: the
        option, and its value.

    Returns
    -------
    str
        What luigi.cfg could hold: read again, as a profile, it gives the same settings.
    """
    lines = ["# Each setting in force: why its default is as it is, where it was set, its value."]
    for section, described in settings.SETTINGS.items():
        values = settings.values(getattr(settings, section))
        lines += ["", f"[{section}]"]
        for name, setting in described.items():
            option, value = given.get((section, name), (None, values[name]))
            lines += _comment(setting.reason)
            lines += _comment("from " + (option or _place(section, name, value == setting.default)))
            lines.append(f"{name} = {_text(value)}".rstrip())
    for section, texts in settings.of_luigi().items():
        lines += ["", f"[{section}]"]
        for name, text in texts.items():
            lines += _comment(f"Luigi's own; from {_place(section, name)}")
            lines.append(f"{name} = {text}".rstrip())
    return "\n".join(lines) + "\n"


def _place(section: str, name: str, is_default: bool = False) -> str:
    place = settings.place(section, name)
    if place is None:
        return "the default"
    return place.replace(f"{environment.CHECKOUT}/", "") + (": the default" if is_default else "")


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# ",
                         break_long_words=False, break_on_hyphens=False)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
