"""Measure speed and memory: ``python -m benchmarks --help``; see docs/performance.md."""

from __future__ import annotations

from model.system import environment  # isort: skip

if __name__ == "__main__":
    environment.isolate("benchmarks")

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from benchmarks import tables
from benchmarks.apply import time_apply
from benchmarks.breakdown import break_down
from benchmarks.card import find_card, time_card
from benchmarks.checkpoints import time_checkpoints
from benchmarks.comparison import compare, compile_times
from benchmarks.extent import FULL, QUICK, THREADS, Extent, ProcessesExtent
from benchmarks.growth import grow
from benchmarks.machine import busy_cores, conditions, machine
from benchmarks.preparation import time_files, time_preparation
from benchmarks.vocabularies import time_vocabularies
from model.configuration import AMOUNT, DEVICE
from model.system.errors import UserError
from model.system.files import publish

SECTIONS = ("comparison", "breakdown", "compile", "growth", "preparation", "files",
            "checkpoints", "looks", "corpora", "apply", "vocabularies", "processes", "card")


def main(arguments: list[str] | None = None) -> int:
    """Measure the sections asked for; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true",
                        help="tiny sizes, in a folder of their own: to see that it works")
    parser.add_argument("--only", choices=SECTIONS, help="measure one section")
    parser.add_argument("--corpus", type=Path,
                        help="text to prepare (default: a synthetic one)")
    parser.add_argument("--device", type=_device, metavar="DEVICE",
                        help="of the section card: cuda (the default), cuda:N for the card with "
                             "the number N, or torch-cpu (the default with --quick)")
    parser.add_argument("--units", type=_amount, metavar="N", nargs="+",
                        help="sizes of the section card: a part of it, whose figures are kept "
                             "beside those of the others")
    parser.add_argument("--sentences", type=_amount, metavar="N", nargs="+",
                        help="sizes of the section corpora (default: 1, 10 and 30 million)")
    options = parser.parse_args(arguments)
    if options.only != "corpora" and options.sentences:
        parser.error("--sentences is of the section corpora")
    if options.only not in (None, "card") and (options.device or options.units):
        parser.error("--device and --units are of the section card")
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


# These take the job's packages, which a machine with a card need not have.
def _time_looks(counts: Sequence[int], scratch: Path) -> dict:
    from benchmarks.looks import time_looks

    return time_looks(counts, scratch, _say)


def _time_processes(extent: ProcessesExtent) -> dict:
    from benchmarks.processes import time_processes

    return time_processes(extent, _say)


def _time_corpora(counts: Sequence[int], scratch: Path) -> dict:
    from benchmarks.corpora import time_corpora

    return time_corpora(counts, scratch, _say)


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
        "looks": lambda: _time_looks(extent.parts, scratch),
        "corpora": lambda: _time_corpora(options.sentences or extent.large_corpora, scratch),
        "apply": lambda: time_apply(extent, _say),
        "vocabularies": lambda: time_vocabularies(extent, scratch, _say),
        "checkpoints": lambda: time_checkpoints(extent.large_units, extent.vocabulary,
                                                scratch, _say),
        "processes": lambda: _time_processes(extent.processes),
    }
    here = machine()
    busy = busy_cores()
    print(f"{tables.machine_table(here)}\n{THREADS} threads; "
          f"{busy:.1f} cores at work on something else\n", flush=True)
    if busy > 0.2 and not options.quick:
        _say("other processes are at work on this machine: trust ratios alone")
    # The large corpora take hours, and a hundred gigabytes: they are asked for by name.
    usual = [section for section in SECTIONS if section != "corpora"]
    for section in (options.only,) if options.only else usual:
        _say(section)
        if section == "card":
            _measure_card(options, extent, here, folder / "bench.json")
            continue
        if section == "processes" and not options.only and find_spec("mpi4py") is None:
            print("processes: left out: MPI is not installed ('make bench' does)\n", flush=True)
            continue
        with conditions() as noted:
            result = measures[section]()
        _keep(folder / "bench.json", section,
              {"machine": here, "threads": THREADS, "conditions": noted, "result": result})
        print(f"{section} ({noted['started']}, {noted['minutes']} minutes, load average "
              f"{noted['load_before']} before and {noted['load_after']} after)\n"
              f"{getattr(tables, f'{section}_table')(result)}", flush=True)
        if section in ("comparison", "growth"):
            # Imported here: it brings packages that the section card does without.
            from benchmarks.plots import BenchmarkPlots

            getattr(BenchmarkPlots(folder), section)(result)
    print(f"All figures: {folder}/bench.json; plots beside it")


def _measure_card(options: argparse.Namespace, extent: Extent, here: dict, path: Path) -> None:
    """Measure each size and precision, and keep it at once: a card may be had for minutes."""
    device = options.device or ("torch-cpu" if options.quick else "cuda")
    try:
        found = find_card(device)
    except UserError as error:
        if options.only:
            raise
        print(f"card: left out: {error}\n", flush=True)
        return
    pieces: list[dict] = []
    try:
        for precision in found["precisions"]:
            for units in options.units or extent.card.units:
                name = f"{device}, {units} units, {precision}"
                _say(name)
                with conditions() as noted:
                    piece = time_card(units, precision, device, extent.card, extent.pause)
                _keep(path, "card", {**_kept(path).get("card", {}), name: {
                    "machine": here, "device": found, "conditions": noted, "result": piece}})
                pieces.append(piece)
    finally:
        if pieces:
            print(f"card\n{tables.card_table({'device': found, 'pieces': pieces})}", flush=True)


def _kept(path: Path) -> dict:
    """The sections of earlier runs, and what this one has measured."""
    return json.loads(path.read_text()) if path.exists() else {}


def _keep(path: Path, section: str, content: dict) -> None:
    """Put a section into the file of results, beside those of this and of earlier runs."""
    sections = _kept(path)
    with publish(path) as temporary:
        temporary.write_text(json.dumps({**sections, section: content}, indent=1))


def _device(text: str) -> str:
    if text == "cpu" or not DEVICE.allows(text):
        raise argparse.ArgumentTypeError(f"{text}: it must be cuda, cuda:N or torch-cpu")
    return text


def _amount(text: str) -> int:
    try:
        return AMOUNT.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error}") from None


def _say(text: str) -> None:
    print(f"  ... {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
