"""One study with everything a report can show, made by arithmetic: the same on every machine."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rlx.compare.results import Published, RunResult, Scores, Study

ABILITY = {"grpo": 0.0, "dgpo": 0.22, "maspo": 0.01}


def scores_of(method, seed, problems, samples, name):
    """Sample s of problem p is right when a fixed, scattered number lies below the problem's chance."""
    p, s = np.meshgrid(np.arange(problems), np.arange(samples), indexing="ij")
    chance = (p + 0.5) / problems * 0.9 + ABILITY[method] + 0.01 * math.sin(seed + len(method))
    scatter = np.modf((p * 0.754877 + s * 0.569840 + seed * 0.381966 + len(method) * 0.2360) % 1.0)[0]
    return Scores(name, tuple(f"{name}-{i:02d}" for i in range(problems)), (scatter < chance).astype(float))


def metrics_of(method, seed):
    """Eleven records that rise and level off; seeds differ a little and take different times."""
    records = []
    for step in range(0, 101, 10):
        reached = 0.35 + (0.4 + ABILITY[method]) * (1 - math.exp(-step / 40)) + 0.012 * math.sin(3 * seed + step)
        record = {"step": step, "eval/sampled_accuracy": reached, "eval/greedy_accuracy": min(1.0, reached + 0.1)}
        if step:
            record |= {
                "train/reward": reached - 0.02,
                "policy/entropy": 0.19 * math.exp(-step / 60) + 0.004 * seed,
                "policy/clip_low": 0.015 + 0.001 * seed,
                "policy/clip_high": 0.004 + 0.0005 * math.cos(step + seed),
                "train/response_tokens": 16.3 + 0.01 * step,
                "optim/grad_norm": 0.8 + 0.1 * math.cos(step),
                "train/tokens": 41000 + 500 * seed,
                "time/step": 9.0 + seed + len(method),
            }
        records.append(record)
    return tuple(records)


@pytest.fixture
def study():
    protocol = {"temperature": 1.0, "samples": 4, "grader": "arithmetic", "data.sha256": "4f0c"}
    runs = tuple(
        RunResult(
            f"{method}_tiny_s{seed}-00{seed}",
            method,
            seed,
            "tiny",
            protocol,
            (scores_of(method, seed, 30, 4, "aime24"), scores_of(method, seed, 60, 4, "sums_&_100%")),
            metrics_of(method, seed),
        )
        for method in ABILITY
        for seed in range(3)
    )
    return Study(
        name="tiny example",
        baseline="grpo",
        runs=runs,
        missing={"maspo_tiny_s3-003": "failed: exit code 1"},
        published=(
            Published("grpo", "aime24", 0.281, "arXiv 2603.14389, table 1"),
            Published("dgpo", "aime24", 0.311, "arXiv 2603.14389, table 1"),
        ),
    )
