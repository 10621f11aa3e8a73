"""Commands on the model: ``python -m model --help``."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from model.files import DamagedFile, UserError, publish

# A status line more often than this tells nobody more.
_SECONDS_BETWEEN_REPORTS = 0.5


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m model", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, function, text in (
        ("train", train_command, "train as a job file says, or go on with it"),
        ("evaluate", evaluate_command, "score test sets as a job file says"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("job", type=Path, help="the job, a JSON file")
        command.add_argument("--with-parent", action="store_true",
                             help="stop when the process that started this one is gone")
        command.set_defaults(function=function)
    options = parser.parse_args(arguments)
    try:
        options.function(options)
    except UserError as error:
        if options.function in (train_command, evaluate_command):
            if isinstance(error, DamagedFile):
                report = {"damaged": str(error.path), "error": error.reason}
            else:
                report = {"error": str(error)}
            print(json.dumps(report), flush=True)
        else:
            print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever read the output has gone; Python must not try to flush it once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return 0


def train_command(options: argparse.Namespace) -> None:
    """``train``: prints one JSON object a line on standard output, its share done and status."""
    from model.network import NetworkConfig
    from model.training import TrainingConfig, TrainingJob, train
    from model.vocabulary import read_vocabulary

    content = json.loads(options.job.read_text())
    job = TrainingJob(
        folder=Path(content["folder"]),
        train_shards=[Path(path) for path in content["train_shards"]],
        valid_shards=[Path(path) for path in content["valid_shards"]],
        vocabulary=read_vocabulary(Path(content["vocabulary"])),
        network=NetworkConfig(**content["network"]),
        training=TrainingConfig(**content["training"]),
        tokenization=content["tokenization"],
        source=content["source"],
        checkpoint_minutes=content["checkpoint_minutes"],
        previous=Path(content["previous"]) if content["previous"] else None,
    )
    with _only_one_in(job.folder):
        train(job, should_stop=_stop_requests(options.with_parent), on_progress=_reporter())


def evaluate_command(options: argparse.Namespace) -> None:
    """``evaluate``: writes the figures of each set, with the baselines, as a JSON file."""
    from model.baselines import Bigrams, baselines
    from model.checkpoint import read_checkpoint
    from model.evaluation import evaluate
    from model.inference import load_scorer
    from model.shards import ShardReader

    content = json.loads(options.job.read_text())
    checkpoint = read_checkpoint(content["model"])
    vocabulary = checkpoint.vocabulary
    report = _reporter()
    report(0.0, "compiling the network")
    log_probabilities = load_scorer(checkpoint)
    readers = {name: ShardReader([Path(p) for p in paths], vocabulary.digest)
               for name, paths in content["sets"].items()}
    result = {"sets": {}}
    for name, reader in readers.items():
        evaluation = evaluate(log_probabilities, reader, vocabulary,
                              on_progress=lambda share, name=name: report(share, f"scoring {name}"))
        result["sets"][name] = {
            **evaluation.totals.figures(),
            "by_steps": {str(steps): asdict(totals)
                         for steps, totals in sorted(evaluation.by_steps.items())},
            "tokens_by_word": evaluation.tokens_by_word.tolist(),
            "log_probability_by_word": evaluation.log_probability_by_word.tolist(),
            "most_surprising": [
                {"perplexity": perplexity, "words": [vocabulary.words[n] for n in words]}
                for perplexity, words in evaluation.most_surprising],
        }
    report(1.0, "counting pairs for the baselines")
    bigrams = Bigrams.count([Path(p) for p in content["train_shards"]], vocabulary)
    result["baselines"] = baselines(bigrams, readers["valid"], readers, vocabulary)
    with publish(content["output"]) as temporary:
        temporary.write_text(json.dumps(result, indent=1))


@contextlib.contextmanager
def _only_one_in(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; wait, and say so, while another process holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another process is training in {folder}; waiting for it", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _stop_requests(with_parent: bool) -> Callable[[], bool]:
    """A function that tells whether SIGTERM or SIGINT came, or the parent process has gone."""
    received = []
    parent = os.getppid()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: received.append(True))
    return lambda: bool(received) or (with_parent and os.getppid() != parent)


def _reporter() -> Callable[[float, str], None]:
    """Report progress as JSON lines on standard output, and as a bar where a person watches."""
    bar = tqdm(total=100, unit="%", bar_format="{percentage:5.1f}% |{bar:20}| {elapsed} {desc}",
               disable=not sys.stderr.isatty())
    last = 0.0

    def report(share: float, status: str) -> None:
        nonlocal last
        now = time.monotonic()
        if share not in (0.0, 1.0) and now - last < _SECONDS_BETWEEN_REPORTS:
            return
        last = now
        bar.n = min(100.0, 100 * share)
        bar.set_description_str(status)
        print(json.dumps({"share": share, "status": status}), flush=True)

    return report


if __name__ == "__main__":
    sys.exit(main())
