"""Choose every unlearning method's learning rate and weight of the retain term at equal budget, on the validation half.

python experiments/studies/unlearn_defaults.py [--jobs 2] [--epochs 12] [--seeds 2] [--methods palu npo] [--points 6]

Every method gets the same number of points (learning rate x alpha, or learning rates alone where it has no alpha), each
with the same epochs and seeds on the embedded set. A point's score is the most forgetting on the validation half among
the checkpoints within the utility budget (mean over seeds); the final half is neither attacked nor read. Complete runs
are not repeated. Writes experiments/studies/unlearn_defaults.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from rlx.registry import names
from rlx.runs.folder import RunDir, read_json
from rlx.specs.resolve_unlearn import resolve_unlearn, unlearn_method
from rlx.specs.unlearn import UnlearnSpec

OUT = Path(__file__).with_name("unlearn_defaults.md")
RATES = (3e-4, 1e-3, 1e-4)
ALPHAS = (1.0, 5.0)
OTHER_RATES = (3e-5, 2e-3, 6e-4)
"""Further learning rates of the methods without alpha, so that they have as many points."""
HEADER = """# Defaults of the unlearning methods, chosen on the validation half of the embedded set

For each method the best of {points} points at equal budget ({epochs} epochs, {seeds} seeds): the most forgetting
(1 - mean probability of the validation half's answers) among the checkpoints with at least 95 % of the original's
utility, mean over seeds with the smallest and largest value. "within" is the number of seeds with such a checkpoint;
without one a seed counts as 0. The final half of the forget set was not read.

| method | learning rate | alpha | forgetting | utility | within |
|---|---|---|---|---|---|
"""


@dataclass(frozen=True, slots=True)
class Point:
    """One setting of a method.

    Example:
        ``Point("palu", lr=3e-4, alpha=5.0)``
    """

    method: str
    lr: float
    alpha: float | None

    def spec(self, epochs: int, seed: int) -> dict[str, Any]:
        """The run's spec."""
        params = {} if self.alpha is None else {"alpha": self.alpha}
        return {
            "epochs": epochs,
            "seed": seed,
            "method": {"name": self.method, "params": params},
            "optim": {"lr": self.lr},
            "evaluation": {"attacks": []},
            "tracker": {"mlflow": False},
        }


@dataclass(frozen=True, slots=True)
class Score:
    """What one run reached on the validation half."""

    forgetting: float
    utility: float
    within: bool


def main() -> None:
    """Run the missing points, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--points", type=int, default=6, help="points of each method, at most 6")
    parser.add_argument("--methods", nargs="*", default=names("unlearn"))
    parser.add_argument("--runs-dir", type=Path, default=Path("runs/unlearn_defaults"))
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    points = [point for method in arguments.methods for point in points_of(method)[: arguments.points]]
    runs = [(point, seed) for point in points for seed in range(arguments.seeds)]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(lambda run: start(run[0].spec(arguments.epochs, run[1]), arguments.runs_dir), runs))
    scores: dict[Point, list[Score]] = {point: [] for point in points}
    for point, seed in runs:
        folder = RunDir(arguments.runs_dir / resolve_unlearn(point.spec(arguments.epochs, seed)).run_id)
        scores[point].append(score_of(folder))
    rows = [row(best_of(method, scores)) for method in arguments.methods]
    command = " ".join(["python experiments/studies/unlearn_defaults.py", *sys.argv[1:]])
    footer = f"\n`{command}`, {date.today()}, {platform.machine()}, {os.cpu_count()} CPU cores, one thread per run.\n"
    head = HEADER.format(points=arguments.points, epochs=arguments.epochs, seeds=arguments.seeds)
    arguments.out.write_text(head + "\n".join(rows) + "\n" + footer, encoding="utf-8")
    print(arguments.out)


def points_of(method: str) -> list[Point]:
    """The points of a method, the same number for each."""
    component = unlearn_method(UnlearnSpec(method={"name": method}))
    if "alpha" in component.hyper.model_fields:
        return [Point(method, lr, alpha) for alpha, lr in itertools.product(ALPHAS, RATES)]
    return [Point(method, lr, None) for lr in (*RATES, *OTHER_RATES)]


def start(spec: Mapping[str, Any], runs: Path) -> None:
    """Train one run through the command line; a failed one is reported and ends the sweep."""
    sets = [f"--set={key}={json.dumps(value)}" for key, value in spec.items()]
    command = [sys.executable, "-m", "rlx.cli", "unlearn", "--against", "", *sets, "--runs-dir", str(runs)]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if result.returncode:
        raise SystemExit(f"{spec['method']} seed {spec['seed']}: {result.stderr.strip().splitlines()[-1]}")


def score_of(folder: RunDir) -> Score:
    """The selected checkpoint on the validation half."""
    summary = read_json(folder.summary)
    _, forgetting, utility = next(point for point in summary["curve"] if point[0] == summary["selected_step"])
    within = bool(summary["within_budget"])
    return Score(forgetting if within else 0.0, utility, within)


def best_of(method: str, scores: Mapping[Point, Sequence[Score]]) -> tuple[Point, Sequence[Score]]:
    """The point with the most forgetting on average, and its runs."""
    own = [(point, of_point) for point, of_point in scores.items() if point.method == method]
    return max(own, key=lambda pair: statistics.mean(score.forgetting for score in pair[1]))


def row(best: tuple[Point, Sequence[Score]]) -> str:
    """The table's row of a method."""
    point, of_point = best
    forgetting = [score.forgetting for score in of_point]
    utility = statistics.mean(score.utility for score in of_point)
    alpha = "-" if point.alpha is None else f"{point.alpha:g}"
    return (
        f"| {point.method} | {point.lr:g} | {alpha} | {statistics.mean(forgetting):.3f} "
        f"({min(forgetting):.3f} to {max(forgetting):.3f}) | {utility:.3f} | "
        f"{sum(score.within for score in of_point)} of {len(of_point)} |"
    )


if __name__ == "__main__":
    main()
