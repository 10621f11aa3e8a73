"""Training by two processes beside one, and the sum that it costs, by itself."""

from __future__ import annotations

import functools
import json
import math
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict

import numpy as np

from benchmarks.extent import ProcessesExtent
from benchmarks.workers import REPOSITORY
from model.data.batches import MicroBatch
from model.slots import deal
from model.system import environment
from model.system.errors import UserError
from pipeline.model_process import Launch

COUNTS = (1, 2)
HOSTS = (2, 4, 8, 16)
# Bytes a second between two hosts.
NETWORKS = {"1 Gbit": 0.125e9, "10 Gbit": 1.25e9, "100 Gbit": 12.5e9}
# Windows of which the balance is taken, and micro-batches of each: those of the profile reference.
_WINDOWS = 200
_OF_REFERENCE = 32


def time_processes(extent: ProcessesExtent, say: Callable[[str], None]) -> dict:
    """Time updates by one and by two processes of this machine, with one thread each.

    Parameters
    ----------
    extent : ProcessesExtent
    say : function
        Told what is done.

    Returns
    -------
    dict
        "extent"; "sizes", for each number of units "units", "sentences", "megabytes" of the sums,
        the "speedup" of two processes, and for "1" and "2" processes medians: "tokens_per_second",
        and of an update the "seconds", those of "accumulate", "sum" and "apply"; and for two the
        "sum_rate" and "allreduce_rate", in bytes per second, and the "meeting" of both in seconds;
        "balance", for numbers of hosts the mean load over the largest; and in each size
        "efficiency", by network and number of hosts, see `efficiency`.
    """
    balances = {count: balance(extent, count) for count in HOSTS if extent.slots % count == 0}
    sizes = []
    for units, sentences in zip(extent.units, extent.sentences):
        turns: dict[int, list[dict]] = {count: [] for count in COUNTS}
        for turn in range(extent.turns):
            for count in COUNTS:
                say(f"{units:,} units, {count} processes, {turn + 1} of {extent.turns}")
                turns[count].append(_time({**asdict(extent), "units": units,
                                           "sentences": sentences}, count))
        medians = {str(count): {name: statistics.median(each[name] for each in found)
                                for name in found[0]} for count, found in turns.items()}
        rates = [medians[str(count)]["tokens_per_second"] for count in COUNTS]
        sizes.append({"units": units, "sentences": sentences,
                      "megabytes": medians["2"].pop("bytes") / 1e6,
                      "speedup": rates[1] / rates[0], **medians})
        medians["1"].pop("bytes")
        sizes[-1]["efficiency"] = {
            name: {str(count): efficiency(sizes[-1], count, balances[count], rate)
                   for count in balances} for name, rate in NETWORKS.items()}
    return {"extent": asdict(extent), "balance": {str(c): b for c, b in balances.items()},
            "sizes": sizes}


def efficiency(size: dict, count: int, balanced: float, network: float) -> float:
    """What share of its time a host spends on what one host alone would do: docs/clusters.md.

    Parameters
    ----------
    size : dict
        One of the "sizes" of `time_processes`.
    count : int
        Hosts.
    balanced : float
        See `balance`.
    network : float
        Bytes a second between two of them.
    """
    gradients, update = size["1"]["accumulate"], size["1"]["apply"]
    rate = 1 / (1 / network + 1 / size["2"]["sum_rate"])
    seconds = (gradients / (count * balanced) + update
               + 2 * (1 - 1 / count) * size["megabytes"] * 1e6 / rate
               + size["2"]["meeting"] * math.log2(count))
    return (gradients + update) / (count * seconds)


def balance(extent: ProcessesExtent, count: int) -> float:
    """The mean tokens of a process over the most, of windows of random lengths."""
    random, found = np.random.default_rng(1), []
    job = {**asdict(extent), "sentences": _OF_REFERENCE * extent.micro_batch}
    for _ in range(_WINDOWS):
        batches = window(job, random)
        dealt = deal(batches, extent.slots)
        each = extent.slots // count
        loads = [sum(batches[place].inputs.size for slot in dealt[first:first + each]
                     for place in slot) for first in range(0, extent.slots, each)]
        found.append(statistics.mean(loads) / max(loads))
    return statistics.mean(found)


