"""The README's picture is drawn from runs' own figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

DRAW = Path(__file__).parents[2] / "docs" / "learning_curve.py"


def run_folder(root: Path, algorithm: str, seed: int) -> Path:
    folder = root / f"{algorithm}_s{seed}"
    folder.mkdir()
    spec = {"spec": {"algorithm": {"name": algorithm}, "seed": seed}}
    (folder / "resolved.json").write_text(json.dumps(spec))
    records = [{"step": step, "train/reward": 0.3 + 0.01 * step + 0.001 * seed} for step in range(1, 21)]
    for step in (0, 10, 20):
        figures = {"eval/sampled_accuracy": 0.3 + step / 50, "eval/greedy_accuracy": 0.9, "eval/problems": 500}
        records.append({"step": step, **figures})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def draw(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, DRAW, *arguments], capture_output=True, text=True)


def test_the_picture_names_algorithms_with_all_their_seeds_and_is_the_same_each_time(tmp_path):
    folders = [run_folder(tmp_path, name, seed) for name in ("dgpo", "grpo") for seed in (2, 0, 1)]
    for name in ("one.svg", "two.svg"):
        done = draw(*folders, "--out", tmp_path / name)
        assert done.returncode == 0, done.stderr
    picture = (tmp_path / "one.svg").read_text()
    assert picture == (tmp_path / "two.svg").read_text()
    for text in ("dgpo, seeds 0, 1, 2", "grpo, seeds 0, 1, 2", "sampled, 500 held-out problems", "mean of 9 steps"):
        assert text in picture, text
    other = run_folder(tmp_path, "maspo", 0)
    assert draw(*folders, other, "--out", tmp_path / "three.svg").returncode == 0
    assert "maspo, seed 0<" in (tmp_path / "three.svg").read_text()


def test_a_folder_that_is_no_run_is_one_sentence(tmp_path):
    done = draw(tmp_path, "--out", tmp_path / "no.svg")
    assert done.returncode == 1
    assert "resolved.json cannot be read" in done.stderr and "Traceback" not in done.stderr
    folder = run_folder(tmp_path, "dgpo", 0)
    (folder / "metrics.jsonl").write_text("")
    assert "has no evaluation to draw" in draw(folder, "--out", tmp_path / "no.svg").stderr
    assert not (tmp_path / "no.svg").exists()
