"""The commands of docs/evaluate.md and docs/preview.md run as they are written."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rlx.cli.app import app

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["evaluate.md", "preview.md"])
def test_every_command_of_the_page_runs(page, tmp_path, monkeypatch):
    text = (DOCS / page).read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RLX_RUNS_DIR", str(tmp_path / "runs"))
    for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL):
        (tmp_path / "questions.jsonl").write_text(block)
    commands = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    assert len(commands) >= 2
    for command in commands:
        program, *arguments = shlex.split(command)
        more = ["--set", "mlflow=false"] if arguments[0] == "eval" else []
        result = CliRunner().invoke(app, [*arguments, *more])
        assert (program, result.exit_code) == ("rlx", 0), f"{command}: {result.output}{result.exception!r}"