def _time(job: dict, count: int) -> dict:
    launch = Launch("mpiexec -n {processes}", count, 600.0)
    command = [*launch.words(), sys.executable, "-m", "benchmarks.processes", json.dumps(job),
               str(count)]
    variables = {**os.environ, "PIPELINE_WORK": environment.work_folder(),
                 "PIPELINE_ENVIRONMENT": "keep", "OMP_NUM_THREADS": "1",
                 "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=REPOSITORY, env=variables, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise UserError(f"{shlex.join(command[:4])} ended with exit code {done.returncode}; its "
                        "messages are above")
    return json.loads(done.stdout)


def window(job: dict, random: np.random.Generator) -> list[MicroBatch]:
    """Micro-batches of random words, each of one length."""
    shortest, longest = job["steps"]
    found = []
    for _ in range(-(-job["sentences"] // job["micro_batch"])):
        shape = (2, job["micro_batch"], int(random.integers(shortest, longest + 1)))
        found.append(MicroBatch(*random.integers(0, job["vocabulary"], shape).astype("int32")))
    return found


def main(job: dict, count: int) -> None:
    """Time one process of several, or one alone; the first prints what was found as JSON."""
    from model.mpi import Processes

    processes = Processes(count, 600.0)
    processes.meet()

    from model.configuration import NetworkConfig, TrainingConfig
    from model.engine import open_device
    from model.slots import PairwiseSums
    from model.trainer import Trainer

    config = TrainingConfig(
        optimiser="adagrad", rate=0.005, window=job["sentences"], denominator="sentences",
        micro_batch_sentences=job["micro_batch"], micro_batch_tokens=8192, max_epochs=1,
        max_minutes=0, cooldown=0, validations_per_epoch=1, patience=1, shards_in_memory=1,
        seed=1, slots=job["slots"])
    trainer = Trainer(NetworkConfig(job["units"]), config, job["vocabulary"], open_device("cpu"))
    batches = window(job, np.random.default_rng(1))
    own = processes.own(deal(batches, config.slots))

    def accumulate() -> None:
        sums = PairwiseSums(trainer, len(own))
        for slot in own:
            for place in slot:
                trainer.accumulate(batches[place].inputs, batches[place].targets, update=0,
                                   sentence=0)
            sums.end_slot()

    steps: dict[str, Callable[[], object]] = {
        "accumulate": accumulate, "sum": functools.partial(processes.add_up, trainer),
        "apply": functools.partial(trainer.apply, config.rate)}
    for step in steps.values():  # caches and memory are cold
        step()
    processes.begin()
    seconds, updates, started = dict.fromkeys(steps, 0.0), 0, time.perf_counter()
    while processes.of_first(time.perf_counter() - started < job["seconds"]):
        for name, step in steps.items():
            before = time.perf_counter()
            step()
            seconds[name] += time.perf_counter() - before
        updates += 1
    elapsed = (time.perf_counter() - started) / updates
    sums = trainer.sums()
    size = sum(each.nbytes for each in sums)
    found = {"tokens_per_second": sum(batch.inputs.size for batch in batches) / elapsed,
             "seconds": elapsed, **{name: each / updates for name, each in seconds.items()},
             "bytes": size}
    if count > 1:
        found |= _rates(processes, trainer, size)
    if processes.is_first:
        print(json.dumps(found))
    processes.finish()


def _rates(processes, trainer, size: int) -> dict[str, float]:
    """Bytes per second of our sum and of MPI's own; seconds in which all meet."""
    from mpi4py import MPI

    def allreduce() -> None:
        for each in trainer.sums():
            MPI.COMM_WORLD.Allreduce(MPI.IN_PLACE, each)

    rates = {}
    for name, add in (("sum_rate", lambda: processes.add_up(trainer)),
                      ("allreduce_rate", allreduce)):
        times = []
        for _ in range(6):
            MPI.COMM_WORLD.Barrier()
            started = time.perf_counter()
            add()
            times.append(time.perf_counter() - started)
        rates[name] = size / statistics.median(times[1:])
    meetings = []
    for _ in range(50):
        started = time.perf_counter()
        processes.begin()
        meetings.append(time.perf_counter() - started)
    return {**rates, "meeting": statistics.median(meetings)}


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), int(sys.argv[2]))
