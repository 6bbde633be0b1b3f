"""Two studies with all that a report can show, computed by arithmetic: the same on every machine."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rlx.compare.load.results import (
    EXTRACTION,
    FORGETTING,
    UTILITY,
    WITHSTANDS,
    PublishedScore,
    RunResult,
    Scores,
    Study,
    UnlearningResult,
)

ABILITY = {"grpo": 0.0, "dgpo": 0.22, "maspo": 0.01}


def scores_of(method, seed, problems, samples, name):
    """Sample s of problem p is correct if a fixed pseudo-random number is below the problem's success probability."""
    p, s = np.meshgrid(np.arange(problems), np.arange(samples), indexing="ij")
    chance = (p + 0.5) / problems * 0.9 + ABILITY[method] + 0.01 * math.sin(seed + len(method))
    scatter = np.modf((p * 0.754877 + s * 0.569840 + seed * 0.381966 + len(method) * 0.2360) % 1.0)[0]
    return Scores(name, tuple(f"{name}-{i:02d}" for i in range(problems)), (scatter < chance).astype(float))


def metrics_of(method, seed):
    """Eleven records that rise and level off; seeds differ slightly and take different times."""
    records = []
    for step in range(0, 101, 10):
        reached = 0.35 + (0.4 + ABILITY[method]) * (1 - math.exp(-step / 40)) + 0.012 * math.sin(3 * seed + step)
        record = {"step": step, "eval/sampled_accuracy": reached, "eval/greedy_accuracy": min(1.0, reached + 0.1)}
        if step:
            record |= {
                "train/reward": reached - 0.02,
                "policy/entropy": 0.19 * math.exp(-step / 60) + 0.004 * seed,
                "trust/low_neg": 0.015 + 0.001 * seed,
                "trust/high_pos": 0.004 + 0.0005 * math.cos(step + seed),
                "trust/weight_outside": 0.4 + 0.01 * seed,
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
            PublishedScore("grpo", "aime24", 0.281, "arXiv 2603.14389, table 1"),
            PublishedScore("dgpo", "aime24", 0.311, "arXiv 2603.14389, table 1"),
        ),
    )


FORGOTTEN = {"grad_diff": (0.62, 0.80), "npo": (0.61, 0.70), "palu": (0.55, 0.86)}
"""Forgetting and utility of three methods: grad_diff dominates npo; grad_diff and palu are on the front."""


def metric_of(name, mean, authors, seed, spread, linearised=False):
    """One row per author, spread evenly around the mean, with a small offset for each seed."""
    ids = tuple(f"author {number}" for number in range(authors))
    rows = mean + spread * (np.arange(authors) / (authors - 1) - 0.5) + 0.004 * math.sin(2 * seed + len(name))
    return Scores(name, ids, rows[:, None], linearised)


def unlearned_of(method, seed):
    forgetting, utility = FORGOTTEN[method]
    scores = (
        metric_of(FORGETTING, forgetting, 6, seed, 0.2),
        metric_of(EXTRACTION, forgetting + 0.2, 6, seed, 0.1),
        metric_of(UTILITY, utility, 60, seed, 0.3, linearised=True),
        metric_of(f"{WITHSTANDS} relearn", 1.02 - utility / 3, 6, seed, 0.5, linearised=True),
    )
    steps = [(0.1, 0.88), (0.6 * forgetting, 0.5 * (utility + 0.88)), (forgetting + 0.01 * seed, utility)]
    within = method != "npo" or seed > 0
    references = {"original": (0.1, 0.88), "retain model": (0.7, 0.87)}
    unlearned = UnlearningResult(tuple(steps), 2, within, 0.9, utility / 0.88, method == "palu", references)
    metrics = tuple(
        {"step": 5 * i, "eval/forgetting": f, "eval/utility": u, "time/step": 1.0} for i, (f, u) in enumerate(steps)
    )
    protocol = {"forget.source": "tofu/forget10", "evaluation.limit": 200}
    run = f"{method}_tiny_s{seed}-00{seed}"
    return RunResult(run, method, seed, "tiny", protocol, scores, metrics, unlearned)


@pytest.fixture
def unlearning_study():
    runs = tuple(unlearned_of(method, seed) for method in FORGOTTEN for seed in range(3))
    return Study(name="tiny unlearning", baseline="grad_diff", runs=runs)
