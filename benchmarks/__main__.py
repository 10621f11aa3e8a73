"""Measure speed and memory: ``python -m benchmarks --help``; see docs/performance.md."""

from __future__ import annotations

from model.system import environment  # isort: skip

if __name__ == "__main__":
    environment.isolate("benchmarks")

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import tables
from benchmarks.breakdown import break_down
from benchmarks.checkpoints import time_checkpoints
from benchmarks.comparison import compare, compile_times
from benchmarks.extent import FULL, QUICK, THREADS
from benchmarks.growth import grow
from benchmarks.machine import conditions, machine
from benchmarks.plots import BenchmarkPlots
from benchmarks.preparation import time_files, time_preparation
from model.system.errors import UserError
from model.system.files import publish

SECTIONS = ("comparison", "breakdown", "compile", "growth", "preparation", "files",
            "checkpoints")


def main(arguments: list[str] | None = None) -> int:
    """Measure the sections asked for; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true",
                        help="tiny sizes, in a folder of their own: to see that it works")
    parser.add_argument("--only", choices=SECTIONS, help="measure one section")
    parser.add_argument("--corpus", type=Path,
                        help="text to prepare (default: a synthetic one)")
    options = parser.parse_args(arguments)
    folder = Path(environment.work_folder()) / "bench"
    if options.quick:
        folder /= "quick"
    try:
        if options.corpus is not None and not options.corpus.is_file():
            raise UserError(f"--corpus {options.corpus}: there is no such file")
        _measure(options, folder)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; finished sections are kept", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(folder / "scratch", ignore_errors=True)
    return 0


def _measure(options: argparse.Namespace, folder: Path) -> None:
    extent = QUICK if options.quick else FULL
    corpus = options.corpus.resolve() if options.corpus else None
    scratch = folder / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    measures: dict[str, Callable[[], dict]] = {
        "comparison": lambda: compare(extent, _say),
        "breakdown": lambda: break_down(extent, _say),
        "compile": lambda: compile_times(extent, scratch, _say),
        "growth": lambda: grow(extent, scratch, _say),
        "preparation": lambda: time_preparation(corpus, max(extent.corpora), extent.preparations,
                                                scratch, _say),
        "files": lambda: time_files(extent.files, scratch, _say),
        "checkpoints": lambda: time_checkpoints(extent.checkpoint_units, extent.vocabulary,
                                                scratch, _say),
    }
    here = machine()
    print(f"{tables.machine_table(here)}\n{THREADS} threads; load average "
          f"{os.getloadavg()[0]:.2f}\n", flush=True)
    if os.getloadavg()[0] > 0.5 and not options.quick:
        _say("other processes are at work on this machine: trust ratios alone")
    plots = BenchmarkPlots(folder)
    for section in (options.only,) if options.only else SECTIONS:
        _say(section)
        with conditions() as noted:
            result = measures[section]()
        _keep(folder / "bench.json", section,
              {"machine": here, "threads": THREADS, "conditions": noted, "result": result})
        print(f"{section} ({noted['started']}, {noted['minutes']} minutes, load average "
              f"{noted['load_before']} before and {noted['load_after']} after)\n"
              f"{getattr(tables, f'{section}_table')(result)}", flush=True)
        if section == "comparison":
            plots.comparison(result)
        elif section == "growth":
            plots.growth(result)
    print(f"All figures: {folder}/bench.json; plots beside it")


def _keep(path: Path, section: str, content: dict) -> None:
    """Put a section into the file of results, beside those of this and of earlier runs."""
    sections = json.loads(path.read_text()) if path.exists() else {}
    with publish(path) as temporary:
        temporary.write_text(json.dumps({**sections, section: content}, indent=1))


def _say(text: str) -> None:
    print(f"  ... {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
