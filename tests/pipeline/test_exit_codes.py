import re

import luigi
import luigi.retcodes

from model.system.errors import BadInput, UserError
from pipeline import failures, settings, tasks
from pipeline.exit_codes import ExitCode
from tests.jobs import REPOSITORY

GUIDE = (REPOSITORY / "docs" / "nightly.md").read_text()


def test_the_guide_has_every_code_and_no_other():
    rows = re.findall(r"^\| (\d+) \| (.*) \| (yes|no) \|$", GUIDE, re.M)
    assert rows == [(str(code.value), code.meaning, "yes" if code.passes else "no")
                    for code in ExitCode]


def test_systemd_is_told_which_failures_do_not_pass():
    (listed,) = re.findall(r"^RestartPreventExitStatus=(.*)$", GUIDE, re.M)
    assert list(map(int, listed.split())) == [
        code.value for code in ExitCode if code and not code.passes]


def test_luigi_is_told_these_codes():
    settings.load()
    told = luigi.retcodes.retcode().param_kwargs
    assert told == {name: ExitCode[name.upper()] for name in told}


def test_each_code_stands_for_one_thing():
    assert len({code.value for code in ExitCode}) == len(ExitCode.__members__)


def test_bad_input_is_told_only_where_nothing_else_failed(monkeypatch):
    monkeypatch.setattr(failures, "_failures", bytearray(2))
    task = tasks.ExtractKingJames()
    assert not failures.only_bad_input()
    task.trigger_event(luigi.Event.FAILURE, task, BadInput("a bad line"))
    assert failures.only_bad_input()
    task.trigger_event(luigi.Event.FAILURE, task, UserError("the disk is full"))
    assert not failures.only_bad_input()
