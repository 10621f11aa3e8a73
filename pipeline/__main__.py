"""Commands on the job: ``python -m pipeline --help``. The Makefile's targets call these."""

from __future__ import annotations

import argparse
import contextlib
import html
import json
import logging
import os
import signal
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.system import environment
from model.system.errors import BadInput, UserError
from model.system.files import sweep_temporaries
from model.system.processes import host_name
from model.system.terminal import guard_output
from pipeline import settings
from pipeline.exit_codes import ExitCode

if TYPE_CHECKING:
    from pipeline.gc import Model

# As often a run that has lost the daemon's ear makes itself heard again.
_MOST_NEW_BEGINNINGS = 10
# run.log is put aside before a run once it is so large, and so many of these are kept.
_LOG_BYTES = 10 << 20
_LOGS_KEPT = 3


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        _enter_base_folder(options)
        settings.load_or_exit(getattr(options, "profile", None), options.set)
        if getattr(options, "scheduler", None):
            settings.override("run", "scheduler", options.scheduler)
        _ask_no_proxy()
        return options.function(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.BAD_INPUT if isinstance(error, BadInput) else ExitCode.NOT_BEGUN
    except KeyboardInterrupt:
        print("interrupted; the next run goes on", file=sys.stderr)
        return ExitCode.INTERRUPTED


def _place() -> int | str:
    """Where the daemon is: a port of this host, or an address."""
    from pipeline import daemon

    section = settings.values(settings.run)
    return daemon.place_of(section["scheduler"], section["port"])


def _ask_no_proxy() -> None:
    """Luigi would ask a proxy for the daemon."""
    from pipeline import daemon

    hosts = ["127.0.0.1", urllib.parse.urlsplit(daemon.url(_place())).hostname]
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), *hosts]))


def _enter_base_folder(options: argparse.Namespace) -> None:
    """Go to the folder from which relative names in the settings start: that of the checkout.

    Names that were given to the command start from where that is called.
    """
    names = vars(options)
    if os.path.expanduser(options.work or "").startswith("~"):
        raise BadInput(f"the working folder {options.work} begins with the name of a user that "
                       "there is not")
    environment.use_work_folder(options.work or environment.work_folder())
    if named := os.environ.get("LUIGI_CONFIG_PATH"):
        os.environ["LUIGI_CONFIG_PATH"] = os.path.abspath(named)
    if Path.cwd() != (base := environment.base_folder()):
        for split in ("corpus", "valid", "test"):
            name = names.get(split)
            if name and "://" not in name:
                names[split] = os.path.abspath(os.path.expanduser(name))
        os.chdir(base)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline", description="Commands on the job. An option goes before what "
        "luigi.cfg says; docs/nightly.md lists the exit codes.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, function, text in (
        ("run", run_command, "run the whole job; only what has changed is done again"),
        ("why", why_command, "say what a run would do again, and why"),
        ("plan", plan_command, "say what a run would take: time, memory, disk"),
        ("settings", settings_command, "show every setting, where its value comes from, and why"),
        ("report", report_command, "make the report again"),
        ("gc", gc_command, "list the artifacts that nothing refers to any more, or remove them"),
        ("history", history_command, "show a table of all runs so far"),
        ("worker", worker_command, "help the runs in a working folder, from any host"),
        ("status", status_command, "show what each task is doing"),
        ("daemon", daemon_command, "start the Luigi daemon"),
        ("stop", stop_command, "stop the Luigi daemon"),
    ):
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        command.set_defaults(function=function)
        command.add_argument("--work", help="working folder (default: data/work)")
        command.add_argument("--set", action="append", default=[], metavar="SECTION.NAME=VALUE",
                             help="a setting, or several with blanks between, before all files")
        if name in ("run", "why", "plan", "settings", "report", "gc"):
            command.add_argument(
                "--corpus", help="sentences to train on: file, folder, glob or the address of a "
                                 ".tar.gz (default: [corpus] path)")
            command.add_argument(
                "--valid", help="sentences to validate with (default: [corpus] valid)")
            command.add_argument("--test", help="sentences to test with (default: [corpus] test)")
            command.add_argument(
                "--profile", type=settings.profile, metavar="NAME",
                help=f"named settings of network and training: {', '.join(settings.profiles())}, "
                     "or the path of a file")
        if name == "gc":
            command.add_argument("--remove", action="store_true", help="remove what is listed")
            command.add_argument("--models", nargs="+", default=[], metavar="NAME",
                                 help="also these models that are not in use, or all of them")
        in_file = settings.SETTINGS["run"]
        if name in ("run", "worker", "plan", "settings", "status", "daemon", "stop"):
            command.add_argument("--scheduler", type=settings.option(in_file["scheduler"].rule),
                                 help="daemon: through luigid on this host; local: without it; or "
                                      "the address of another luigid (default: [run] scheduler)")
        if name in ("run", "plan", "settings"):
            command.add_argument("--device", type=settings.option(in_file["device"].rule),
                                 help="where to compute: cpu, cuda, cuda:N or torch-cpu "
                                      "(default: [run] device)")
        if name in ("run", "settings"):
            command.add_argument("--processes", type=settings.option(in_file["processes"].rule),
                                 help="that train together (default: [run] processes)")
        if name in ("run", "worker", "plan", "settings"):
            command.add_argument("--workers", type=settings.option(in_file["workers"].rule),
                                 help="processes side by side (default: [run] workers)")
    return parser


