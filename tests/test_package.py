"""The package as people install it: what is in the wheel, and that it works without a compiler.

Nothing is fetched: the wheel is built by this environment's setuptools, and what it needs is linked
from there.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest

from model.current import link_to
from model.inference import log_probabilities_of, read_model
from model.language_model import LanguageModel
from model.system import environment, extras
from pipeline.corpus.king_james import extract_kjv
from tests.jobs import REPOSITORY
from tests.models import write_model

PACKAGES = Path(sysconfig.get_path("purelib"))
OURS = ("model", "pipeline", "constraints", "pyproject.toml", "luigi.cfg", "README.md", "LICENSE")


def copy_of_the_project(folder):
    for name in OURS:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            folder.mkdir(exist_ok=True)
            shutil.copy(source, folder / name)
    return folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    project = copy_of_the_project(folder / "project")
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index",
                    "--no-build-isolation", "--wheel-dir", folder, project], check=True)
    found, = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The bin folder of an environment with the wheel, numpy and h5py, and nothing else."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    packages, = folder.glob("lib/python3*/site-packages")
    for name in ("numpy", "h5py"):
        for path in PACKAGES.glob(f"{name}*"):
            (packages / path.name).symlink_to(path)
    subprocess.run([sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install",
                    "--quiet", "--no-index", wheel], check=True)
    return folder / "bin"


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A working folder with a current model, and a text of real sentences beside it."""
    folder = tmp_path_factory.mktemp("work")
    extract_kjv(folder / "all.txt")
    lines = (folder / "all.txt").read_text().splitlines()[:200]
    (folder / "text.txt").write_text("".join(f"{line}\n" for line in lines))
    path = folder / "models" / "f00d" / "model.h5"
    write_model(path, lines=lines)
    link_to(path, folder)
    return folder


