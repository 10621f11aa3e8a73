"""Commands on the model: ``python -m model --help``."""

from __future__ import annotations

from model.system import environment  # isort: skip

if __name__ == "__main__":
    environment.isolate("model")

import argparse
import contextlib
import json
import math
import os
import secrets
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from model.data.nbest import FORMATS
from model.data.text_files import open_text
from model.system.errors import BadInput, DamagedFile, UserError
from model.system.extras import what_is_missing
from model.system.files import publish, to_json
from model.system.locks import holding
from model.system.processes import end_descendants, end_with_descendants, end_with_parent
from model.system.terminal import guard_output

if TYPE_CHECKING:
    import numpy as np

    from model.checkpoint import Checkpoint
    from model.data.vocabulary import Vocabulary
    from model.evaluation import Evaluation
    from model.mpi import Processes
    from model.processes import Alone

# A status line more often than this tells nobody more.
_SECONDS_BETWEEN_REPORTS = 0.5
# Sentences that the evaluation draws for the report.
_SAMPLES = 12
# Of the evaluation's time, about.
_SHARE_OF_SCORING = 0.9
_SHARE_OF_ALL_BUT_NGRAMS = 0.97

# What commands take that are given no model.
_CURRENT = ("that of the last good run in the working folder, which the environment variable "
            "PIPELINE_WORK names, or else data/work")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    if getattr(options, "with_parent", None) is not None:
        # A training writes a checkpoint first; an evaluation has nothing to save.
        signal.signal(signal.SIGTERM, end_with_descendants)
        end_with_parent(options.with_parent, signal.SIGTERM)
    if sys.stdout is None:
        sys.exit("error: standard output is closed")
    try:
        options.function(options)
        sys.stdout.flush()
    except UserError as error:
        if options.function in _JOBS:
            _tell_error(error)
        else:
            print(f"error: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(f"error: {what_is_missing(error)}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        _leave_output()
        return 141
    except OSError as error:
        if options.function in _JOBS:
            raise
        _leave_output()
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _leave_output() -> None:
    """Nobody takes the output any more: Python must not try to flush it once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m model", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, function, text in (
        ("train", train_command, "train as a job file says, or go on with it"),
        ("evaluate", evaluate_command, "score test sets as a job file says"),
        ("check", check_command, "look whether a training's device is there and has the memory"),
        ("measure", measure_command, "measure what a training takes as a job file says"),
    ):
        command = commands.add_parser(name, help=text, description=function.__doc__)
        command.add_argument("job", type=Path, help="the job, a JSON file")
        command.add_argument("--with-parent", type=int, metavar="PID",
                             help="stop when the process that started this one, PID, is gone")
        command.set_defaults(function=function)
        if function == train_command:
            command.add_argument("--processes", type=_count, default=1, metavar="N",
                                 help="how many MPI has started (default: 1, by no MPI)")
            command.add_argument("--longest-wait", type=float, default=40.0, metavar="SECONDS",
                                 help="that one of them waits for another (default: 40)")

    score = commands.add_parser(
        "score", help="log-probability and perplexity of each line of a text, and of all",
        description="Log-probability and perplexity of each line of a text, and of all lines "
                    "together. As in the evaluation, </s> counts as a token and <s> does not; "
                    "words outside the vocabulary count as <unk>, and perplexity_without_unk "
                    "leaves them out. An empty line is no sentence, but keeps its row; to a model "
                    "of text that is tokenized already (split = spaces) it is one, of </s> alone.")
    score.set_defaults(function=score_command)
    score.add_argument("text", nargs="?", default="-", metavar="FILE",
                       help="UTF-8 text, a sentence a line, also compressed; - for standard input "
                            "(the default)")
    score.add_argument("--mix", action="store_true",
                       help="add the probabilities of the network and of the n-gram model, both of "
                            "the last good run, with the weights that it chose")
    score.add_argument("--words", action="store_true", help="also score every word by itself")
    score.add_argument("--base", type=_base, default=math.e,
                       help="of the logarithms, as 10 or 2 (default: e)")
    score.add_argument("--format", choices=("tsv", "json"), default="tsv",
                       help="a table (default), or a JSON object a line; the last is the total")

    rescore = commands.add_parser(
        "rescore", help="rank lists of hypotheses anew, by the model and the scores they have",
        description="Rank n-best lists anew. The combined score of a hypothesis is the sum of its "
                    "scores times their weights: the model's log-probability (model, weight 1 if "
                    "nothing else is said), the number of its words (words, weight 0), and what "
                    "stands in the list, by name. Output is in the format of the input.")
    rescore.set_defaults(function=rescore_command)
    rescore.add_argument("text", nargs="?", default="-", metavar="NBEST",
                         help="lists, a hypothesis a line, also compressed; - for standard input "
                              "(the default)")
    rescore.add_argument("--format", choices=FORMATS,
                         help="kaldi: id-N words; moses: id ||| words ||| name= value ||| total; "
                              "tsv: a table with the columns id and text; json: an object a line "
                              "with these (default: as the first line looks)")
    rescore.add_argument("--costs", type=_named(Path), action="append", default=[],
                         metavar="NAME=FILE", help="costs as Kaldi writes them, id-N cost; the "
                                                   "score is the cost with the other sign")
    rescore.add_argument("--weight", type=_named(_weight), action="append", default=[],
                         metavar="NAME=WEIGHT", help="of a score, of model or of words")
    rescore.add_argument("--per-token", action="store_true",
                         help="divide the model's log-probability by the number of tokens")
    rescore.add_argument("--all", action="store_true",
                         help="all hypotheses, the best first, and not the best alone")
    rescore.add_argument("--costs-to", type=Path, metavar="FILE",
                         help="also write the model's costs of all hypotheses, id-N cost, in the "
                              "order of the input's lists")

    sample = commands.add_parser(
        "sample", help="draw sentences from the model",
        description="Draw sentences from the model, one a line, as words with spaces between. "
                    "None holds <unk>: its probability is shared out over the other words. "
                    "A sentence of more than 200 words is cut.")
    sample.set_defaults(function=sample_command)
    sample.add_argument("--prefix", default="", help="what every sentence begins with")
    sample.add_argument("--temperature", type=_temperature, default=1.0,
                        help="below 1: likelier words; above: more surprising ones; 0: always the "
                             "likeliest word (default: 1)")
    sample.add_argument("--count", type=_count, default=10, help="how many (default: 10)")
    sample.add_argument("--seed", type=_count,
                        help="the same seed gives the same sentences (default: new ones each time)")

    for command in (score, rescore, sample):
        command.add_argument(
            "--device", type=_device,
            help="where to compute: cpu (the default), cuda or cuda:N for a graphics card, or "
                 "torch-cpu; or numpy, which needs no Theano and no compiler (the default where "
                 "Theano is not installed)")

    export = commands.add_parser(
        "export", help="write a model in a format that other programs read",
        description="Write a model as ONNX, which computes in onnxruntime and others, or its "
                    "weights as safetensors; docs/using.md has names and shapes. ONNX is two "
                    "files: OUT for whole sentences, and beside it, with .step before its suffix, "
                    "one for a word at a time, with the state as input and output.")
    export.set_defaults(function=export_command)
    export.add_argument("output", type=Path, metavar="OUT", help="the file to write")
    export.add_argument("--format", choices=("onnx", "safetensors"), required=True)
    for command in (score, rescore, sample, export):
        command.add_argument("--model", type=Path,
                             help=f"a checkpoint (default: {_CURRENT})")
        _add_profile(command)

    info = commands.add_parser("info", help="what a shard or a checkpoint holds",
                               description=info_command.__doc__)
    info.set_defaults(function=info_command)
    info.add_argument("file", type=Path, nargs="?", metavar="FILE",
                      help=f"a shard or a checkpoint (default: {_CURRENT})")
    _add_profile(info)
    return parser


def _add_profile(command: argparse.ArgumentParser) -> None:
    command.add_argument("--profile", metavar="NAME",
                         help="of the run; without it the default one, or the only one that has "
                              "left a model")


def _device(text: str) -> str:
    from model.configuration import DEVICE

    if text != "numpy" and not DEVICE.allows(text):
        raise argparse.ArgumentTypeError(f"{text} is no device: it must be numpy, {DEVICE}")
    return text


def _number(kind: Callable[[str], float], fits: Callable[[float], bool],
            wanted: str) -> Callable[[str], float]:
    """A type for argparse, with an error that says what is wanted."""
    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not fits(value):
            raise argparse.ArgumentTypeError(f"{text} is not {wanted}")
        return value

    return parse


def _weight(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError
    return value


def _named(kind: Callable[[str], object]) -> Callable[[str], tuple[str, object]]:
    """A type for argparse: NAME=VALUE."""
    def parse(text: str) -> tuple[str, object]:
        name, sign, value = text.partition("=")
        try:
            if not (name and sign and value):
                raise ValueError
            return name, kind(value)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text} is not name=value") from None

    return parse


_base = _number(float, lambda value: 1 < value < math.inf, "a number greater than 1")
_temperature = _number(float, lambda value: 0 <= value < math.inf, "a number of at least 0")
_count = _number(int, lambda value: value >= 0, "a whole number of at least 0")


def train_command(options: argparse.Namespace) -> None:
    """``train``: prints one JSON object a line on standard output, its share done and status."""
    from model.processes import Alone

    if options.processes == 1:
        _train(options, Alone())
    else:
        with _together(options) as processes:
            _train(options, processes)


@contextlib.contextmanager
def _together(options: argparse.Namespace) -> Iterator[Processes]:
    """The processes of a training. Where one fails all are ended, after it has told why."""
    from model.mpi import Processes

    # Their parent is the launcher's, and may be lost alone.
    end_with_parent(os.getppid(), signal.SIGKILL)
    processes = Processes(options.processes, options.longest_wait)
    stopped = None
    try:
        processes.meet()
        from model.training import Stopped  # no earlier: it starts threads

        try:
            yield processes
        except Stopped as error:  # all know it
            stopped = error
        processes.finish()
    except BaseException as error:
        if isinstance(error, UserError):
            _tell_error(error)
        elif not isinstance(error, SystemExit):
            traceback.print_exc()
        processes.abort()
    if stopped:
        raise stopped


def _train(options: argparse.Namespace, processes: Alone) -> None:
    from model.configuration import NetworkConfig, TrainingConfig
    from model.data.vocabulary import read_vocabulary
    from model.lineage import TrainingText
    from model.training import TrainingJob, train

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
        text=TrainingText(**content["text"]),
        previous=Path(content["previous"]) if content["previous"] else None,
        device=processes.device(content["device"]),
    )
    with contextlib.ExitStack() as stack:
        if processes.is_first:
            stack.enter_context(_only_one_in(job.folder))
        result = train(job, processes=processes, should_stop=_stop_requests(),
                       on_progress=_reporter() if processes.is_first else lambda *_: None)
    if processes.is_first:
        _tell({"result": result})


def check_command(options: argparse.Namespace) -> None:
    """``check``: nothing is made; an error says what is missing."""
    from model.configuration import NetworkConfig, TrainingConfig
    from model.device_memory import bytes_of_training
    from model.engine import open_device

    content = json.loads(options.job.read_text())
    network, training = NetworkConfig(**content["network"]), TrainingConfig(**content["training"])
    device = open_device(content["device"], training.precision)
    device.check_memory(bytes_of_training(network, training, content["vocabulary"]))


def measure_command(options: argparse.Namespace) -> None:
    """``measure``: what a training and its evaluation take here, of a sample of the text."""
    from model.configuration import NetworkConfig, TrainingConfig
    from model.data.vocabulary import read_vocabulary
    from model.measurement import MeasurementJob, measure

    content = json.loads(options.job.read_text())
    job = MeasurementJob(**{
        **content,
        "folder": Path(content["folder"]),
        **{name: [Path(path) for path in content[name]]
           for name in ("train_shards", "valid_shards")},
        "vocabulary": read_vocabulary(Path(content["vocabulary"])),
        "network": NetworkConfig(**content["network"]),
        "training": TrainingConfig(**content["training"])})
    _tell({"result": measure(job, on_progress=_reporter())})


def evaluate_command(options: argparse.Namespace) -> None:
    """``evaluate``: writes the figures of each set, with baselines and samples, as JSON."""
    from model.baselines import Bigrams, baselines, kneser_ney
    from model.breakdowns import breakdowns, most_different
    from model.checkpoint import read_checkpoint
    from model.confidence import LEVEL, RESAMPLES, confidence, read_sums, write_sums
    from model.data.shards import ShardReader
    from model.engine import open_device
    from model.evaluation import evaluate, headline
    from model.inference import load_network
    from model.kneser_ney import KneserNey
    from model.network import compile_log_probabilities, compile_next_word
    from model.sampling import sample
    from model.score_file import ScoreFile

    content = json.loads(options.job.read_text())
    checkpoint = read_checkpoint(content["model"])
    vocabulary = checkpoint.vocabulary
    report = _reporter()
    report(0.0, "compiling the network")
    network = load_network(checkpoint, open_device(content["device"]))
    log_probabilities = compile_log_probabilities(network)
    readers = {name: ShardReader([Path(p) for p in paths], vocabulary.digest)
               for name, paths in content["sets"].items()}
    result: dict = {"sets": {}, "mixture": None}
    of_network = {name: ScoreFile(options.job.parent) for name in readers}
    figure, others = headline(vocabulary), {}
    on_test: dict[str, Evaluation] = {}
    for number, (name, reader) in enumerate(readers.items()):
        def progress(share: float, name: str = name, before: int = number) -> None:
            report(_SHARE_OF_SCORING * (before + share) / len(readers), f"scoring {name}")

        def score(inputs: np.ndarray, targets: np.ndarray, name: str = name) -> np.ndarray:
            scores = log_probabilities(inputs, targets)
            if content["ngrams"]:  # they are mixed with its own
                of_network[name].append(scores)
            return scores

        evaluation = evaluate(score, reader, vocabulary, on_progress=progress)
        if not math.isfinite(evaluation.totals.figures()["perplexity"]):
            raise UserError(f"the perplexity of {name} is not finite: the model "
                            f"{content['model']} gives its words no probability. Nothing is "
                            "published; lower [training] rate and train again")
        result["sets"][name] = evaluation.details(vocabulary)
        if name == "test":
            on_test["network"], sums = evaluation, evaluation.sums(figure)
    report(_SHARE_OF_SCORING, "drawing sentences", at_once=True)
    result["samples"] = [
        " ".join(vocabulary.words[n] for n in words)
        for words in sample(compile_next_word(network), vocabulary, count=_SAMPLES, seed=0)]
    report((1 + _SHARE_OF_SCORING) / 2, "counting pairs for the baselines", at_once=True)
    bigrams = Bigrams.count([Path(p) for p in content["train_shards"]], vocabulary)
    result["baselines"] = baselines(bigrams, readers["valid"], readers, vocabulary)
    if content["ngrams"]:
        report(_SHARE_OF_ALL_BUT_NGRAMS, "scoring with the n-gram model", at_once=True)
        found, of_ngrams = kneser_ney(KneserNey(content["ngrams"], vocabulary), of_network,
                                      readers, vocabulary, options.job.parent)
        result["baselines"] |= found["baselines"]
        result["mixture"] = found["mixture"]
        on_test[found["mixture"]["baseline"]] = of_ngrams["test"]
        others["baseline"] = of_ngrams["test"].sums(figure)
    result["breakdowns"] = breakdowns(on_test, vocabulary)
    result["breakdowns"]["most_different"] = most_different(
        on_test, readers["test"], vocabulary) if content["ngrams"] else None
    text = f"{figure} {content['text']}"
    if content["last_sums"] and (last := read_sums(content["last_sums"], text)):
        others["last_run"] = last
    compared = confidence(sums, others)
    result["confidence"] = {"figure": figure, "level": LEVEL, "resamples": RESAMPLES,
                            "interval": compared["interval"],
                            **{name: compared["differences"].get(name)
                               for name in ("baseline", "last_run")}}
    write_sums(content["sums"], sums, text)
    with publish(content["output"]) as temporary:
        temporary.write_text(to_json(result, indent=1))


def score_command(options: argparse.Namespace) -> None:
    """``score``: a row for each line of the text, in its order, and one for the total."""
    from model.evaluation import Totals, headline
    from model.inference import log_probabilities_of
    from model.scoring import Batch, figures, score_lines, word_totals

    if options.mix and options.model:
        raise UserError("--mix takes the model of the last good run: leave --model out")
    with _open_text(options.text) as stream:
        path, checkpoint = _model(options)
        mixed = _mixer(path, checkpoint.vocabulary) if options.mix else lambda batches, found: found
        of_network = log_probabilities_of(checkpoint, options.device)

        def log_probabilities(batches: list[Batch]) -> Iterable[np.ndarray]:
            return mixed(batches, (of_network(*batch) for batch in batches))

        write = _write_json if options.format == "json" else _write_table
        if options.format == "tsv":
            columns = ["line", *(["word"] if options.words else []), *figures(Totals(), 10)]
            print("\t".join(columns))
        total = Totals()
        name = "standard input" if options.text == "-" else options.text
        for score in score_lines(stream, name, log_probabilities, checkpoint.vocabulary,
                                 **checkpoint.settings["tokenization"]):
            words = [{"word": word, **figures(totals, options.base)}
                     for word, totals in word_totals(score)] if options.words else None
            write(score.line, words, figures(score.totals, options.base))
            total += score.totals
        write("total", [] if options.words else None, figures(total, options.base))
        if total.out_of_vocabulary and headline(checkpoint.vocabulary) != "perplexity":
            print("<unk> never occurred in the model's training: only perplexity_without_unk means "
                  "something", file=sys.stderr)


def _mixer(model: Path, vocabulary: Vocabulary) -> Callable[..., Iterator[np.ndarray]]:
    """From batches and the network's scores of each to those of the mixture with n-grams."""
    from model.current import current_ngrams
    from model.kneser_ney import KneserNey
    from model.mixture import mix

    path, weight = current_ngrams(model, environment.work_folder())
    ngrams = KneserNey(path, vocabulary)
    return lambda batches, of_network: (
        mix(*pair, weight) for pair in zip(of_network, ngrams.score(batches)))


def _write_table(line: int | str, words: list[dict] | None, sums: dict) -> None:
    """Rows of a line's words, when there are any, and the row of the line."""
    def text(value: object) -> str:
        if isinstance(value, float):
            return "" if math.isnan(value) else f"{value:.4f}"
        return str(value)

    for row in words or ():
        print(line, *map(text, row.values()), sep="\t")
    print(line, *(() if words is None else ("",)), *map(text, sums.values()), sep="\t")


def _write_json(line: int | str, words: list[dict] | None, sums: dict) -> None:
    rows = {} if words is None or line == "total" else {"words": words}
    print(to_json({"line": line, **sums, **rows}, ensure_ascii=False))


def rescore_command(options: argparse.Namespace) -> None:
    """``rescore``: of each list the best hypothesis, or all, as the list is read."""
    from model.data.nbest import OF_MODEL, NBestLists
    from model.inference import log_probabilities_of
    from model.rescoring import WORDS, rescore
    from model.scoring import read_lines

    with contextlib.ExitStack() as stack:
        def lines(name: str) -> Iterator[tuple[int, str]]:
            return read_lines(stack.enter_context(_open_text(name)), name)

        costs = {name: (str(path), lines(str(path))) for name, path in options.costs}
        lists = NBestLists(lines(options.text),
                           "standard input" if options.text == "-" else options.text,
                           options.format, costs)
        _, checkpoint = _model(options)
        log_probabilities = log_probabilities_of(checkpoint, options.device)
        costs_to = stack.enter_context(open(
            stack.enter_context(publish(options.costs_to)), "w")) if options.costs_to else None
        if header := lists.header():
            print(header)
        for ranked in rescore(
                lists, lambda batches: (log_probabilities(*batch) for batch in batches),
                checkpoint.vocabulary, weights={OF_MODEL: 1.0, WORDS: 0.0, **dict(options.weight)},
                per_token=options.per_token, **checkpoint.settings["tokenization"]):
            for each in ranked if options.all else ranked[:1]:
                print(lists.line(each, only_best=not options.all))
            if costs_to:
                for each in sorted(ranked, key=lambda each: each.hypothesis.number):
                    print(f"{each.hypothesis.name} {-each.of_model:.4f}", file=costs_to)


def sample_command(options: argparse.Namespace) -> None:
    """``sample``: a drawn sentence a line."""
    from model.data.tokenization import clean, tokenize_sentence
    from model.inference import next_word_of
    from model.sampling import sample

    try:
        options.prefix.encode()
    except UnicodeEncodeError:
        raise UserError("the prefix is not valid UTF-8") from None
    _, checkpoint = _model(options)
    vocabulary = checkpoint.vocabulary
    tokenization = checkpoint.settings["tokenization"]
    try:
        text = clean(options.prefix, tokenization["split"])
    except ValueError as error:
        raise UserError(f"the prefix cannot be used: {error}") from None
    prefix = tokenize_sentence(text, **tokenization)
    unknown = [word for word in prefix if word not in vocabulary.words]
    if unknown:
        print(f"outside the vocabulary, so <unk> to the model: {' '.join(unknown)}",
              file=sys.stderr)
    seed = secrets.randbits(64) if options.seed is None else options.seed
    next_word = next_word_of(checkpoint, options.device)
    for words in sample(next_word, vocabulary,
                        count=options.count, seed=seed, temperature=options.temperature,
                        prefix=vocabulary.encode(prefix)):
        print(" ".join([*prefix, *(vocabulary.words[n] for n in words)]), flush=True)


def export_command(options: argparse.Namespace) -> None:
    """``export``: prints the files that were written, and their sizes in bytes."""
    from model.export import export

    _, checkpoint = _model(options)
    for path in export(checkpoint, options.format, options.output):
        print(f"{path.stat().st_size:>14,}  {path}")


def info_command(options: argparse.Namespace) -> None:
    """``info``: what a shard or a checkpoint holds, with which settings and from what it came."""
    from model.description import as_text, describe

    print(as_text(describe(options.file or _current_model(options.profile))))


# These talk to the process that started them.
_JOBS = (train_command, evaluate_command, check_command, measure_command)


def _model(options: argparse.Namespace) -> tuple[Path, Checkpoint]:
    from model.inference import read_model

    path = options.model or _current_model(options.profile)
    return path, read_model(path)


def _current_model(profile: str | None) -> Path:
    from model.current import current_model

    path = current_model(environment.work_folder(), profile)
    print(f"model: {path}", file=sys.stderr)
    return path


@contextlib.contextmanager
def _open_text(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        if sys.stdin is None:
            raise UserError("standard input is closed; name a file")
        yield open_text(sys.stdin.buffer, "standard input")  # type: ignore[arg-type]
        return
    try:
        file = open(name, "rb")  # noqa: SIM115
    except OSError as error:
        raise UserError(f"cannot read {name}: {error.strerror}.") from error
    with file:
        yield open_text(file, name)


@contextlib.contextmanager
def _only_one_in(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; wait, and say so, while another process holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    with holding(folder / ".locked-by", lambda holder: print(
            f"another process is training in {folder} ({holder}); waiting for it",
            file=sys.stderr)):
        yield


def _stop_requests() -> Callable[[], bool]:
    """A function that tells whether SIGTERM, SIGINT or SIGHUP came.

    Until it is called for the first time a signal ends the process at once: compiling can take a
    minute, and there is nothing to save yet.
    """
    received: list[int] = []
    asked = False

    def request(number: int, _: object) -> None:
        received.append(number)
        if not asked:
            _tell({"error": "stopped before it began"})
            end_descendants()
            sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # nohup ignores a signal, which is meant for this process too.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, request)

    def should_stop() -> bool:
        nonlocal asked
        asked = True
        return bool(received)

    return should_stop


def _reporter() -> Callable[..., None]:
    """Report progress as JSON lines on standard output, and as a bar where a person watches.

    Now and then only, but for the beginning, the end, and what is to be said `at_once`.
    """
    from tqdm import tqdm

    bar = tqdm(total=100, unit="%", bar_format="{percentage:5.1f}% |{bar:20}| {elapsed} {desc}",
               file=sys.__stderr__, disable=not sys.stderr.isatty())
    last = 0.0

    def report(share: float, status: str, *, at_once: bool = False) -> None:
        nonlocal last
        now = time.monotonic()
        if not at_once and share not in (0.0, 1.0) and now - last < _SECONDS_BETWEEN_REPORTS:
            return
        last = now
        bar.n = min(100.0, 100 * share)
        bar.set_description_str(status)
        _tell({"share": share, "status": status})

    return report


def _tell_error(error: UserError) -> None:
    report: dict = {"error": str(error)}
    if isinstance(error, DamagedFile):
        report = {"damaged": str(error.path), "error": error.reason}
    elif isinstance(error, BadInput):
        report["bad_input"] = True
    _tell(report)


def _tell(report: dict) -> None:
    """Print a line of JSON for the process that started this one, if it is still there."""
    try:
        print(json.dumps(report), flush=True)
    except BrokenPipeError:
        # It is gone, which ends this process too, but not here: there may be work to save.
        _leave_output()


if __name__ == "__main__":
    guard_output(needed=True)
    sys.exit(main())