def run_command(options: argparse.Namespace) -> int:
    """``run``: through Luigi, with one clear line for each task that runs."""
    from pipeline import daemon, failures
    from pipeline.choice import choose
    from pipeline.working_folder import only_one_run, writing

    work = Path(environment.work_folder())
    for name in ("device", "processes"):
        if text := getattr(options, name):
            settings.override("run", name, text)
    section = settings.values(settings.run)
    scheduler, place = section["scheduler"], _place()
    workers = options.workers or section["workers"]
    with only_one_run(work):
        keep_interrupts()
        for path in sweep_temporaries(work):
            print(f"removed {path}, left by a run that was killed", file=sys.stderr)
        with writing(work):
            _log_to(work / "log" / "run.log")
        _check_processes()
        _check_device(work, section["device"])
        # Luigi's own lock is one for all working folders and users; ours is held already.
        arguments = ["WriteReport", "--working-folder", str(work), "--workers", str(workers),
                     "--no-lock", *_corpus_flags(options), *_exit_code_flags()]
        if scheduler == "local":
            arguments += ["--local-scheduler"]
        else:
            _find_daemon(work, place)
            arguments += ["--scheduler-url", daemon.url(place),
                          "--settings-digest", _publish_settings(work, options)]
            print(f"Luigi shows the tasks at {daemon.url(place)}", file=sys.stderr)
            _refuse_pause(place)
        code = _luigi(arguments)
        for _ in range(_MOST_NEW_BEGINNINGS):
            if scheduler == "local" or code not in (ExitCode.ALREADY_RUNNING, ExitCode.NOT_RUN):
                break
            _refuse_pause(place)
            print("the daemon gives this run no more tasks: it has taken it for dead, as after a "
                  "suspension, or was started anew; going on", file=sys.stderr)
            time.sleep(1)
            daemon.give_up_dead_tasks(work, place)
            code = _luigi(arguments)
        if code == ExitCode.TASK_FAILED and failures.only_bad_input():
            code = ExitCode.BAD_INPUT
        if code:
            print(f"The run failed (exit code {code:d}); its full log: {work}/log/run.log",
                  file=sys.stderr)
            return code
        metrics = json.loads((work / "report" / "metrics.json").read_text())
        _bound_models(work, section["keep_models"], work / metrics["train"]["model"])
    print(_table(metrics))
    print(f"All figures: {work}/report/metrics.json")
    print(f"The report: {work}/report/index.html")
    choice = choose(work / metrics["train"]["model"], work, options.profile, section["tolerance"])
    if choice.worse:
        print(choice.reason, file=sys.stderr)
        return ExitCode.WORSE
    return 0


