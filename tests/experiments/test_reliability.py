"""The sweep over random valid specs, and the campaign of kills: small parts of what runs at night."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "experiments" / "reliability"


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(FOLDER / script), *arguments], capture_output=True, text=True)


def module(name: str):
    description = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    loaded = importlib.util.module_from_spec(description)
    description.loader.exec_module(loaded)
    return loaded


@pytest.mark.parametrize("command", ["train", "unlearn", "eval"])
def test_every_key_of_the_schema_is_drawn_and_the_same_seed_gives_the_same_spec(command):
    draws = module("spec_draws")
    contents = [draws.draw(command, seed) for seed in range(400)]
    assert contents == [draws.draw(command, seed) for seed in range(400)]

    def keys(content, prefix=""):
        for key, value in content.items():
            yield f"{prefix}{key}"
            if isinstance(value, dict):
                yield from keys(value, f"{prefix}{key}.")

    drawn = {key for content in contents for key in keys(content)}
    assert draws.drawn_keys(command) <= drawn


@pytest.mark.nightly
@pytest.mark.parametrize(("command", "draws"), [("train", 30), ("unlearn", 15), ("eval", 15)])
def test_every_valid_spec_runs_or_is_refused_in_one_sentence(command, draws, tmp_path):
    done = run("sweep.py", "--commands", command, "--draws", str(draws), "--folder", str(tmp_path))
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.mark.nightly
def test_twenty_kills_change_no_bit(tmp_path):
    done = run("campaign.py", "--kills", "20", "--folder", str(tmp_path / "campaign"))
    assert done.returncode == 0, done.stdout + done.stderr
    report = (tmp_path / "campaign" / "report.md").read_text()
    assert "0 runs differ" in report and "None." in report


def test_a_difference_is_found_and_named(tmp_path):
    compare = module("compare_runs")
    for name, text in (("a", "1"), ("b", "2")):
        folder = tmp_path / name / "runs" / "run" / "model"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_text(text)
        (folder.parent / "metrics.jsonl").write_text('{"step": 1, "time/step": %s}\n' % text)  # noqa: UP031
    assert compare.differences(tmp_path / "a", tmp_path / "b") == ["run: model/model.safetensors (weights)"]
    (tmp_path / "b" / "runs" / "other").mkdir()
    assert compare.differences(tmp_path / "a", tmp_path / "b")[0] == "other exists in one of both folders"
