"""The GPU check: its phases exist, an interrupted one leaves its results, and without a GPU it says so."""

from __future__ import annotations

import ast
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "experiments" / "gpu"
CHECK = runpy.run_path(str(FOLDER / "check.py"))


def run(tmp_path, *arguments, **environment):
    variables = {**os.environ, "OUT": str(tmp_path / "out"), "WORK": str(tmp_path / "work"), **environment}
    command = [sys.executable, str(FOLDER / "check.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=variables)


def test_every_phase_names_a_function_and_those_without_a_result_come_first():
    for module, function in (entry[1:] for entry in CHECK["PHASES"].values()):
        tree = ast.parse((FOLDER / "phases" / f"{module}.py").read_text())
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert list(CHECK["PHASES"])[:7] == ["env", "resume", "palu", "trl", "unlearn", "demo", "eval"]
    assert "fastapi" in (FOLDER / "wheels.txt").read_text().splitlines()


def test_without_a_gpu_it_stops_with_one_sentence(tmp_path):
    result = run(tmp_path, "all")
    assert result.returncode != 0
    assert result.stderr.strip() == (
        "check.py: torch sees no GPU here, so nothing was checked (--small tries the check on a CPU)"
    )


def test_chosen_phases_run_and_leave_their_results_in_one_file(tmp_path):
    result = run(tmp_path, "all", "--small", PHASES="env,head")
    assert result.returncode == 0, result.stderr
    results = json.loads((tmp_path / "out" / "all.json").read_text())
    assert results["env"]["cuda"] is False
    assert results["head"]["rlx, tiles of 2048"]["error"] < 0.1


def test_an_unknown_phase_is_named_with_the_choices(tmp_path):
    result = run(tmp_path, "all", "--small", PHASES="env,nothing")
    assert result.returncode != 0 and "unknown phases ['nothing']; choices: env, resume" in result.stderr