def _find_daemon(work: Path, place: int | str) -> None:
    """Start the daemon on this host where it does not run; one with an address has to."""
    from pipeline import daemon

    if isinstance(place, str) and not daemon.answers(place):
        raise UserError(f"no luigid answers at {place}: start it on the host that has the address, "
                        f"with make daemon SCHEDULER={place}")
    if isinstance(place, str) or not daemon.start(work, place):
        daemon.give_up_dead_tasks(work, place)


def _publish_settings(work: Path, options: argparse.Namespace) -> str:
    """Publish the settings of the run, for hosts that help it; returns their digest."""
    from pipeline.job_settings import publish_settings

    with _configured(options):
        from pipeline.tasks import formats

        return publish_settings(work, formats())


def _check_processes() -> None:
    """Raise UserError where so many processes cannot be, before anything is prepared."""
    from model.slots import check_processes

    launch = settings.launch()
    if launch:
        check_processes(launch.processes, settings.training_values()["slots"])
        launch.words()

def _check_device(work: Path, device: str) -> None:
    """Raise UserError where the network cannot be computed there, before anything is prepared."""
    from pipeline.model_process import run_model_command

    training = settings.training_values()
    if (device, training["precision"]) != ("cpu", "single"):
        words = settings.values(settings.vocabulary)["size"]
        job = {"device": device, "network": settings.values(settings.network),
               "training": training,
               # How many "all" are is known later, and is looked at again before the training.
               "vocabulary": 0 if words == "all" else words}
        run_model_command("check", job, work / "log" / "device.json", lambda status, share: None)


def _bound_models(work: Path, keep: int, used: Path) -> None:
    """Remove the oldest models where there are more than [run] keep_models says."""
    from pipeline import gc

    for model in gc.surplus_models(gc.models(work), keep,
                                   {used.parent, *gc.current_folders(work)}):
        gc.remove(model.files)
        print(f"removed the model {model.folder}: [run] keep_models = {keep}", file=sys.stderr)


def _luigi(arguments: list[str]) -> int:
    """Run Luigi; returns its exit code."""
    import luigi.rpc
    import luigi.worker
    from luigi.retcodes import run_with_retcodes

    from pipeline import daemon, workers

    client = daemon.PatientClient if isinstance(_place(), str) else daemon.Client
    luigi.rpc.RemoteScheduler = client  # type: ignore[misc]
    luigi.worker.Worker = workers.RunWorker  # type: ignore[misc]
    try:
        run_with_retcodes(arguments)
    except SystemExit as exit:
        return int(exit.code or 0)
    return 0


def _refuse_pause(place: int | str) -> None:
    """Raises UserError while the daemon gives out no tasks because somebody told it so."""
    from pipeline import daemon

    if daemon.is_paused(place):
        raise UserError(
            f"the scheduler is paused, as by the button at {daemon.url(place)}: press it again, or "
            f"call `curl {daemon.url(place)}/api/unpause`, and run again; or run with "
            "SCHEDULER=local")


def why_command(options: argparse.Namespace) -> int:
    """``why``: the reasons, in the order in which the tasks would run. Writes nothing."""
    from pipeline.artifacts import only_looking

    with _configured(options), only_looking():
        from pipeline.stage import faults
        from pipeline.tasks import report_of

        found = False
        for title, reason in faults(report_of(Path(environment.work_folder()))):
            found = True
            print(f"{title}: {reason}")
        if not found:
            print("nothing has changed: a run would do nothing")
    return 0


