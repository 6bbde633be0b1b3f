"""Draw the learning curves of runs from their metrics.jsonl.

python docs/learning_curve.py runs/RUN [runs/RUN ...] --out docs/learning_curve.svg

Runs of one algorithm share a colour and differ in seed. Bands are 95 % Wilson intervals over the held-out problems.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from rlx.errors import UserError
from rlx.numerics.intervals import wilson
from rlx.runs.folder import RunDir, read_json
from rlx.runs.tracking import read_metrics

COLOURS = ("#2563eb", "#d97706", "#059669", "#7c3aed", "#dc2626", "#0891b2")
GREY = "#737c89"
"""Reads on a white page and on a dark one; the picture has no background of its own."""
SMOOTH = 9
"""Steps that a point of the training reward is the mean of."""


@dataclass(frozen=True, slots=True)
class Run:
    """What is drawn of one run.

    Example:
        ``Run("dgpo", 0, rewards=[(1, 0.36), (2, 0.34)], evaluations=[{"step": 0, "eval/problems": 500, ...}])``
    """

    algorithm: str
    seed: int
    rewards: list[tuple[float, float]]
    """Step and mean reward."""
    evaluations: list[dict[str, float]]


def read_run(folder: Path) -> Run:
    """The figures of one run folder.

    Raises:
        UserError: when it holds none.
    """
    run = RunDir(folder)
    spec = read_json(run.resolved)["spec"]
    records = read_metrics(run.metrics)
    evaluations = [record for record in records if "eval/sampled_accuracy" in record]
    if not evaluations:
        raise UserError(f"{folder} has no evaluation to draw", fix="name the folder of a run of rlx train")
    rewards = [(record["step"], record["train/reward"]) for record in records if "train/reward" in record]
    return Run(spec["algorithm"]["name"], spec["seed"], rewards, evaluations)


def smoothed(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Each value replaced by the mean of up to ``SMOOTH`` around it; fewer at the ends, the same number each side."""
    result = []
    for i, (step, _) in enumerate(points):
        reach = min(SMOOTH // 2, i, len(points) - 1 - i)
        near = [value for _, value in points[i - reach : i + reach + 1]]
        result.append((step, sum(near) / len(near)))
    return result


def draw(runs: Sequence[Run], out: Path) -> None:
    """Write one picture of all runs."""
    plt.rcParams.update({"font.size": 9, "svg.fonttype": "none", "svg.hashsalt": "rlx", "font.family": "sans-serif"})
    figure, axes = plt.subplots(figsize=(7.2, 3.6))
    seeds: dict[str, list[int]] = {}
    for run in runs:
        seeds.setdefault(run.algorithm, []).append(run.seed)
    colour = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(seeds)}
    for run in runs:
        _draw_run(axes, run, colour[run.algorithm])
    problems = int(runs[0].evaluations[-1]["eval/problems"])
    handles = [Line2D([], [], color=colour[name], linewidth=3, label=_with_seeds(name, seeds[name])) for name in seeds]
    handles += [
        Line2D([], [], color=GREY, marker="o", markersize=3, label=f"sampled, {problems} held-out problems"),
        Line2D([], [], color=GREY, marker="o", markersize=3, linestyle="--", label="greedy, the same problems"),
        Line2D([], [], color=GREY, alpha=0.6, linewidth=0.8, label=f"training reward, mean of {SMOOTH} steps"),
    ]
    axes.set(xlabel="step", ylabel="accuracy, with 95 % intervals", ylim=(0, 1))
    axes.margins(x=0.01)
    _quiet(axes)
    axes.legend(handles=handles, frameon=False, loc="lower right", labelcolor=GREY)
    figure.tight_layout()
    # Without a date the same runs give the same file.
    figure.savefig(out, transparent=True, dpi=150, metadata={"Date": None} if out.suffix == ".svg" else None)
    plt.close(figure)


def _draw_run(axes: Axes, run: Run, colour: str) -> None:
    axes.plot(*zip(*smoothed(run.rewards), strict=True), color=colour, alpha=0.45, linewidth=0.8)
    steps = [record["step"] for record in run.evaluations]
    for key, style in (("eval/sampled_accuracy", "-"), ("eval/greedy_accuracy", "--")):
        shares = [(record[key], int(record["eval/problems"])) for record in run.evaluations]
        low, high = zip(*(wilson(share * problems, problems) for share, problems in shares), strict=True)
        axes.plot(steps, [share for share, _ in shares], style, color=colour, marker="o", markersize=3, linewidth=1.2)
        axes.fill_between(steps, low, high, color=colour, alpha=0.12, linewidth=0)


def _with_seeds(name: str, seeds: Sequence[int]) -> str:
    return f"{name}, seed{'s' if len(seeds) > 1 else ''} {', '.join(str(seed) for seed in sorted(seeds))}"


def _quiet(axes: Axes) -> None:
    """Axes in grey, with horizontal lines only."""
    axes.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.6)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GREY)
    axes.tick_params(colors=GREY)
    axes.xaxis.label.set_color(GREY)
    axes.yaxis.label.set_color(GREY)


def main() -> None:
    """Read the runs named on the command line and write one picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    parser.add_argument("--out", type=Path, required=True, help="the picture: .svg, .png or .pdf")
    arguments = parser.parse_args()
    try:
        draw([read_run(folder) for folder in arguments.runs], arguments.out)
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
