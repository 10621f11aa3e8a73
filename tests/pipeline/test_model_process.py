"""What the model's processes tell of a failure reaches the task that started them."""

import json
import sys

import pytest

from model.system.errors import BadInput, DamagedFile, UserError
from pipeline.model_process import run_model_command


@pytest.mark.parametrize("report, failure", [
    ({"error": "no"}, UserError),
    ({"error": "no", "bad_input": True}, BadInput),
    ({"error": "no", "damaged": "file"}, DamagedFile),
])
def test_a_failure_keeps_its_kind(tmp_path, monkeypatch, report, failure):
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\necho '{json.dumps(report)}'\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(UserError, match="no") as raised:
        run_model_command("train", {}, tmp_path / "job.json", lambda status, share: None)
    assert type(raised.value) is failure
