"""Draw the learning curves of finished runs from their metrics.jsonl.

python docs/learning_curve.py runs/RUN [runs/RUN ...] --out docs/learning_curve.svg
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from rlx.numerics.intervals import wilson
from rlx.track import read_metrics

COLOURS = ["#2563eb", "#d97706", "#059669", "#7c3aed", "#dc2626"]
GREY = "#6b7280"


def main() -> None:
    """Read the runs named on the command line and write one picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    plt.rcParams.update({"font.size": 9, "svg.fonttype": "none", "svg.hashsalt": "rlx", "font.family": "sans-serif"})
    figure, axes = plt.subplots(figsize=(7.2, 3.4))
    for run, colour in zip(arguments.runs, COLOURS, strict=False):
        _draw(axes, run, colour)
    axes.set_xlabel("step (one rollout, four updates)")
    axes.set_ylabel("accuracy on held-out problems")
    axes.set_ylim(0, 1)
    axes.margins(x=0.01)
    axes.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    # Mid-greys read on a white page and on a dark one; the picture has no background of its own.
    for item in (axes.xaxis.label, axes.yaxis.label, *axes.get_xticklabels(), *axes.get_yticklabels()):
        item.set_color(GREY)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GREY)
    axes.tick_params(colors=GREY)
    axes.legend(frameon=False, loc="lower right", labelcolor=GREY)
    figure.tight_layout()
    figure.savefig(
        arguments.out, transparent=True, dpi=150, metadata={"Date": None} if arguments.out.suffix == ".svg" else None
    )


def _draw(axes: plt.Axes, run: Path, colour: str) -> None:
    spec = json.loads((run / "resolved.json").read_text())["spec"]
    records = read_metrics(run / "metrics.jsonl")
    name = f"{spec['algorithm']['name']}, seed {spec['seed']}"
    rewards = [(r["step"], r["train/reward"]) for r in records if "train/reward" in r]
    axes.plot(*zip(*rewards, strict=True), color=colour, alpha=0.3, linewidth=0.8, label=f"{name}: training reward")
    evaluated = [r for r in records if "eval/sampled_accuracy" in r]
    steps = [r["step"] for r in evaluated]
    for key, style in (("sampled", "-"), ("greedy", "--")):
        values = [r[f"eval/{key}_accuracy"] for r in evaluated]
        bounds = [
            wilson(v * r["eval/problems"], int(r["eval/problems"])) for v, r in zip(values, evaluated, strict=True)
        ]
        axes.plot(steps, values, style, color=colour, marker="o", markersize=3, label=f"{name}: {key}, 95 % Wilson")
        axes.fill_between(steps, *zip(*bounds, strict=True), color=colour, alpha=0.15, linewidth=0)


if __name__ == "__main__":
    main()
