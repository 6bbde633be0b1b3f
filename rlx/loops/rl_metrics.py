"""One step's figures, by name.

``train/*`` are over all samples of the rollout; ``policy/*`` over the tokens that were scored (those of groups with a
signal), summed over the rollout's updates; ``optim/*`` over the updates.
"""

from __future__ import annotations

from collections.abc import Sequence

from rlx.engine.step import Engine, Update
from rlx.loops.rollouts import Graded
from rlx.spec import Spec

EXTREMES = {"ratio_max": 1.0, "-ratio_min": -1.0, "sampler_logprob_diff_max": 1.0}
"""Peaks of the objective, with the sign that undoes the negation of a minimum."""


def step_metrics(graded: Graded, updates: Sequence[Update], spec: Spec, engine: Engine) -> dict[str, float]:
    """All of a step's metrics but its times.

    Args:
        graded: this process's share of the rollout.
        updates: what the optimiser updates did.
        spec: the experiment.
        engine: gathers over processes.
    """
    return _rollout_metrics(graded, engine) | _policy_metrics(updates) | _optim_metrics(updates)


def _rollout_metrics(graded: Graded, engine: Engine) -> dict[str, float]:
    rewards_qg = graded.rewards_qg
    best, worst = rewards_qg.amax(dim=1), rewards_qg.amin(dim=1)
    facts = engine.gather([(len(r.tokens), not r.finished) for r in graded.sampled.responses])
    reasons = engine.gather([verdict.reason for verdict in graded.verdicts])
    return {
        "train/reward": float(rewards_qg.mean()),
        "train/reward_std": float(rewards_qg.std()),
        "train/groups_all_right": float(((worst == best) & (best > 0)).double().mean()),
        "train/groups_all_wrong": float(((worst == best) & (best <= 0)).double().mean()),
        "train/tokens": sum(length for length, _ in facts),
        "train/response_tokens": sum(length for length, _ in facts) / len(facts),
        "train/response_tokens_max": max(length for length, _ in facts),
        "train/truncated": sum(cut for _, cut in facts) / len(facts),
        "train/no_answer": sum(reason in ("no_answer", "no_box", "empty") for reason in reasons) / len(reasons),
        "train/timeout": sum(reason == "timeout" for reason in reasons) / len(reasons),
    }


def _policy_metrics(updates: Sequence[Update]) -> dict[str, float]:
    tokens = sum(update.sums.get("tokens", 0.0) for update in updates)
    metrics: dict[str, float] = {"policy/tokens": tokens}
    if not tokens:
        return metrics
    names = sorted({name for update in updates for name in update.sums} - {"tokens"})
    for name in names:
        metrics[f"policy/{name}"] = sum(update.sums.get(name, 0.0) for update in updates) / tokens
    for name, sign in EXTREMES.items():
        found = [update.peaks[name] for update in updates if name in update.peaks]
        metrics[f"policy/{name.lstrip('-')}"] = sign * max(found)
    return metrics


def _optim_metrics(updates: Sequence[Update]) -> dict[str, float]:
    return {
        "optim/loss": sum(update.loss for update in updates) / len(updates),
        "optim/grad_norm": sum(update.grad_norm for update in updates) / len(updates),
        "optim/grad_norm_max": max(update.grad_norm for update in updates),
        "optim/lr": updates[-1].lr,
        "optim/skipped": sum(not update.applied for update in updates),
    }
