"""Tiny jobs for the tests of the pipeline: a corpus, settings, and a working folder."""

import contextlib
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import luigi
import numpy as np

from model.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from model.data.vocabulary import read_vocabulary
from model.lineage import TrainingText
from model.system.files import digest_file
from pipeline import settings, tasks
from pipeline.artifacts import fingerprint
from pipeline.stage import faults

REPOSITORY = Path(__file__).resolve().parents[1]

SETTINGS = {
    "core": {"no_configure_logging": "true"},
    # A network of four units may be much worse than the one before.
    "run": {"tolerance": "1000"},
    "corpus": {"sentences_per_part": "50"},
    "vocabulary": {"size": "60"},
    "network": {"num_units": "4", "dropout": "0.1"},
    "training": {"window": "16", "micro_batch_sentences": "8", "max_epochs": "2",
                 "max_minutes": "0", "validations_per_epoch": "2", "shards_in_memory": "2",
                 "checkpoint_minutes": "0"},
}


def sentences(count, seed=1, words=80):
    """Distinct sentences over an alphabet of words, the first ones most frequent."""
    random = np.random.default_rng(seed)
    shares = 1 / np.arange(1, words + 1)
    found = {}
    while len(found) < count:
        chosen = random.choice(words, size=random.integers(3, 12), p=shares / shares.sum())
        found[" ".join(f"word{n:02d}" for n in chosen)] = None
    return list(found)


def reset_settings():
    """Luigi's settings in this process as luigi.cfg has them, and nothing else."""
    config = luigi.configuration.get_config()
    config.clear()
    config.read(REPOSITORY / "luigi.cfg")
    settings._values.cache_clear()
    return config


def write(path, lines):
    path.write_text("".join(f"{line}\n" for line in lines))
    # Written long ago: a file that is still warm is not taken from the cache of digests.
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns - 10**10))


def by_part(reasons):
    """Reasons by title; a title of several parts ("EncodePart train 1-2, valid 1") by each part."""
    single = {}
    for title, reason in reasons.items():
        family, _, places = title.partition(" ")
        if not places:
            single[family] = reason
        for split, numbers in re.findall(r"(train|valid|test) ([-, 0-9]+)", places):
            for first, last in re.findall(r"(\d+)(?:-(\d+))?", numbers):
                for number in range(int(first), int(last or first) + 1):
                    single[f"{family} {split} {number}"] = reason
    return single


def pretend(command, job, job_file, say, launch=None):
    """In place of the model's commands: the files they leave, made of what they were given."""
    job_file.parent.mkdir(parents=True, exist_ok=True)
    job_file.write_text(json.dumps(job))
    if command == "train":
        content = {key: job[key] for key in ("network", "training")}
        content["train_shards"] = [Path(path).name for path in job["train_shards"]]
        content["previous"] = job["previous"] and digest_file(Path(job["previous"]))
        folder, ancestry, ancestors_text = Path(job["folder"]), [], None
        if job["previous"]:
            parent = read_checkpoint(job["previous"])
            ancestry = [{"model": digest_file(Path(job["previous"]))}, *parent.ancestry]
            ancestors_text = parent.seen_text
        write_checkpoint(folder / "model.h5", Checkpoint(
            parameters={}, optimiser=[], vocabulary=read_vocabulary(job["vocabulary"]),
            settings={"job": fingerprint(content)}, position={}, ancestry=ancestry,
            text=TrainingText(**job["text"]), ancestors_text=ancestors_text))
        (folder / "log.jsonl").write_text(json.dumps(
            {"update": 1, "epoch": 0, "sentences": 1, "tokens": 1, "loss": 1.0,
             "gradient_norm": 1.0, "rate": 1.0, "seconds": 1.0, "tokens_per_second": 1.0}) + "\n")
        return {"device": job["device"], "precision": job["training"]["precision"]}
    if command == "evaluate":
        figures = {split: {"perplexity": 2.0} for split in job["sets"]}
        Path(job["output"]).parent.mkdir(exist_ok=True)
        Path(job["output"]).write_text(json.dumps({
            "sets": figures, "baselines": {}, "mixture": {
                "baseline": None, "network_weight": 0.5},
            "breakdowns": {},
            "confidence": {"interval": None, "baseline": None, "last_run": None}}))
    return {}