def plan_command(options: argparse.Namespace) -> int:
    """``plan``: measures for some seconds; of what it makes only compiled code is left."""
    from tqdm import tqdm

    from pipeline.artifacts import only_looking
    from pipeline.plan import as_text, make_plan
    from pipeline.working_folder import claim

    work = Path(environment.work_folder())
    if options.device:
        settings.override("run", "device", options.device)
    workers = int(options.workers or settings.values(settings.run)["workers"])
    claim(work)  # the run finds there what is compiled here
    with _configured(options), only_looking(), tempfile.TemporaryDirectory() as folder, tqdm(
            total=1, bar_format="{percentage:5.1f}% |{bar:20}| {elapsed} {desc}", leave=False,
            disable=not sys.stderr.isatty()) as bar:
        def say(status: str, share: float) -> None:
            bar.n = share
            bar.set_description_str(status)

        plan = make_plan(work, Path(folder), workers, say)
    print(as_text(plan, work) if plan else "nothing has changed: a run would do nothing\n", end="")
    return 0


def settings_command(options: argparse.Namespace) -> int:
    """``settings``: all that a run with these options would have, as a file of settings."""
    from pipeline.settings_listing import listing

    given = {place: (f"--{option}", value) for option, place in _OPTIONS.items()
             if (value := vars(options)[option])}
    print(listing(given), end="")
    return 0


def report_command(options: argparse.Namespace) -> int:
    """``report``: of what a complete run has left; nothing else is made."""
    with _configured(options):
        from pipeline.tasks import report_of
        from pipeline.working_folder import only_one_run

        work = Path(environment.work_folder())
        _must_exist(work)
        with only_one_run(work):
            root = report_of(work)
            if not all(stage.complete() for stage in root.needs()):
                raise UserError("there is nothing to report yet: the last run is not complete for "
                                "this corpus and these settings; run first")
            root.mend()
    print(f"The report: {work}/report/index.html")
    return 0


def gc_command(options: argparse.Namespace) -> int:
    """``gc``: only after a complete run, so that what is in use is known."""
    with _configured(options):
        from pipeline import gc
        from pipeline.tasks import report_of
        from pipeline.working_folder import only_one_run

        work = Path(environment.work_folder())
        _must_exist(work)
        with only_one_run(work):
            root = report_of(work)
            if not root.complete():
                raise UserError("the last run is not complete for this corpus and these "
                                "settings, so what is still needed is unknown; run first")
            used, found = gc.in_use(root), gc.models(work)
            named = gc.named_models(found, options.models, used)
            paths = [*gc.unneeded_files(work, root),
                     *(path for model in named for path in model.files)]
            size = sum(path.stat().st_size for path in paths)
            for path in paths:
                print(f"{path.stat().st_size:>14,}  {path}")
            if options.remove:
                gc.remove(paths)
                print(f"removed {len(paths)} files, {size:,} bytes")
            else:
                print(f"{len(paths)} files, {size:,} bytes, are needed no more; they are removed "
                      "by: make gc REMOVE=yes (gc --remove)")
            kept = [model for model in found if model not in named and model.folder not in used]
            if kept:
                print("models that this corpus and these settings do not use, kept until they are "
                      "named: MODELS=NAME or MODELS=all (--models)")
            for model in kept:
                print(_model_line(model))
    return 0


def _model_line(model: Model) -> str:
    """A model that could be removed: bytes, name, when it was finished, and its size."""
    size = sum(path.stat().st_size for path in model.files)
    when = "training not ended" if model.receipt is None else time.strftime(
        "%Y-%m-%d %H:%M", time.localtime(model.receipt["finished"]))
    return f"{size:>14,}  {model.folder.name}  {when}, {model.network.get('num_units')} units"


def _must_exist(work: Path) -> None:
    if not work.is_dir():
        raise UserError(f"there is no working folder {work}; run first")


