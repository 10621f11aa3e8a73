"""Kills of a training of several processes: of these, of what started them, and of Luigi.

``python -m tests.pipeline.kills [COUNT [SEED]]`` kills a job that often (30), at random moments and
in random places, each time resumed by another number of processes, and compares what it has made in
the end with what one process made without a kill. Ends with an error where something differs, is
left running, or takes longer than a minute to end.
"""

import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.jobs import Job, children, results

VICTIMS = ("rank", "launcher", "proxy", "luigi", "task")
# Updates that a training makes between two kills, at most.
MOST_UPDATES = 20
# Seconds in which all has to end.
LONGEST_END = 60


def killed_job(folder, epochs):
    """A job whose training writes a checkpoint at each update."""
    job = Job(folder, train=200)
    job.set("training", slots=4, max_epochs=epochs, checkpoint_minutes=0)
    return job


def updates(job):
    logs = list(job.work.glob("models/*/log.jsonl"))
    return logs[0].read_bytes().count(b"gradient_norm") if logs else 0


def ranks(found):
    return [number for number, command in found.items() if b" --longest-wait " in command
            and b"mpiexec" not in command and b"hydra_pmi_proxy" not in command]


def kill_in(job, victim, processes, after, choice=random):
    """Run a job, and kill one of its processes so many updates later; its output and how long.

    The number of seconds is that until all have ended. None where the job had ended before.
    """
    before = updates(job)
    process = job.start("run", "--scheduler", "local", "--processes", str(processes))
    deadline = time.monotonic() + 300
    while updates(job) < before + after:
        if process.poll() is not None:
            output = process.communicate()[0]
            assert process.returncode == 0, output
            return None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    found = children(process.pid)
    by_name = {
        "rank": ranks(found), "luigi": [process.pid],
        "launcher": [number for number, command in found.items() if b"bin/mpiexec " in command],
        "proxy": [number for number, command in found.items() if b"hydra_pmi_proxy" in command]}
    # Luigi's process for the task: the launcher's parent.
    by_name["task"] = [int(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1])
                       for number in by_name["launcher"]]
    assert len(by_name["rank"]) == processes and len(by_name["launcher"]) == 1, found
    os.kill(choice.choice(by_name[victim]), signal.SIGKILL)
    killed = time.monotonic()
    output = process.communicate(timeout=LONGEST_END)[0]
    while any(_runs(number) for number in found):
        assert time.monotonic() - killed < LONGEST_END, "processes are left"
        time.sleep(0.05)
    assert process.returncode != 0
    assert not list(job.work.glob("models/*/model.h5")), "a model was published"
    return output, time.monotonic() - killed


def _runs(number):
    try:
        return ") Z" not in Path(f"/proc/{number}/stat").read_text()
    except OSError:
        return False


def main(count=30, seed=1):
    choice = random.Random(seed)
    with tempfile.TemporaryDirectory() as scratch:
        job = killed_job(Path(scratch), epochs=30)
        job.work = Path(scratch) / "uninterrupted"
        job.run_local()
        expected, total = results(job.work), updates(job)
        print(f"{total} updates without a kill", flush=True)
        kills, chain, slowest = 0, 0, 0.0
        while kills < count:
            chain += 1
            job.work = Path(scratch) / f"chain{chain}"
            while kills < count:
                victim, processes = choice.choice(VICTIMS), choice.choice((2, 4))
                after = choice.randint(1, MOST_UPDATES)
                if updates(job) + after >= total:
                    break
                ended = kill_in(job, victim, processes, after, choice)
                if ended is None:
                    break
                kills, slowest = kills + 1, max(slowest, ended[1])
                print(f"kill {kills}: {victim} of {processes} processes, at update {updates(job)}, "
                      f"all ended {ended[1]:.1f} s later", flush=True)
            job.run_local()
            assert results(job.work) == expected, f"chain {chain} ended otherwise"
            print(f"chain {chain} has ended with the bytes of the uninterrupted job", flush=True)
    print(f"{kills} kills; all processes had ended {slowest:.1f} s after one at the latest")


if __name__ == "__main__":
    os.environ["PIPELINE_WORK"] = os.environ.get("PIPELINE_WORK") or "data/test-work"
    main(*map(int, sys.argv[1:]))
