"""Learning curves: the mean over training seeds and the band from the lowest to the highest of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlx.compare.load.results import Array, RunResult

GRID = 80
"""Number of points of a curve whose runs were not measured at the same positions."""
AXES: Mapping[str, tuple[str, float]] = {
    "steps": ("step", 1.0),
    "response tokens, thousands": ("train/tokens", 1e-3),
    "minutes": ("time/step", 1 / 60),
}
"""Horizontal axes: the metric, summed over the records unless it is the step, and its unit."""

EVERY_AXIS = (("eval/sampled_accuracy", "held-out accuracy, sampled"), ("train/reward", "training reward"))
"""Metrics plotted against every axis."""
BY_STEP = (
    ("eval/greedy_accuracy", "held-out accuracy, greedy"),
    ("eval/forgetting", "forgetting, validation half"),
    ("eval/utility", "utility"),
    ("policy/entropy", "entropy, nats a token"),
    ("trust/low_neg", "share of tokens, r < .8 and A < 0"),
    ("trust/low_pos", "share of tokens, r < .8 and A > 0"),
    ("trust/high_neg", "share of tokens, r > 1.2 and A < 0"),
    ("trust/high_pos", "share of tokens, r > 1.2 and A > 0"),
    ("trust/weight_outside", "mean gradient weight where r < .8 or r > 1.2"),
    ("trust/weight_inside", "mean gradient weight where .8 <= r <= 1.2"),
    ("trust/ratio_p99", "99th percentile of the ratio r"),
    ("trust/kl_old", "KL divergence from the old policy, nats a token"),
    ("trust/ess", "effective sample size, share of tokens"),
    ("train/response_tokens", "response length, tokens"),
    ("optim/grad_norm", "gradient norm before clipping"),
    ("perf/rollout_tokens_per_s", "rollout, response tokens per second"),
    ("perf/train_tokens_per_s", "training, tokens per second"),
    ("perf/mfu", "model FLOPs utilisation of the updates"),
    ("memory/peak_gib", "peak memory, GiB"),
)
"""Metrics plotted against the step."""


@dataclass(frozen=True, slots=True)
class Line:
    """One method's line of a chart; low and high are the band.

    Example:
        ``Line("dgpo", 1, x=np.arange(3.0), middle=np.zeros(3), low=np.zeros(3), high=np.zeros(3))``
    """

    name: str
    colour: int
    """Index of the method's colour."""
    x: Array
    middle: Array
    low: Array
    high: Array


def learning_line(runs: Sequence[RunResult], key: str, axis: str, colour: int) -> Line | None:
    """The runs' values of ``key`` along ``axis``; None if no run logged both.

    Args:
        runs: runs of one method, one per seed.
        key: metric, or several joined by ``+``.
        axis: a name of ``AXES``.
        colour: index of the line's colour.
    """
    curves = [points for run in runs if len((points := _points(run, key, axis))[0])]
    if not curves:
        return None
    grid = curves[0][0]
    if any(len(x) != len(grid) or not np.array_equal(x, grid) for x, _ in curves):
        # Only where every seed was measured: outside that range the mean would jump as seeds drop out.
        first, last = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
        if first > last:
            return None
        grid = np.linspace(first, last, GRID)
    values_kx = np.stack([np.interp(grid, x, y) for x, y in curves])
    return Line(runs[0].method, colour, grid, values_kx.mean(axis=0), values_kx.min(axis=0), values_kx.max(axis=0))


def _points(run: RunResult, key: str, axis: str) -> tuple[Array, Array]:
    source, unit = AXES[axis]
    parts = key.split("+")
    x, y, total = [], [], 0.0
    for record in run.metrics:
        total += record.get(source, 0.0)
        position = record.get("step", 0.0) if source == "step" else total
        if all(part in record and math.isfinite(record[part]) for part in parts):
            x.append(position * unit)
            y.append(sum(record[part] for part in parts))
    return np.array(x), np.array(y)