def history_command(options: argparse.Namespace) -> int:
    """``history``: a row for each run that made something new, the newest last."""
    from model.current import link_of, linked_models
    from pipeline import history

    work = Path(environment.work_folder())
    _must_exist(work)
    found = history.runs(work)
    print(history.table(found) if found else f"there was no whole run in {work} yet")
    for profile, model in linked_models(work).items():
        print(f"{link_of(work, profile)} names {model.parent.name}")
    return 0


def status_command(options: argparse.Namespace) -> int:
    """``status``: what the daemon knows of each task, as the visualiser shows it."""
    from pipeline import daemon

    place = _place()
    if not daemon.answers(place):
        print(f"no daemon answers on {daemon.url(place)}")
        return 0
    states = ("DONE", "RUNNING", "PENDING", "FAILED", "DISABLED", "UNKNOWN")
    lines = []
    with daemon.talking_to(place) as client:
        for status in states:
            tasks = client.task_list(status, "", limit=False)
            for task_id, task in sorted(tasks.items(), key=lambda item: item[1]["last_updated"]):
                work = environment.work_folder()
                folder = task["params"].get("working_folder", work)
                name = " ".join([task["name"], *filter(None, [task["params"].get("part")]),
                                 *([f"in {folder}"] if folder != work else [])])
                progress = task.get("progress_percentage")
                share = "" if progress is None else f"{progress:5.1f} %"
                message = html.unescape(task.get("status_message") or "")
                if status == "FAILED":
                    message = _last_line(client.fetch_error(task_id)["error"])
                link = task.get("tracking_url") or ""
                lines.append("  ".join(filter(
                    None, [f"{status.lower():9} {share:7} {name}", message, link])))
    if daemon.is_paused(place):
        print(f"the scheduler is paused; to go on: the button at {daemon.url(place)}, or "
              f"curl {daemon.url(place)}/api/unpause")
    for line in lines or ["the daemon knows of no tasks; it forgets them ten minutes after a run"]:
        print(line)
    return 0


def _last_line(error: str) -> str:
    """What went wrong, of a failure as the daemon keeps it: a text, or its JSON."""
    with contextlib.suppress(ValueError):
        error = json.loads(error)
    lines = (error or "").strip().splitlines()
    return lines[-1] if lines else ""


def daemon_command(options: argparse.Namespace) -> int:
    """``daemon``: start it."""
    from pipeline import daemon
    from pipeline.working_folder import claim

    work, place = Path(environment.work_folder()), _place()
    claim(work)
    started = daemon.start(work, place)
    print(f"luigid {'listens' if started else 'was listening already'} at {daemon.url(place)}")
    return 0


def stop_command(options: argparse.Namespace) -> int:
    """``stop``: stop it."""
    from pipeline import daemon

    print(daemon.stop(Path(environment.work_folder()), _place()))
    return 0


def worker_command(options: argparse.Namespace) -> int:
    """``worker``: until it is ended; what a run has told the daemon is all that it is told."""
    from pipeline import daemon
    from pipeline.workers import help_runs
    from pipeline.working_folder import check_is_there

    section = settings.values(settings.run)
    if section["scheduler"] == "local":
        raise UserError("a run without a daemon cannot be helped: name the daemon of one that has "
                        "it, as in make worker SCHEDULER=http://10.0.0.1:8082 WORK=folder")
    work = Path(environment.work_folder())
    check_is_there(work)
    keep_interrupts()
    _log_to(work / "log" / f"worker-{host_name()}.log")
    address = daemon.url(_place())
    print(f"helping the runs in {work} that are given out at {address}", file=sys.stderr,
          flush=True)
    help_runs(address, work, int(options.workers or section["workers"]),
              lambda line: print(line, file=sys.stderr, flush=True))
    return 0


# The settings that options stand for.
_OPTIONS = {"corpus": ("corpus", "path"), "valid": ("corpus", "valid"),
            "test": ("corpus", "test"), "device": ("run", "device"),
            "processes": ("run", "processes"), "scheduler": ("run", "scheduler"),
            "workers": ("run", "workers")}


