"""The environment: built beside and swapped, kept while something runs from it, exact versions."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import make_environment
from make_environment import SetUpError, environment_for, make, processes_in, remove
from tests.jobs import REPOSITORY

PYTHON = os.path.realpath(sys.executable)


@pytest.fixture
def built(monkeypatch):
    """Extras of each environment that is made: with a Python and nothing else, at once."""
    extras_of = []

    def build(root, folder, extras):
        extras_of.append(extras)
        fill(folder)
        (folder / "extras").write_text(" ".join(extras))
        (folder / "complete").touch()

    monkeypatch.setattr(make_environment, "build", build)
    return extras_of


@pytest.fixture
def checkout(tmp_path, built):
    folder = tmp_path / "checkout"
    shutil.copytree(REPOSITORY / "constraints", folder / "constraints")
    for name in ("setup.sh", "make_environment.py", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, folder)
    return folder


def fill(folder):
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(PYTHON)


def change(checkout):
    """A new version of some package."""
    for path in (checkout / "constraints").glob("*.txt"):
        path.write_text(path.read_text() + "# changed\n")


def start(python, *arguments, **options):
    """Start a process of an environment, and wait until it is that process."""
    process = subprocess.Popen(
        [python, *(arguments or ["-c", "print(flush=True); input()"])],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)
    process.stdout.readline()
    return process


def end(process):
    process.communicate(b"\n")


def environments(checkout):
    return set((checkout / ".venvs").iterdir())


def test_it_is_made_once(checkout, built):
    make(checkout, [])
    link = checkout / ".venv"
    assert os.readlink(link) == f".venvs/{environment_for(checkout, []).name}"
    before = link.lstat().st_ino
    make(checkout, [])
    assert built == [["pipeline", "test"]] and link.lstat().st_ino == before


def test_a_change_makes_another_beside_it_and_the_one_before_stays(checkout):
    make(checkout, [])
    first = (checkout / ".venv").resolve()
    change(checkout)
    make(checkout, [])
    second = (checkout / ".venv").resolve()
    assert second != first and environments(checkout) == {first, second}
    change(checkout)
    make(checkout, [])
    assert environments(checkout) == {second, (checkout / ".venv").resolve()}


def test_one_that_something_runs_from_stays(checkout):
    make(checkout, [])
    first = (checkout / ".venv").resolve()
    process = start(first / "bin" / "python")
    for _ in range(3):
        change(checkout)
        make(checkout, [])
    assert process.poll() is None and [*processes_in(first)] == [process.pid]
    assert first in environments(checkout)
    end(process)
    change(checkout)
    make(checkout, [])
    assert first not in environments(checkout)


def test_going_back_to_the_one_before_needs_no_installation(checkout, built):
    make(checkout, [])
    first, kept = (checkout / ".venv").resolve(), (checkout / "constraints").rename(
        checkout / "kept")
    shutil.copytree(kept, checkout / "constraints")
    change(checkout)
    make(checkout, [])
    shutil.rmtree(checkout / "constraints")
    kept.rename(checkout / "constraints")
    make(checkout, [])
    assert (checkout / ".venv").resolve() == first and len(built) == 2


def test_an_extra_stays_when_another_is_added_and_after_changes(checkout, built):
    make(checkout, ["torch"])
    make(checkout, [])
    make(checkout, ["lock"])
    change(checkout)
    make(checkout, [])
    assert [{*extras} - {"pipeline", "test"} for extras in built] \
        == [{"torch"}, {"lock", "torch"}, {"lock", "torch"}]


def test_an_extra_that_is_no_more_is_left_out(checkout, built):
    make(checkout, ["torch"])
    (checkout / ".venv" / "extras").write_text("test torch of-old")
    change(checkout)
    make(checkout, [])
    assert built[1:] == [["pipeline", "test", "torch"]]


def test_what_was_cut_off_is_made_again(checkout, built, monkeypatch):
    def cut_off(root, folder, extras):
        fill(folder)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(make_environment, "build", cut_off)
        make(checkout, [])
    assert not (checkout / ".venv").is_symlink()
    make(checkout, [])
    assert (checkout / ".venv" / "complete").exists()


def test_the_link_is_never_missing(checkout, monkeypatch):
    make(checkout, [])
    change(checkout)
    seen = []

    def watch(call):
        def watched(*arguments, **options):
            result = call(*arguments, **options)
            seen.append((checkout / ".venv" / "bin" / "python").exists())
            return result

        monkeypatch.setattr(os, call.__name__, watched)

    for call in (os.replace, os.rename, os.symlink, os.unlink):
        watch(call)
    make(checkout, [])
    assert seen and all(seen)


def test_a_folder_of_an_earlier_version_is_replaced_once_no_job_runs_from_it(checkout):
    fill(checkout / ".venv")
    (checkout / "pipeline.py").write_text("print(flush=True); input()")
    job = start(".venv/bin/python", "-m", "pipeline", cwd=checkout)
    daemon = start(checkout / ".venv" / "bin" / "python")
    with pytest.raises(SetUpError, match=f"still runs from .venv.*process {job.pid}."):
        make(checkout, [])
    assert not (checkout / ".venv").is_symlink()
    end(job)
    make(checkout, [])
    assert (checkout / ".venv").resolve() == environment_for(checkout, [])
    end(daemon)


def test_a_link_to_elsewhere_is_replaced_and_elsewhere_is_left_alone(checkout, tmp_path):
    fill(tmp_path / "elsewhere")
    (checkout / ".venv").symlink_to(tmp_path / "elsewhere")
    make(checkout, [])
    assert (checkout / ".venv").resolve() == environment_for(checkout, [])
    assert (tmp_path / "elsewhere" / "bin" / "python").exists()


def test_the_way_to_the_checkout_is_no_matter(checkout, tmp_path):
    shutil.copytree(REPOSITORY / "constraints", tmp_path / "moved" / "constraints")
    assert environment_for(tmp_path / "moved", []).name == environment_for(checkout, []).name


def test_one_who_may_not_write_runs_what_is_there_or_is_told(checkout, monkeypatch):
    make(checkout, [])
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    make(checkout, [])
    change(checkout)
    with pytest.raises(SetUpError, match="its owner has to call 'make setup'"):
        make(checkout, [])


def test_removal_spares_what_is_in_use(checkout):
    make(checkout, [])
    process = start((checkout / ".venv").resolve() / "bin" / "python")
    with pytest.raises(SetUpError, match=f"in use .process {process.pid}"):
        remove(checkout)
    end(process)
    remove(checkout)
    assert not (checkout / ".venv").is_symlink() and not (checkout / ".venvs").exists()
    remove(checkout)


def test_all_that_is_missing_is_told_at_once(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(make_environment.sysconfig, "get_path", lambda name: "/nonexistent")
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    with pytest.raises(SetUpError) as error:
        make_environment.check_machine()
    minor = "{}.{}".format(*sys.version_info)
    assert f"apt-get install python{minor}-venv python{minor}-dev g++" in str(error.value)


def test_the_index_and_the_way_to_it_are_pips_settings_that_stay(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    settings = tmp_path / "pip.conf"
    settings.write_text(
        "[global]\nindex-url = http://one\nproxy = http://proxy\nconstraint = theirs.txt\n"
        "target = /elsewhere\n[install]\nindex-url = http://two\nuser = true\n"
        "[freeze]\ntimeout = 7\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(settings))
    monkeypatch.setenv("PIP_FIND_LINKS", "a b")
    monkeypatch.setenv("PIP_NO_DEPS", "1")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("NETRC", raising=False)
    found = make_environment._pip_settings(Path(sys.executable))
    for machines in ("PIP_CERT", "PIP_EXTRA_INDEX_URL"):  # what /etc says
        found.pop(machines, None)
    assert found == {
        "PIP_INDEX_URL": "http://two", "PIP_PROXY": "http://proxy", "PIP_FIND_LINKS": "a b",
        "PIP_CONFIG_FILE": os.devnull, "PIP_CACHE_DIR": f"{tmp_path}/.cache/pip",
        "NETRC": f"{tmp_path}/.netrc"}


@pytest.fixture
def fake_python(tmp_path):
    """A function that makes commands for a PATH: those that say what they are when called."""
    def make_command(name, content):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash -p\n{content}\n")
        path.chmod(0o755)
        return path

    for name in ("dirname", "id"):
        make_command(name, f'exec {shutil.which(name)} "$@"')
    return make_command


SUITS = """if [[ $2 == -c ]]; then echo "$0"; else printf '%s|' "$0" "$@"; fi"""


def set_up(checkout, tmp_path, *arguments, **environment):
    done = subprocess.run([checkout / "setup.sh", *arguments], text=True, cwd=tmp_path,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env={"PATH": str(tmp_path / "bin"), **environment})
    return done.returncode, done.stdout


def test_the_newest_python_that_works_is_taken(checkout, tmp_path, fake_python):
    fake_python("python3.12", "echo 'pyenv: python3.12: command not found' >&2; exit 127")
    eleven = fake_python("python3.11", SUITS)
    fake_python("python3", SUITS)
    assert set_up(checkout, tmp_path, "bench", PYTHON="/of/the/user", PYTHONHOME="/x") == (
        0, f"{eleven}|-I|make_environment.py|bench|")


def test_an_environment_keeps_its_python_until_another_is_named(checkout, tmp_path, fake_python):
    twelve = fake_python("python3.12", SUITS)
    own = checkout / ".venv" / "bin" / "python"
    own.parent.mkdir(parents=True)
    shutil.copy(twelve, own)
    assert set_up(checkout, tmp_path) == (0, f"{own}|-I|make_environment.py|")
    assert set_up(checkout, tmp_path, "--python", "python3.12", "bench") == (
        0, f"{twelve}|-I|make_environment.py|bench|")


@pytest.mark.parametrize("name, message", [
    ("nothing", "there is no such command"), ("old", r"not a working Python.*Python 2\.7")])
def test_a_python_that_does_not_do_is_told(checkout, tmp_path, fake_python, name, message):
    fake_python("tail", f'exec {shutil.which("tail")} "$@"')
    fake_python("old", "[[ $1 == --version ]] && echo Python 2.7.18 || exit 1")
    code, output = set_up(checkout, tmp_path, "--python", name)
    assert code == 1 and re.search(message, output)


def test_without_any_python_it_says_how_to_get_one(checkout, tmp_path, fake_python):
    code, output = set_up(checkout, tmp_path)
    assert code == 1 and "no working Python 3.10, 3.11 or 3.12" in output
    assert "apt-get install python3" in output


def pins(version):
    found = {}
    for line in (REPOSITORY / "constraints" / f"python{version}.txt").read_text().splitlines():
        if not line.startswith("#"):
            name, number = re.fullmatch(r"([a-z0-9-]+)==([0-9a-z.]+)", line).groups()
            found[name] = number
    return found


def canonical(name):
    return re.sub("[-_.]+", "-", name).lower()


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12"])
def test_every_requirement_has_an_exact_version_that_it_allows(version):
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    exact = pins(version)
    for text in [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(exact[canonical(requirement.name)]), text


def test_what_is_installed_is_what_the_constraints_say():
    exact = pins("{}.{}".format(*sys.version_info))
    # There alone: setuptools, once imported, shows packages that it brings for itself.
    installed = {canonical(found.name): found.version.partition("+")[0]
                 for found in distributions(path=[sysconfig.get_path("purelib")])}
    wanted = {name: version for name, version in exact.items() if name in installed}
    assert wanted == {name: installed[name] for name in wanted} and "theano" in wanted


def test_the_checkout_is_found_from_any_folder(tmp_path):
    (tmp_path / ".venvs" / "real").mkdir(parents=True)
    (tmp_path / ".venv").symlink_to(".venvs/real")
    for folder in (".venv", ".venvs/real"):
        code = (f"import sys; sys.prefix = {str(tmp_path / folder)!r}\n{make_environment._CHECKOUT}"
                "print(sys.path[-1])")
        found = subprocess.run([sys.executable, "-I", "-c", code], cwd="/", check=True,
                               stdout=subprocess.PIPE, text=True).stdout
        assert found == f"{tmp_path}\n"


def test_the_package_is_there_as_where_it_is_installed(tmp_path):
    root = tmp_path / "checkout"
    package = root / ".venvs" / "real" / "lstm_model"
    package.parent.mkdir(parents=True)
    shutil.copytree(REPOSITORY / "model", root / "model")
    make_environment.link_package(root, package)
    root.rename(tmp_path / "moved")
    found = subprocess.run(
        [sys.executable, "-c", "import lstm_model; print(lstm_model.LanguageModel.__module__)"],
        cwd="/", check=True, stdout=subprocess.PIPE, text=True,
        env={"PYTHONPATH": str(tmp_path / "moved" / ".venvs" / "real")}).stdout
    assert found == "lstm_model.model.language_model\n"


def test_the_requirements_are_those_of_the_project_and_of_extras():
    shown = subprocess.run(
        [sys.executable, "-I", "-c", make_environment._REQUIREMENTS, REPOSITORY / "pyproject.toml",
         "pipeline", "torch"], check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    assert "Theano==1.0.5" in shown
    for name in ("h5py", "torch"):
        assert any(line.startswith(f"{name}>=") for line in shown)
    assert not any(line.startswith("pytest") for line in shown)
