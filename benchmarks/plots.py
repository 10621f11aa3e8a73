"""The plots of the benchmarks, in the style of the report's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.report.plots import Plots

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {"fused": "#3b82c4", "lookup-scan": "#7fb2de", "dense-scan": "#b9bec7",
            "torch-one-hot": "#d9771e", "torch-embedding": "#edb98a"}
_FIRST, _SECOND = _COLOURS["fused"], _COLOURS["torch-one-hot"]


class BenchmarkPlots(Plots):
    """Plots of the sections of bench.json, saved in a folder."""

    def comparison(self, result: dict) -> None:
        """Tokens per second, and the share of sgemm's rate, of each contender on each shape."""
        self._bars("tokens_per_second", "tokens per second", result, "tokens_per_second", 1,
                   logarithmic=True)
        self._bars("share_of_sgemm", "share of the rate of sgemm (%)", result, "share_of_sgemm",
                   100)

    def _bars(self, name: str, ylabel: str, result: dict, key: str, scale: float,
              logarithmic: bool = False) -> None:
        shapes, contenders = result["shapes"], result["contenders"]
        places, width = np.arange(len(shapes)), 0.8 / len(contenders)
        with self._axes(name, "units (above) and sentences", ylabel, {}) as axes:
            for number, contender in enumerate(contenders):
                axes.bar(places + (number - (len(contenders) - 1) / 2) * width,
                         [scale * shape["results"][contender][key] for shape in shapes], width,
                         color=_COLOURS[contender], label=contender)
            axes.set_xticks(places, [f"{shape['units']}\n{shape['sentences']}"
                                     for shape in shapes])
            axes.grid(False, axis="x")
            if logarithmic:
                _logarithmic(axes)
            axes.legend(ncols=2, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1))

    def growth(self, result: dict) -> None:
        """Speed by the size of the network and of the micro-batch; cost by that of the corpus."""
        for name, xlabel in (("units", "units"), ("sentences", "sentences in the micro-batch"),
                             ("steps", "steps of a sentence")):
            points = result[name]
            self._lines(f"growth_{name}", xlabel, "tokens per second", [p[name] for p in points],
                        {"": [p["tokens_per_second"] for p in points]})
        points = result["corpus"]
        sentences = [p["sentences"] for p in points]
        self._lines("growth_corpus_seconds", "sentences of the corpus", "seconds to prepare",
                    sentences, {"": [p["preparation_seconds"] for p in points]})
        self._lines("growth_corpus_memory", "sentences of the corpus", "peak memory (MB)",
                    sentences, {"preparing": [p["preparation_peak_memory_mb"] for p in points],
                                "training": [p["training_peak_memory_mb"] for p in points]},
                    logarithmic=False)

    def _lines(self, name: str, xlabel: str, ylabel: str, x: Sequence[float],
               lines: dict[str, list[float]], logarithmic: bool = True) -> None:
        with self._axes(name, xlabel, ylabel, {}) as axes:
            for (label, y), colour in zip(lines.items(), (_FIRST, _SECOND)):
                axes.plot(x, y, "o-", color=colour, label=label, markersize=4)
            axes.set_xscale("log")
            axes.set_xticks(x, [f"{value:,}" for value in x], minor=False)
            axes.minorticks_off()
            if logarithmic:
                _logarithmic(axes)
            else:
                axes.set_ylim(0, None)
            if len(lines) > 1:
                axes.legend()


def _logarithmic(axes: Axes) -> None:
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    axes.yaxis.set_minor_formatter(NullFormatter())