def _corpus_flags(options: argparse.Namespace) -> list[str]:
    return [text for option, (section, name) in _OPTIONS.items() if section == "corpus"
            if (value := vars(options)[option]) for text in (f"--{section}-{name}", value)]


def _exit_code_flags() -> list[str]:
    """Luigi is to end with our codes whatever a file says: with its own, 0 where all has failed."""
    from luigi.retcodes import retcode

    return [text for name, _ in retcode.get_params()
            for text in (f"--retcode-{name.replace('_', '-')}", f"{ExitCode[name.upper()]:d}")]


@contextlib.contextmanager
def _configured(options: argparse.Namespace) -> Iterator[None]:
    """Luigi's settings as a run with the same options has them, outside of a run."""
    from luigi.cmdline_parser import CmdlineParser

    from pipeline import tasks  # noqa: F401

    with CmdlineParser.global_instance(["WriteReport", *_corpus_flags(options)]):
        yield


def keep_interrupts() -> None:
    """Let an interrupt from the keyboard come again where Python has to ignore it.

    One that arrives while a process is forked, or an object deleted, is printed and forgotten
    by Python, and the run would go on.
    """
    def again(unraisable: Any) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
        else:
            sys.__unraisablehook__(unraisable)

    signal.signal(signal.SIGALRM, signal.default_int_handler)
    sys.unraisablehook = again


class _Brief(logging.Formatter):
    """For the terminal: an error that explains itself needs no traceback."""

    def format(self, record: logging.LogRecord) -> str:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, UserError):
            return f"error: {error}"
        if type(error).__name__ == "RPCError":  # Luigi is imported late
            return (f"error: luigid, the daemon that gives out the tasks, is lost: {error}. It was "
                    "ended, or another program has taken its port. The next run goes on from here")
        return super().format(record)