class Job:
    """A corpus of three files with settings for a tiny run, and its working folder."""

    def __init__(self, folder, train=600):
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.work = folder / "work"
        self.train, self.valid, self.test = (folder / f"{name}.txt"
                                             for name in ("train", "valid", "test"))
        self.lines = sentences(train)
        write(self.train, self.lines)
        write(self.valid, sentences(60, seed=2))
        write(self.test, sentences(60, seed=3))
        self.settings = {section: dict(values) for section, values in SETTINGS.items()}
        self.set("corpus", path=self.train, valid=self.valid, test=self.test)

    def set(self, section, **values):
        self.settings.setdefault(section, {}).update(
            {name: str(value) for name, value in values.items()})

    # In this process

    def root(self, task):
        """A task of this job, with this job's settings in force."""
        config = reset_settings()
        for section, values in self.settings.items():
            for name, value in values.items():
                config.set(section, name, value)
        # One process, so that a debugger, and a replaced function, reach everything.
        config.set("worker", "force_multiprocessing", "false")
        for seen in (tasks._digests, tasks._corpus, tasks._manifest_to_make):
            seen.cache_clear()  # every run looks at the corpus anew
        return task(working_folder=str(self.work))

    def build(self, task=tasks.EncodeCorpus):
        """Run a task and what it needs; what was made and why, or the first error is raised."""
        root, made, errors = self.root(task), {}, []
        handler = logging.Handler()
        # The first line of a task is the reason.
        handler.emit = lambda record: made.setdefault(*record.getMessage().split(": ", 1))
        logger = logging.getLogger("pipeline")
        level = logger.level
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
        luigi.Task.event_handler(luigi.Event.FAILURE)(
            fail := lambda task, error: errors.append(error))
        try:
            done = luigi.build([root], local_scheduler=True, workers=1, no_lock=True)
        finally:
            luigi.Task.remove_event_handler(luigi.Event.FAILURE, fail)
            logger.removeHandler(handler)
            logger.setLevel(level)
        if errors:
            raise errors[0]
        assert done
        return by_part(made)

    def why(self, task=tasks.EncodeCorpus):
        """What a run would make and why, as far as it is known before."""
        return by_part(dict(faults(self.root(task))))

    def shards(self):
        """The content of all shards, in the order of the corpus."""
        encoded = self.root(tasks.EncodeCorpus)
        return [Path(path).read_bytes() for split in ("train", "valid", "test")
                for path in encoded.shard_files(split)]

    def parts(self, split="train"):
        """The digests of a split's parts."""
        return [part.digest for part in self.root(tasks.SplitCorpus).manifest().parts(split)]

    # In processes of their own

    def environment(self, **more):
        config = self.folder / "test.cfg"
        config.write_text("".join(
            f"[{section}]\n" + "".join(f"{name} = {value}\n" for name, value in values.items())
            for section, values in self.settings.items()))
        cache = Path(os.environ["PIPELINE_WORK"]).resolve() / "theano"
        # Networks of four units need no code of their own, and waste no time on it.
        flags = f"base_compiledir={cache},linker=py,optimizer=fast_compile"
        return {**os.environ, "LUIGI_CONFIG_PATH": str(config), "PIPELINE_WORK": str(self.work),
                "PIPELINE_ENVIRONMENT": "keep",
                "THEANO_FLAGS": flags, "PYTHONPATH": str(REPOSITORY),
                "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", **more}

    def start(self, *arguments, **environment):
        """Start ``python -m pipeline`` in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline", *arguments], cwd=REPOSITORY,
            env=self.environment(**environment), stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, start_new_session=True)

    def run(self, *arguments, **environment):
        """Run ``python -m pipeline`` to its end; exit code and output."""
        process = self.start(*arguments, **environment)
        output, _ = process.communicate(timeout=300)
        return process.returncode, output

    def run_local(self, **environment):
        """A whole run without the daemon, which has to succeed."""
        code, output = self.run("run", "--scheduler", "local", **environment)
        assert code == 0, output
        return output

    def metrics(self):
        return json.loads((self.work / "report" / "metrics.json").read_text())


def results(work):
    """What a job has made, by name: everything that may not depend on how often it was killed.

    Receipts and the log say how long things took; these figures are left out.
    """
    found = {}
    for stage in ("corpus", "parts", "tokens", "vocabulary", "shards", "baseline"):
        for path in (work / stage).glob("[!.]*"):  # no temporaries of who was killed
            found[f"{stage}/{path.name}"] = path.read_bytes()
    for folder in (work / "models").glob("*"):
        for name in ("model.h5", "best.h5", "last.h5"):
            if (folder / name).exists():
                found[f"{folder.name}/{name}"] = (folder / name).read_bytes()
        if (folder / "log.jsonl").exists():
            found[f"{folder.name}/log.jsonl"] = [
                {key: value for key, value in json.loads(line).items()
                 if key not in ("seconds", "tokens_per_second")}
                for line in (folder / "log.jsonl").read_text().splitlines()]
    evaluation = work / "report" / "evaluation.json"
    if evaluation.exists():
        found["evaluation.json"] = evaluation.read_bytes()
        metrics = json.loads((work / "report" / "metrics.json").read_text())
        for name in ("seconds", "tokens_per_second"):
            metrics["train"].pop(name)
        metrics["train"].pop("processes", None)  # hosts, and times
        found["metrics.json"] = metrics
    for path in (work / "receipts").glob("*/*/*.json"):
        receipt = json.loads(path.read_text())
        found[f"receipt {path.relative_to(work)}"] = receipt["ingredients"]
    return found


def state(folder):
    """What a reader of the folder can see of its files."""
    return {path: (path.stat().st_mtime_ns, path.stat().st_ino, path.stat().st_size)
            for path in folder.rglob("*") if path.is_file()}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def kill_group(process):
    """End a process and all that it started in its group, at once."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


def children(process):
    """The processes below one, each with its command line."""
    found, waiting = {}, [process]
    while waiting:
        number = waiting.pop()
        try:
            for thread in Path(f"/proc/{number}/task").iterdir():
                waiting += map(int, (thread / "children").read_text().split())
            if number != process:
                found[number] = Path(f"/proc/{number}/cmdline").read_bytes().replace(b"\0", b" ")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
    return found
