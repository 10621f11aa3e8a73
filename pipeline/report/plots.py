"""The report's plots, as SVG: text stays text, and takes the colour of the page around it.

matplotlib is imported when a plot is made, not before: most of the job does without it.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import quoteattr

import numpy as np

from model.system.files import publish

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

_FIRST, _SECOND, _MARK = "#3b82c4", "#d9771e", "#8a8f98"  # readable on white and on black
_TEXT = "#010203"  # no colour to be seen: replaced by the page's own
# Small, so that a phone scales the text down but little.
_INCHES = (5.0, 3.1)
_INCHES_OF_BARS, _INCHES_OF_A_NUMBER = 2.2, 0.12
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "report", "font.size": 10, "axes.titlesize": 10,
    "text.color": _TEXT, "axes.edgecolor": _TEXT, "axes.labelcolor": _TEXT, "xtick.color": _TEXT,
    "ytick.color": _TEXT, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": _MARK, "grid.alpha": 0.3, "grid.linewidth": 0.5,
    "axes.axisbelow": True, "legend.frameon": False, "legend.fontsize": 9,
    "figure.constrained_layout.use": True, "lines.linewidth": 1.5,
}


class Plots:
    """A folder of plots.

    Parameters
    ----------
    folder : path or None
        Where each plot is saved as a file; None for no files.
    """

    def __init__(self, folder: Path | None):
        self.folder = folder

    @contextmanager
    def _axes(self, name: str, xlabel: str, ylabel: str, into: dict[str, str],
              inches: tuple[float, float] = _INCHES) -> Iterator[Axes]:
        import matplotlib
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(_STYLE)
            figure = Figure(figsize=inches)
            FigureCanvasSVG(figure)
            axes = figure.add_subplot(xlabel=xlabel, ylabel=ylabel)
            yield axes
            into[name] = self._save(figure, name, f"Plot: {ylabel} against {xlabel}")

    def _save(self, figure: Figure, name: str, described: str) -> str:
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True,
                       metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
        svg = buffer.getvalue().replace(_TEXT, "currentColor").replace(
            "<svg ", f'<svg role="img" aria-label={quoteattr(described)} ', 1)
        if self.folder is not None:
            with publish(self.folder / f"{name}.svg") as temporary:
                temporary.write_text(svg, encoding="utf-8")
        return svg[svg.index("<svg"):]

    def sentence_lengths(self, counts: dict[int, int]) -> dict[str, str]:
        """Sentences by their number of words; each length is a bucket of its own.

        The longest ones, less than a two-hundredth of all, are only named: one sentence of a
        thousand words would leave no room for the others.

        Parameters
        ----------
        counts : dict
            How many sentences there are of each length in words.
        """
        plots: dict[str, str] = {}
        lengths = np.array(sorted(counts))
        total = np.cumsum([counts[length] for length in lengths.tolist()])
        shown = int(np.searchsorted(total, 0.995 * total[-1])) + 1
        others = total[-1] - total[shown - 1]
        remark = (f"not shown: {others:,} sentence{'' if others == 1 else 's'}\n"
                  f"of up to {lengths[-1]:,} words" if others else "")
        lengths = lengths[:shown]
        heights = np.zeros(lengths[-1] - lengths[0] + 1)
        heights[lengths - lengths[0]] = [counts[length] for length in lengths.tolist()]
        edges = np.arange(lengths[0], lengths[-1] + 2) - 0.5
        with self._axes("sentence_lengths", "words in the sentence", "sentences", plots) as axes:
            axes.stairs(heights, edges, fill=True, color=_FIRST)
            axes.text(0.98, 0.95, remark, ha="right", va="top", transform=axes.transAxes)
            _thousands(axes.yaxis)
        return plots

    def coverage(self, sizes: np.ndarray, shares: np.ndarray, chosen: tuple[int, float]
                 ) -> dict[str, str]:
        """Share of the training tokens that vocabularies of growing size hold.

        Parameters
        ----------
        sizes : integer array (points,)
        shares : float array (points,)
            Of tokens, 0 to 1.
        chosen : (size, share)
            The vocabulary of this run.
        """
        plots: dict[str, str] = {}
        with self._axes("coverage", "vocabulary size (entries)", "training tokens covered (%)",
                        plots) as axes:
            axes.plot(sizes, 100 * shares, color=_FIRST)
            axes.axvline(chosen[0], color=_MARK, linestyle="--", linewidth=1,
                         label=f"chosen: {chosen[0]:,} entries, {chosen[1]:.1%}")
            axes.plot(chosen[0], 100 * chosen[1], "o", color=_SECOND)
            axes.set_xscale("log")
            axes.set_ylim(0, 102)
            _thousands(axes.xaxis)
            axes.legend(loc="upper left")
        return plots

    def learning(self, updates: Sequence[dict], validations: Sequence[dict]) -> dict[str, str]:
        """Perplexity over tokens and over time, the speed and the rate.

        Parameters
        ----------
        updates, validations : sequence of dict
            The entries of the training's log; `updates` not empty.
        """
        tokens, seconds, perplexity, speed, rate = _averages(updates)
        unit, name = _time_unit(max(seconds[-1], *(v["seconds"] for v in validations), 0)
                                if validations else seconds[-1])
        halvings = [(after["tokens"], after["seconds"] / unit)
                    for before, after in zip(validations, validations[1:])
                    if after["halvings"] > before["halvings"]]
        cooldown = _cooldown(updates)
        cooldowns = [(cooldown[0], cooldown[1] / unit)] if cooldown else []
        plots: dict[str, str] = {}
        for place, (plot, xlabel, x, key, scale) in enumerate((
                ("learning_tokens", "training tokens", tokens, "tokens", 1),
                ("learning_time", f"time ({name})", seconds / unit, "seconds", unit))):
            with self._axes(plot, xlabel, "perplexity", plots) as axes:
                axes.plot(x, perplexity, color=_FIRST, label="training", alpha=0.8,
                          marker="o" if len(x) == 1 else None)
                if validations:
                    axes.plot([v[key] / scale for v in validations],
                              [v["validation_perplexity"] for v in validations],
                              "o-", color=_SECOND, label="validation", markersize=4)
                _mark(axes, [halving[place] for halving in halvings], "rate halved")
                _mark(axes, [start[place] for start in cooldowns], "cooldown begins", ":")
                axes.set_yscale("log")
                _thousands(axes.yaxis, minor=True)
                if key == "tokens":
                    _engineering(axes.xaxis)
                axes.legend()
        with self._axes("speed", f"time ({name})", "tokens per second", plots) as axes:
            axes.plot(seconds / unit, speed, color=_FIRST, marker="o" if len(speed) == 1 else None)
            axes.set_ylim(0, None)
            _engineering(axes.yaxis)
        with self._axes("rate", "training tokens", "learning rate", plots) as axes:
            axes.plot(tokens, rate, color=_FIRST, marker="o" if len(rate) == 1 else None)
            _mark(axes, [halving[0] for halving in halvings], "rate halved")
            _mark(axes, [start[0] for start in cooldowns], "cooldown begins", ":")
            axes.set_ylim(0, None)
            _engineering(axes.xaxis)
            if halvings or cooldowns:
                axes.legend()
        return plots

    def bars(self, name: str, ylabel: str, rows: Sequence[dict], *,
             logarithmic: bool = False) -> dict[str, str]:
        """The perplexities of one model or two for each of some groups, from top to bottom.

        Parameters
        ----------
        name : str
            Of the plot.
        ylabel : str
        rows : sequence of dict
            From `model.breakdowns`.
        logarithmic : bool
            Of the axis of perplexities.
        """
        plots: dict[str, str] = {}
        models = list(rows[0]["perplexity"])
        height = 0.7 / len(models)
        # What is not finite is null in the metrics.
        largest = max((value for row in rows for value in row["perplexity"].values() if value),
                      default=1.0)
        xlabel = "perplexity (logarithmic)" if logarithmic else "perplexity"
        # Each number has a line of its own.
        tall = _INCHES[1] - _INCHES_OF_BARS + max(
            _INCHES_OF_BARS, _INCHES_OF_A_NUMBER * len(models) * len(rows) / 0.7)
        with self._axes(name, xlabel, ylabel, plots, (_INCHES[0], tall)) as axes:
            places = np.arange(len(rows))
            for number, (model, color) in enumerate(zip(models, (_FIRST, _SECOND))):
                at = places + (number - (len(models) - 1) / 2) * height
                values = [row["perplexity"][model] or 0 for row in rows]
                axes.barh(at, values, color=color, height=height,
                          label=model if model == "network" else "n-grams")
                for place, value in zip(at, values):
                    axes.annotate(f"{value:,.1f}" if value < 1000 else f"{value:,.0f}",
                                  (value, place), (4, 0), textcoords="offset points",
                                  va="center", fontsize=9 if len(models) == 1 else 7)
            if len(models) > 1:
                # Not among the bars, which leave no corner free.
                axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
            axes.set_yticks(places, [row["group"] for row in rows])
            axes.tick_params(axis="y", length=0)
            axes.invert_yaxis()
            axes.grid(False, axis="y")
            # Room at the right for the numbers.
            if logarithmic:
                axes.set_xscale("log")
                axes.set_xlim(1, max(largest, 1.1) ** 1.25)  # 1: perplexity of certainty
            else:
                axes.set_xlim(0, 1.2 * largest)
            _thousands(axes.xaxis)
        return plots

    def runs(self, found: Sequence[dict]) -> dict[str, str]:
        """Perplexity over the runs; a line joins those whose perplexities can be compared.

        Parameters
        ----------
        found : sequence of dict
            From `pipeline.history`, not empty, the oldest first.
        """
        from matplotlib.ticker import MaxNLocator

        plots: dict[str, str] = {}
        with self._axes("runs", "run", "perplexity", plots) as axes:
            for split, label, color in (("test", "test, with its 95% interval", _FIRST),
                                        ("valid", "validation", _SECOND)):
                named = label
                for of_text in joined(found, split):
                    places, values = zip(*((place, run[split][run["headline"]])
                                           for place, run in of_text))
                    axes.plot(places, values, "o-", color=color, label=named, markersize=4)
                    named = "_"  # once in the legend
                    if split == "test":
                        intervals = [(place, *run["interval"]) for place, run in of_text
                                     if run["interval"]]
                        if intervals:
                            axes.vlines(*zip(*intervals), color=color, alpha=0.5)
            axes.set_xlim(0.5, len(found) + 0.5)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            axes.legend()
        return plots


def joined(found: Sequence[dict], split: str) -> Iterator[list[tuple[int, dict]]]:
    """Runs with their numbers from 1, those together that follow each other on the same text."""
    numbered = [(place, run) for place, run in enumerate(found, 1)
                if run[split].get(run["headline"]) is not None]
    for _, group in itertools.groupby(
            numbered, key=lambda each: (each[1]["texts"][split], each[1]["headline"])):
        yield list(group)


def _averages(updates: Sequence[dict], points: int = 200) -> tuple[np.ndarray, ...]:
    """Updates as at most so many points: tokens and seconds so far, perplexity, speed, rate."""
    columns = {key: np.array([update[key] for update in updates], "float64")
               for key in ("tokens", "seconds", "loss", "tokens_per_second", "rate")}
    starts = np.linspace(0, len(updates), min(points, len(updates)), endpoint=False).astype(int)
    ends = np.append(starts[1:], len(updates)) - 1
    tokens = np.add.reduceat(columns["tokens"], starts)
    losses = np.add.reduceat(columns["tokens"] * columns["loss"], starts) / tokens
    times = np.add.reduceat(columns["tokens"] / columns["tokens_per_second"], starts)
    return (np.cumsum(tokens), columns["seconds"][ends], np.exp(np.minimum(losses, 50)),
            tokens / times, columns["rate"][ends])


def _time_unit(seconds: float) -> tuple[int, str]:
    return (1, "seconds") if seconds < 120 else (60, "minutes") if seconds < 7200 else (
        3600, "hours")


def _cooldown(updates: Sequence[dict]) -> tuple[int, float] | None:
    """Tokens and seconds until the rate began to fall little by little, if it did."""
    tokens = 0
    for before, after in zip(updates, updates[1:]):
        tokens += before["tokens"]
        if before["rate"] > after["rate"] > 0.5 * before["rate"]:
            return tokens, before["seconds"]
    return None


def _mark(axes: Axes, places: Sequence[float], label: str, linestyle: str = "--") -> None:
    for number, place in enumerate(places):
        axes.axvline(place, color=_MARK, linestyle=linestyle, linewidth=1.2,
                     label=label if number == 0 else None)


def _thousands(axis: Axis, minor: bool = False) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    formatter = FuncFormatter(lambda value, _: f"{value:,.0f}" if value == int(value) else "")
    axis.set_major_formatter(formatter)
    if minor:
        # A perplexity rarely spans powers of ten: 20, 50, 100, 200, ... are marked.
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_minor_formatter(NullFormatter())


def _engineering(axis: Axis) -> None:
    from matplotlib.ticker import EngFormatter

    axis.set_major_formatter(EngFormatter(sep=""))
