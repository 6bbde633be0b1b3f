"""Every example of docs/rewards.md trains."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "rewards.md").read_text(encoding="utf-8")
FILES = {match[1]: match[2] for match in re.finditer(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", PAGE, flags=re.DOTALL)}
COMMANDS = re.findall(r"```sh\nrlx (train .*?)\n```", PAGE)
SMALL = [
    "--steps", "1", "--set", "batch.prompts=4", "--set", "rollout.samples_per_prompt=4", "--set", "evaluation.every=0",
    "--set", "tracker.mlflow=false",
]  # fmt: skip


def test_every_file_of_the_page_is_used_by_a_command():
    assert len(COMMANDS) == 7
    assert all(any(name in command for command in COMMANDS) for name in FILES)


@pytest.mark.parametrize("command", COMMANDS)
def test_an_example_trains(command, tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "rlx.cli", *command.split(), *SMALL, "--runs-dir", "runs"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr


def test_the_readme_links_the_page_and_shows_its_first_example():
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert "(docs/rewards.md)" in readme and FILES["my_rewards.py"] in readme