class _Once(logging.Filter):
    """Of what Luigi asks and answers itself ten times a second, a line of each kind will do."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno > logging.DEBUG:
            return True
        message = record.getMessage()
        new = message not in self._seen
        self._seen.add(message)
        return new


def _log_to(path: Path) -> None:
    """Everything that Luigi logs goes to a file; the terminal gets what people want to know."""
    import luigi

    luigi.configuration.get_config().set("core", "no_configure_logging", "true")
    # A log that cannot be written, because the disk is full, say, must not hide why.
    logging.raiseExceptions = False
    path.parent.mkdir(parents=True, exist_ok=True)
    # Only here is a new file begun, not while it is written to: Luigi's workers do so, too.
    file = RotatingFileHandler(path, backupCount=_LOGS_KEPT, encoding="utf-8",
                               errors="backslashreplace")
    if path.stat().st_size > _LOG_BYTES:
        file.doRollover()
    file.addFilter(_Once())
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    terminal = logging.StreamHandler()
    terminal.setFormatter(_Brief("%(message)s"))
    terminal.addFilter(
        lambda record: record.name == "pipeline" or record.levelno >= logging.ERROR
        # A warning only, but the run is over.
        or record.getMessage().startswith("Will not run"))
    # It goes on to the end of the run, where it is told once more.
    terminal.addFilter(lambda record: not record.getMessage().startswith(
        "Luigi unexpected framework error while scheduling"))
    for name in ("luigi", "luigi-interface", "luigi.scheduler", "pipeline"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.DEBUG if name != "luigi.scheduler" else logging.WARNING)
    root = logging.getLogger()
    root.addHandler(file)
    root.addHandler(terminal)


def _table(metrics: dict) -> str:
    """The result as a short table."""
    perplexities = [("perplexity", "perplexity", "{:,.2f}"),
                    ("perplexity without <unk>", "perplexity_without_unk", "{:,.2f}")]
    without_unknown = metrics["headline"] == "perplexity_without_unk"
    if without_unknown:
        perplexities.reverse()
    mixture, baselines = metrics["mixture"], metrics["baselines"]
    compared = [(name, baselines[name]) for name in ("bigram", "unigram")]
    if mixture:
        ngrams = f"{mixture['order']}-gram"
        compared[:0] = [("mixture", mixture), (ngrams, baselines[mixture["baseline"]])]
    rows = [("", "test", "validation"),
            *((label, *(_figure(form, metrics[split][key]) for split in ("test", "valid")))
              for label, key, form in (
                  *perplexities,
                  ("out-of-vocabulary rate", "oov_rate", "{:.2%}"),
                  ("out-of-vocabulary words", "oov_count", "{:,}"),
                  ("tokens, </s> included", "tokens", "{:,}"),
                  ("sentences", "sentences", "{:,}"))),
            *((f"{name} {'without <unk>' if without_unknown else 'perplexity'}",
               *(_figure("{:,.2f}", figures[split]) for split in ("test", "valid")))
              for name, figures in compared)]
    repeated = [metrics[split]["sentences_also_in_training"] for split in ("test", "valid")]
    if any(each["count"] for each in repeated):
        rows.insert(-len(compared), ("also in training", *(  # after the sentences
            f"{each['count']:,} ({each['share']:.2%})" for each in repeated)))
    lines = [f"{a:26}{b:>14}{c:>14}" for a, b, c in rows]
    if mixture:
        weight = mixture["network_weight"]
        lines.append(f"mixture: {weight:.2f} of the network and {1 - weight:.2f} of the {ngrams} "
                     "model (Kneser-Ney)")
    lines += _confidence(metrics)
    train = metrics["train"]
    lines.append(f"trained on {train['tokens']:,} tokens in {train['updates']:,} updates, "
                 f"{train['seconds'] / 60:.1f} minutes, {train['tokens_per_second']:,.0f} tokens/s"
                 + _device(train))
    parent = train["started_from"]
    lines.append("started from random weights" if parent is None else
                 f"started from the weights of model {parent['model'][:8]}, of "
                 f"{parent['updates']:,} updates and a validation perplexity of "
                 f"{_figure('{:,.2f}', parent['best_perplexity'])} on its own validation text")
    if without_unknown:
        lines.append("<unk> never occurs in training: only figures without it mean something")
    return "\n".join(lines)


def _device(train: dict) -> str:
    """Where and how precisely it was computed, if it was not as ever."""
    if train.get("device", "cpu") == "cpu":
        return ""
    memory = train["peak_device_memory"]
    return f" on {train['device']}, products in {train['precision']}" + (
        f", at most {memory / 1e9:.2f} GB of its memory" if memory else "")


def _confidence(metrics: dict) -> list[str]:
    """How sure the test perplexity is, and its differences to others on the same text."""
    found = metrics["confidence"]
    lines = []
    if found["interval"]:
        without = " without <unk>" if found["figure"] == "perplexity_without_unk" else ""
        low, high = found["interval"]
        lines.append(f"{found['level']:.0%} confidence interval of the test perplexity{without}: "
                     f"{low:,.2f} to {high:,.2f}")
    if metrics["mixture"] and found["baseline"]:
        lines.append(f"its difference to the {metrics['mixture']['order']}-gram model's: "
                     f"{_difference(found['baseline'])}")
    if found["last_run"]:
        lines.append(f"its difference to the last run's on this text, of model "
                     f"{found['last_run']['model'][:8]}: {_difference(found['last_run'])}")
    return lines


def _difference(found: dict) -> str:
    """A difference of perplexities, with its interval."""
    text = _figure("{:+,.2f}", found["difference"])
    if found["interval"]:
        low, high = found["interval"]
        text += f" ({low:+,.2f} to {high:+,.2f})"
    return text


def _figure(form: str, value: float | None) -> str:
    return "n/a" if value is None else form.format(value)


if __name__ == "__main__":
    # What a run is for lies in the working folder.
    guard_output(needed=False)
    sys.exit(main())
