"""Lists of hypotheses, the n best of a recogniser or translator, in the forms that these write.

- ``kaldi``: ``id-N word word ...``, as nbest-to-linear writes transcriptions; what stands before
  the last hyphen names the list. Costs come in files of their own, ``id-N cost`` in the same order.
- ``moses``: ``id ||| word word ... ||| name: value ... name= value ... ||| total``, as ``moses
  -n-best-list`` writes them; more fields, as of alignments, may follow. Of a feature with several
  values these are NAME.1, NAME.2 and so on.
- ``tsv``: a line of names first, ``id`` and ``text`` among them.
- ``json``: an object a line, with ``id`` and ``text``.

Hypotheses of one list follow each other.

References
----------
Kaldi: https://kaldi-asr.org/doc/nbest-to-linear_8cc.html and, for the names,
https://kaldi-asr.org/doc/nbest-to-lattice_8cc_source.html. Moses:
http://www2.statmt.org/moses/?n=Advanced.Search, Generating n-Best Lists.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from ..system.errors import UserError
from ..system.files import to_json
from ..system.terminal import one_line

FORMATS = ("kaldi", "moses", "tsv", "json")
# Under these names the scores of Moses's last field and of the results are known.
TOTAL, OF_MODEL, COMBINED = "total", "model", "combined"

_MOSES_FIELDS = 4
_FEATURE = re.compile(r"(\S+)[:=]")


@dataclass(frozen=True)
class Hypothesis:
    """One of a list.

    Parameters
    ----------
    file : str
        What errors call it.
    number : int
        Of its line.
    list_id : str
        Of its list.
    name : str
        Its own: that of the list and its number there, where the format has one.
    text : str
        Its words.
    fields : dict or list
        All that its line holds, as it stands there.
    scores : dict
        Of the scores that it was given the texts or numbers, by name.
    """

    file: str
    number: int
    list_id: str
    name: str
    text: str
    fields: Mapping | list
    scores: Mapping

    @property
    def place(self) -> str:
        """File and line."""
        return f"{self.file}, line {self.number}"

    def score(self, name: str) -> float:
        """One of its scores; UserError where it has none of that name, or no number."""
        if name not in self.scores:
            there = ", ".join(map(str, self.scores)) or "none"
            raise UserError(f"{self.place}: there is no score {name}; it has: {there}.")
        try:
            value = float(self.scores[name])
        except (TypeError, ValueError):
            value = math.nan
        if not math.isfinite(value):
            raise UserError(f"{self.place}: the score {name} is {self.scores[name]!r}, which is "
                            "no number.")
        return value


class Ranked(NamedTuple):
    """A hypothesis with the model's log-probability, and with the combined score."""

    hypothesis: Hypothesis
    of_model: float
    combined: float


class NBestLists:
    """Hypotheses as they are read, and as they are written again.

    Parameters
    ----------
    lines : iterator of (int, str)
        Numbers and lines.
    name : str
        What errors call the file.
    form : str, optional
        One of `FORMATS`; without it the first line tells.
    costs : dict
        Of Kaldi's files of costs, by the name of the score: what errors call the file, and the
        numbers and lines. The score is the cost with the other sign.

    Raises
    ------
    UserError
        On a line that is not of the form; names it. Also while the hypotheses are gone through.
    """

    def __init__(self, lines: Iterator[tuple[int, str]], name: str, form: str | None = None,
                 costs: Mapping[str, tuple[str, Iterator[tuple[int, str]]]] | None = None):
        self._name, self._costs = name, costs or {}
        first = next(lines, None)
        self.form = form or _form_of(first[1] if first else "")
        if self._costs and self.form != "kaldi":
            raise UserError(f"files of costs belong to Kaldi's lists, and {name} is read as "
                            f"{self.form}")
        self._columns: list[str] = []
        if self.form == "tsv" and first:
            self._columns, first = _columns(first[1], (name, first[0])), None
        self._lines = itertools.chain([first] if first else [], lines)

    def __iter__(self) -> Iterator[Hypothesis]:
        for number, line in self._lines:
            place = self._name, number
            if self.form == "tsv":
                yield _tsv(line, place, self._columns)
            elif self.form == "kaldi":
                found = _kaldi(line, place)
                yield replace(found, scores={score: _cost(found, *costs)
                                             for score, costs in self._costs.items()})
            else:
                yield (_moses if self.form == "moses" else _json)(line, place)
        for file, rest in self._costs.values():
            for number, _ in rest:
                raise UserError(f"{file}, line {number}: {self._name} has no more hypotheses.")

    def header(self) -> str | None:
        """The line that goes before all others, if one does."""
        return "\t".join([*self._columns, OF_MODEL, COMBINED]) if self.form == "tsv" else None

    def line(self, ranked: Ranked, only_best: bool) -> str:
        """A hypothesis in the format of the list, with the new scores where that has room."""
        hypothesis, of_model, combined = ranked
        fields = hypothesis.fields
        if isinstance(fields, Mapping):
            return to_json({**fields, OF_MODEL: of_model, COMBINED: combined}, ensure_ascii=False)
        if self.form == "tsv":
            return "\t".join([*fields, f"{of_model:.4f}", f"{combined:.4f}"])
        if self.form == "moses":
            features = f"{fields[2]} {OF_MODEL}= {of_model:.4f}".strip()
            return " ||| ".join([*fields[:2], features, f"{combined:.4f}", *fields[4:]])
        return f"{hypothesis.list_id if only_best else hypothesis.name} {hypothesis.text}".strip()