@pytest.fixture
def elsewhere(tmp_path):
    """A user's folder, whose own modules have the names of ours."""
    for name in ("model", "pipeline"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('this is a module of the user')\n")
    return tmp_path


def run(command, folder, **variables):
    return subprocess.run([*map(str, command)], cwd=folder, text=True, capture_output=True,
                          stdin=subprocess.DEVNULL, env={"PATH": os.environ["PATH"], **variables})


def test_every_package_and_file_is_in_the_wheel():
    tomllib = pytest.importorskip("tomllib")
    tool = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {f"lstm_model.{'.'.join(path.relative_to(REPOSITORY).parent.parts)}"
             for top in ("model", "pipeline") for path in (REPOSITORY / top).rglob("__init__.py")}
    assert found - {"lstm_model.model.installed"} | {"lstm_model"} == {*tool["packages"]}
    data = {file.resolve() for package, patterns in tool["package-data"].items()
            for pattern in patterns
            for file in (REPOSITORY / {"lstm_model": "model/installed"}.get(
                package, package.removeprefix("lstm_model.").replace(".", "/"))).glob(pattern)}
    others = {path for top in ("model", "pipeline") for path in (REPOSITORY / top).rglob("*")
              if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert data == others | {REPOSITORY / "luigi.cfg"}


@pytest.mark.extras
def test_the_wheel_has_one_package_and_the_two_commands(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
        commands = next(file.read(name).decode() for name in names
                        if name.endswith("entry_points.txt"))
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"lstm_model"}
    assert re.findall(r"^([a-z-]+) =", commands, re.MULTILINE) == ["lstm-model", "lstm-pipeline"]
    for name in ("luigi.cfg", "py.typed", "model/engine/source/native.cpp",
                 "pipeline/profiles/million.cfg", "pipeline/report/templates/report.html"):
        assert f"lstm_model/{name}" in names


USE = """
import doctest, json, sys
import lstm_model
from lstm_model import LanguageModel
lines = open(sys.argv[1]).read().splitlines()
model = LanguageModel.load()
scores = [score.log_probabilities.tolist() for score in model.score(lines)]
examples = [test for test in doctest.DocTestFinder().find(LanguageModel, "LanguageModel")
            if test.examples]
runner = doctest.DocTestRunner()
for example in examples:
    runner.run(example, out=sys.stderr.write)
others = {name.partition(".")[0] for name in sys.modules} - {*sys.stdlib_module_names}
print(json.dumps({"file": lstm_model.__file__, "scores": scores, "examples": len(examples),
                  "failures": runner.failures, "ours": [n for n in ("model", "pipeline", "theano",
                  "polars") if n in sys.modules]}))
"""


@pytest.mark.extras
def test_the_interface_works_with_numpy_and_h5py_alone(installed, work, elsewhere):
    (elsewhere / "use.py").write_text(USE)
    done = run([installed / "python", "use.py", work / "text.txt"], elsewhere,
               PIPELINE_WORK=str(work))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert Path(found["file"]).is_relative_to(installed.parent)
    assert found["ours"] == [] and found["examples"] == 6 and found["failures"] == 0, done.stderr
    checkpoint = read_model(work / "models" / "current")
    compiled, vocabulary = log_probabilities_of(checkpoint, "cpu"), checkpoint.vocabulary
    here = LanguageModel.load(work / "models" / "current")
    lines = (work / "text.txt").read_text().splitlines()
    for line, scores in zip(lines, found["scores"], strict=True):
        targets = vocabulary.encode([*here.tokenize(line), "</s>"])[None]
        inputs = np.roll(targets, 1)
        inputs[0, 0] = vocabulary.start
        assert np.abs(compiled(inputs, targets)[0] - scores).max() < 1e-5


@pytest.mark.extras
def test_its_types_reach_who_uses_it(installed, elsewhere):
    (elsewhere / "typed.py").write_text(
        "from lstm_model import LanguageModel\n"
        "reveal_type(LanguageModel.load().score([])[0].tokens)\n"
        "reveal_type(LanguageModel.load().next_words('a'))\n"
        "LanguageModel.load().perplexity(1)\n")
    done = run([sys.executable, "-m", "mypy", "--python-executable", installed / "python",
                "--cache-dir", elsewhere / "cache", "typed.py"], elsewhere)
    for words in ('type is "tuple[str, ...]"', 'type is "list[tuple[str, float]]"',
                  'typed.py:4: error: Argument 1 to "perplexity"'):
        assert words in done.stdout.replace("builtins.", ""), done.stdout


@pytest.mark.extras
def test_the_command_works_from_any_folder(installed, work, elsewhere):
    variables = {"PIPELINE_WORK": str(work)}
    done = run([installed / "lstm-model", "score", work / "text.txt"], elsewhere, **variables)
    assert done.returncode == 0 and done.stderr.startswith("model: "), done.stderr
    total = done.stdout.splitlines()[-1].split("\t")
    expected = LanguageModel.load(work / "models" / "current").perplexity(
        (work / "text.txt").read_text().splitlines())
    assert total[0] == "total" and float(total[5]) == pytest.approx(expected, rel=1e-5)
    done = run([installed / "lstm-model", "sample", "--count", "2", "--seed", "1"], elsewhere,
               **variables)
    assert done.stdout.count("\n") == 2
    # Without a name the working folder is here.
    done = run([installed / "lstm-model", "info"], elsewhere)
    assert done.returncode == 1 and f"{elsewhere}/data/work" in done.stderr


@pytest.mark.extras
@pytest.mark.parametrize("command, package, extra", [
    (["lstm-model", "score", "TEXT", "--device", "cpu"], "theano", "pipeline"),
    (["lstm-model", "export", "--format", "onnx", "OUT"], "onnx", "export"),
    (["lstm-model", "export", "--format", "safetensors", "OUT"], "safetensors", "export"),
    (["lstm-pipeline", "run"], "luigi", "pipeline")])
def test_what_is_missing_is_told_in_one_line_with_the_command(
        installed, work, elsewhere, command, package, extra):
    given = {"TEXT": work / "text.txt", "OUT": elsewhere / "out"}
    done = run([installed / command[0], *(given.get(word, word) for word in command[1:])],
               elsewhere, PIPELINE_WORK=str(work))
    said = [line for line in done.stderr.splitlines() if not line.startswith("model: ")]
    assert done.returncode == 1 and len(said) == 1, done.stderr
    assert f"the package {package}, of the extra {extra}" in said[0]
    assert f".[{extra}]'" in said[0] and not (elsewhere / "out").exists()


def test_in_a_checkout_other_commands_install_what_is_missing(monkeypatch, tmp_path):
    missing = ModuleNotFoundError("no", name="onnx.helper")
    assert extras.what_is_missing(missing).endswith("./setup.sh export")
    monkeypatch.setattr(environment, "CHECKOUT", tmp_path)
    assert "pip install '.[export]'" in extras.what_is_missing(missing)


def documented():
    """The lines of docs/using.md that install the job with pip."""
    text = (REPOSITORY / "docs" / "using.md").read_text()
    block, = re.findall(r"```sh pip\n([^`]*'\.\[pipeline\]'[^`]*)```", text)
    return block


def test_the_documents_have_the_line_that_the_error_names(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "CHECKOUT", tmp_path)
    line = extras.command("pipeline").partition(" (in a clone")[0]
    words = [re.sub(r"\s+", " ", text) for text in (line, documented().replace("\\\n", ""))]
    assert all(part in words[1] for part in words[0].split(" && "))


@pytest.mark.extras
def test_the_documented_line_installs_the_job_and_it_runs(tmp_path, elsewhere):
    """From the package index, as far as nothing is in pip's cache: minutes."""
    project = copy_of_the_project(tmp_path / "clone")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    pip_settings = {name: value for name, value in os.environ.items()
                    if name.startswith("PIP_") or name.upper().endswith("_PROXY")}
    variables = {**pip_settings, "HOME": os.environ.get("HOME", "/"),
                 "PATH": f"{tmp_path / 'venv' / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-ec", documented()], cwd=project, env=variables, text=True,
                          capture_output=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    settings = elsewhere / "tiny.cfg"
    settings.write_text("[training]\nmax_epochs = 1\n[network]\nnum_units = 4\n"
                        "[vocabulary]\nsize = 60\n[baseline]\norder = 2\n")
    lines = tmp_path / "all.txt"
    extract_kjv(lines)
    (elsewhere / "text.txt").write_text("".join(
        f"{line}\n" for line in lines.read_text().splitlines()[:1500]))
    done = run([tmp_path / "venv" / "bin" / "lstm-pipeline", "run", "--scheduler", "local",
                "--corpus", "text.txt"], elsewhere, PATH=variables["PATH"],
               LUIGI_CONFIG_PATH=str(settings))
    assert done.returncode == 0, done.stderr
    work = elsewhere / "data" / "work"
    assert (work / "models" / "current").exists() and (work / "report" / "index.html").exists()
    done = run([tmp_path / "venv" / "bin" / "lstm-model", "score", "text.txt"], elsewhere,
               PATH=variables["PATH"])
    assert done.returncode == 0 and "\ntotal\t" in done.stdout


def test_what_is_installed_knows_its_parts_by_relative_names():
    """The files of the package's own folder, which no other test imports."""
    for path in (REPOSITORY / "model" / "installed").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            assert not isinstance(node, ast.ImportFrom) or node.level == 1
