"""README and docs say what is so: their commands are run, on small texts and with tiny networks."""

import lzma
import os
import re
import shutil
import socket
import subprocess

import pytest

from pipeline.corpus.king_james import extract_kjv
from tests.documents import LANGUAGES, LEFT_OUT, blocks, first_missing, form
from tests.jobs import REPOSITORY

DOCUMENTS = ["README.md", "CONTRIBUTING.md",
             *(f"docs/{path.name}" for path in sorted((REPOSITORY / "docs").glob("*.md")))]
BLOCKS = {name: list(blocks(REPOSITORY / name, name)) for name in DOCUMENTS}
# What a document's example makes, and others must not look for.
MADE_BY_EXAMPLES = {"pipeline/lengths.py"}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_block_is_run_or_says_why_not(name):
    commands = None
    for block in BLOCKS[name]:
        if block.language == "sh":
            commands = block
            assert len(block.marks) < 2 and LEFT_OUT.keys() >= set(block.marks), block
        elif block.is_printed:
            assert commands is not None, f"{block}: nothing printed this"
        else:
            assert block.language in LANGUAGES and not block.marks, block


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name):
    for target in re.findall(r"\]\(([^)#\s]+)", (REPOSITORY / name).read_text()):
        if "://" not in target:
            assert ((REPOSITORY / name).parent / target).exists(), target


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_is_named_exists(name):
    text = (REPOSITORY / name).read_text()
    for path in re.findall(r"`((?:model|pipeline|tests|benchmarks|docs)/[\w/.-]*)`", text):
        assert path in MADE_BY_EXAMPLES or (REPOSITORY / path).exists(), path


def test_forms():
    assert form("perplexity   22.12     20.52") == "perplexity 0 0"
    assert form("perplexity -1,019.1 +3") == "perplexity 0 0"
    assert first_missing("a 1\n...\nc 2", "x\na 5\nb\nc 7\n") is None
    assert first_missing("a 1\nc 2", "c 7\na 5\n") == "c 2"


def copy_checkout(folder):
    """Copy the files of the working tree; its networks are made tiny, its daemon's port free."""
    names = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                           cwd=REPOSITORY, capture_output=True, check=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, folder / name)
    for name in (".venv", ".venvs"):
        (folder / name).symlink_to((REPOSITORY / name).resolve())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        small = {"num_units": 16, "max_epochs": 1, "port": free.getsockname()[1]}
    for path in [folder / "luigi.cfg", *(folder / "pipeline" / "profiles").glob("*.cfg")]:
        text = path.read_text()
        for setting, value in small.items():
            text = re.sub(rf"(?m)^{setting} = .*", f"{setting} = {value}", text)
        path.write_text(text)


def write_texts(folder):
    """Write the texts that the documents name: a thousand verses or two each."""
    extract_kjv(folder / "verses.txt")
    verses = (folder / "verses.txt").read_text().splitlines(keepends=True)
    texts = {"train.txt": verses[:4000], "valid.txt": verses[4000:4200],
             "test.txt": verses[4200:4400]}
    for corpus, prefix in {"simple-examples/data/ptb.{}.txt": "", "wikitext-2/wiki.{}.tokens": " "
                           }.items():
        for split in ("train", "valid", "test"):
            texts[corpus.format(split)] = [prefix + line.rstrip("\n") + " \n"
                                           for line in texts[f"{split}.txt"]]
    for name, lines in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("".join(lines))
    (folder / "news").mkdir()
    (folder / "mine.cfg").write_text("[training]\nrate = 0.003\n")
    for number in range(2):
        with lzma.open(folder / "news" / f"{number}.txt.xz", "wt") as file:
            file.writelines(verses[number::20])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A checkout where the first of the two commands was run."""
    folder = tmp_path_factory.mktemp("documents") / "finished"
    folder.mkdir()
    copy_checkout(folder)
    write_texts(folder)
    share_compiled_code(folder, "")
    subprocess.run(["make", "run", "SCHEDULER=local"], cwd=folder, env=environment(folder),
                   check=True)
    return folder


@pytest.fixture
def checkout(finished, tmp_path):
    """The same, and before that command for the document that begins with it."""
    def copy(begun):
        shutil.copytree(finished, tmp_path / "checkout", symlinks=True)
        if not begun:
            shutil.rmtree(tmp_path / "checkout" / "data" / "work")
        return tmp_path / "checkout"

    yield copy
    for daemon in (tmp_path / "checkout" / "data").rglob("luigid/pid"):
        subprocess.run(["make", "stop", f"WORK={daemon.parents[1]}"], capture_output=True,
                       cwd=tmp_path / "checkout", env=environment(tmp_path), check=True)


def environment(folder):
    """A new user's: none of what the tests set."""
    return {"PATH": os.environ["PATH"], "HOME": str(folder), "OMP_NUM_THREADS": "1"}


def share_compiled_code(folder, commands):
    """Let each working folder that is named begin with what the tests have compiled."""
    works = {"data/work", *re.findall(r"(?:WORK=|--work )(\S+)", commands)}
    for work in works:
        if not (folder / work).exists():
            (folder / work).mkdir(parents=True)
            compiled = REPOSITORY / os.environ["PIPELINE_WORK"] / "theano"
            (folder / work / "theano").symlink_to(compiled)


@pytest.mark.extras
@pytest.mark.parametrize("name", [name for name in DOCUMENTS
                                  if any(block.is_run for block in BLOCKS[name])])
def test_commands(name, checkout):
    folder, output = checkout(begun=name != "README.md"), ""
    for block in BLOCKS[name]:
        # A place of the reader's machine, and a network that takes minutes.
        commands = block.text.replace("=/data/", "=data/elsewhere/")
        commands = commands.replace("num_units=512", "num_units=24")
        if block.is_run:
            share_compiled_code(folder, commands)
            done = subprocess.run(["bash", "-euo", "pipefail", "-c", commands], cwd=folder,
                                  env=environment(folder), text=True, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            output = done.stdout
            assert done.returncode == 0, f"{block} ended with {done.returncode}:\n{output}"
        elif block.language == "sh":
            output = ""
        elif block.is_printed and output:
            line = first_missing(block.text, output)
            assert line is None, f"{block}: '{line}' was not printed in\n{output}"