_Place = tuple[str, int]  # file and line


def _form_of(line: str) -> str:
    if line.lstrip().startswith("{"):
        return "json"
    if "|||" in line:
        return "moses"
    return "tsv" if "\t" in line and {"id", "text"} <= {*line.split("\t")} else "kaldi"


def _kaldi(line: str, place: _Place) -> Hypothesis:
    name, _, text = line.strip().partition(" ")
    if "\t" in name:
        name, _, text = line.strip().partition("\t")
    list_id, _, number = name.rpartition("-")
    if not list_id or not (number.isascii() and number.isdigit()):
        raise _fault(place, f"{_beginning(line)} does not begin with the name of a hypothesis, "
                            "as utterance-1. Is it another format (--format)?")
    return Hypothesis(*place, list_id, name, text.strip(), [], {})


def _cost(hypothesis: Hypothesis, file: str, lines: Iterator[tuple[int, str]]) -> float:
    number, line = next(lines, (0, ""))
    if not number:
        raise UserError(f"{file}: it has no line for {hypothesis.name}, which stands in "
                        f"{hypothesis.place}.")
    name, _, text = line.strip().partition(" ")
    if name != hypothesis.name:
        raise UserError(f"{file}, line {number}: the cost of {hypothesis.name} is wanted, which "
                        f"stands in {hypothesis.place}, and not of {one_line(name)}: both files "
                        "must have the same order.")
    try:
        return -float(text)
    except ValueError:
        raise UserError(f"{file}, line {number}: {_beginning(text)} is no cost.") from None


def _moses(line: str, place: _Place) -> Hypothesis:
    fields = [field.strip() for field in line.split("|||")]
    if len(fields) < _MOSES_FIELDS or not fields[0]:
        raise _fault(place, f"{_beginning(line)} is not id ||| hypothesis ||| features ||| "
                            "total.")
    features: dict[str, list[str]] = {}
    for word in fields[2].split():
        if feature := _FEATURE.fullmatch(word):
            values = features.setdefault(feature[1], [])
        elif not features:
            raise _fault(place, f"the feature {_beginning(word)} has no name.")
        else:
            values.append(word)
    scores = {f"{name}.{number}" if len(values) > 1 else name: value
              for name, values in features.items() for number, value in enumerate(values, 1)}
    return Hypothesis(*place, fields[0], fields[0], fields[1], fields,
                      {**scores, TOTAL: fields[3]})


def _columns(line: str, place: _Place) -> list[str]:
    names = line.split("\t")
    for wanted in ("id", "text"):
        if names.count(wanted) != 1:
            raise _fault(place, f"the names of the columns must hold {wanted} once, with tabs "
                                "between them.")
    return names


def _tsv(line: str, place: _Place, names: list[str]) -> Hypothesis:
    fields = line.split("\t")
    if len(fields) != len(names):
        raise _fault(place, f"it has {len(fields)} columns, and the first line names "
                            f"{len(names)}.")
    row = dict(zip(names, fields))
    name, text = row.pop("id"), row.pop("text")
    return Hypothesis(*place, name, name, text, fields, row)


def _json(line: str, place: _Place) -> Hypothesis:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _fault(place, f"it is no JSON: {error}.") from None
    if not isinstance(row, dict) or not isinstance(row.get("text"), str) or not isinstance(
            row.get("id"), (str, int)):
        raise _fault(place, "it is no object with id, a string or whole number, and text, a "
                            "string.")
    scores = {name: value for name, value in row.items()
              if isinstance(value, (int, float)) and name != "id"}
    return Hypothesis(*place, str(row["id"]), str(row["id"]), row["text"], row, scores)


def _fault(place: _Place, what: str) -> UserError:
    file, number = place
    return UserError(f"{file}, line {number}: {what}")


def _beginning(text: str) -> str:
    return repr(one_line(text[:40]))
