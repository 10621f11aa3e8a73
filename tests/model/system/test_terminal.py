import json
import os
import subprocess
import sys
import unicodedata

import pytest

from model.system.terminal import one_line, printable
from tests.jobs import REPOSITORY, Job

BIDI_CONTROLS = [chr(n) for n in (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F),
                                  *range(0x2066, 0x206A))]


def test_what_steers_a_terminal_is_escaped():
    for number in range(0x110000):
        character = chr(number)
        shown = printable(character)
        steers = (unicodedata.category(character) in ("Cc", "Zl", "Zp")
                  and character not in "\t\n" or character in BIDI_CONTROLS)
        assert shown == (f"\\u{number:04x}" if steers else character)
        assert not steers or json.loads(f'"{shown}"') == character


def test_words_stay_as_they_are():
    for text in ("Grüße", "שלום עולם", "नमस्ते", "می\u200cخواهم", "👩\u200d👩\u200d👧", "a\tb\nc"):
        assert printable(text) == text


def run(code, **options):
    return subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, text=True, timeout=60,
                          **options)


PRINTS = """
import sys
from model.system.terminal import guard_output, one_line
guard_output(needed={needed})
for stream in (sys.stdout, sys.stderr):
    for _ in range(3):
        print("\\x1b[2J\\xe9\\u202e\\udc80", file=stream)
        stream.flush()
"""


def test_both_outputs_are_guarded_in_every_locale():
    done = run(PRINTS.format(needed=True), env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0"},
               capture_output=True, encoding="utf-8")
    assert done.returncode == 0
    assert done.stdout == done.stderr == 3 * "\\u001b[2Jé\\u202e\\udc80\n"


@pytest.fixture
def unread():
    """A pipe that nobody reads."""
    end, pipe = os.pipe()
    os.close(end)
    yield pipe
    os.close(pipe)


def test_output_that_nobody_reads_is_forgotten_where_it_is_not_needed(unread):
    done = run(PRINTS.format(needed=False), stdout=unread, stderr=unread)
    assert done.returncode == 0
    done = run(PRINTS.format(needed=True), stdout=unread, stderr=subprocess.PIPE)
    assert done.returncode and "BrokenPipeError" in done.stderr


def test_a_command_whose_output_nobody_reads(tmp_path, unread):
    job = Job(tmp_path / "job", train=20)
    done = subprocess.run([sys.executable, "-m", "pipeline", "why"], cwd=REPOSITORY,
                          env=job.environment(), stdout=unread, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_run_whose_terminal_is_closed_does_its_work(tmp_path):
    job = Job(tmp_path / "job", train=200)
    ours, terminal = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "run", "--scheduler", "local"], cwd=REPOSITORY,
        env=job.environment(), stdin=terminal, stdout=terminal, stderr=terminal,
        start_new_session=True)
    os.close(terminal)
    assert os.read(ours, 1)
    os.close(ours)
    assert process.wait(timeout=300) == 0
    assert job.metrics()
    log = (job.work / "log" / "run.log").read_text()
    assert "WriteReport" in log and "Traceback" not in log


def test_the_names_of_files_do_not_steer_the_terminal(tmp_path):
    job = Job(tmp_path / "job", train=20)
    job.work = tmp_path / "file" / "\x1b[2Jno\u202etxt"
    (tmp_path / "file").write_text("no folder")
    code, output = job.run("run", "--scheduler", "local")
    assert code == 1
    assert "file/\\u001b[2Jno\\u202etxt" in output and "\x1b" not in output


def test_names_are_printed_on_one_line_whatever_they_are():
    assert one_line("café 東京 a\\b") == "café 東京 a\\b"
    odd = "a\tb\n\r\x1b[31m\u202e\udcff"
    assert one_line(odd) == r"a\tb\n\r\x1b[31m\u202e\udcff"
