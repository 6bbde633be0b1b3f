"""The metrics of one step, by name.

``train/*`` are means over all samples of the rollout, including those that dynamic sampling left out; ``reward/*`` are
the same for each reward alone, where ``train/reward`` is their weighted sum; ``policy/*`` are
means over the scored tokens (of groups with unequal rewards) of all updates; ``trust/*`` describe the ratios and the
weights of the tokens with A != 0 of all updates (``rlx.numerics.trust``); ``optim/*`` and ``moe/*`` are means over
the updates; ``perf/*`` and ``memory/*`` are speed and memory (``Usage.report``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rlx.engine.batch import Update
from rlx.engine.step import Engine
from rlx.engine.tally import Tally
from rlx.numerics.trust import PREFIX as TRUST
from rlx.numerics.trust import trust_metrics
from rlx.rl.objective import RATIOS
from rlx.rl.rollouts import Graded

EXTREMES = {"ratio_max": 1.0, "-ratio_min": -1.0, "sampler_logprob_diff_max": 1.0}
"""Peaks of the objective, with the sign that undoes the negation of the minimum."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """The samples of one step.

    Example:
        ``Rollout(graded=selected, sampled=all_groups, drawn=3264, tries=2)``
    """

    graded: Graded
    """This process's groups that are trained on."""
    sampled: Graded
    """All groups that this process sampled; more than ``graded`` with dynamic sampling."""
    drawn: int
    """Number of prompts drawn from the data so far."""
    tries: int
    """Number of sampled batches."""


def step_metrics(rollout: Rollout, updates: Sequence[Update], engine: Engine) -> dict[str, float]:
    """All metrics of a step except its times; starts a new measurement of speed and memory.

    Args:
        rollout: this process's share of the rollout.
        updates: results of the optimiser updates.
        engine: gathers over processes.
    """
    usage = engine.usage.report(engine.gather, engine.max_tokens)
    return _rollout_metrics(rollout, engine) | _policy_metrics(updates) | _optim_metrics(updates) | usage


def _rollout_metrics(rollout: Rollout, engine: Engine) -> dict[str, float]:
    graded = rollout.sampled
    scores = torch.tensor([verdict.score for verdict in graded.verdicts], dtype=torch.float64)
    rows = zip(graded.prompt_indices, scores.reshape(-1, graded.samples).tolist(), strict=True)
    scores_qg = torch.tensor([row for _, row in sorted(engine.gather(list(rows)))], dtype=torch.float64)
    best, worst = scores_qg.amax(dim=1), scores_qg.amin(dim=1)
    lengths = engine.gather([(len(r.tokens), not r.finished) for r in graded.responses])
    reasons = engine.gather([verdict.reason for verdict in graded.verdicts])
    shaped = engine.gather(graded.rewards_b.tolist())
    return {
        "train/reward": float(scores_qg.mean()),
        "train/reward_std": float(scores_qg.std()),
        "train/shaped_reward": sum(shaped) / len(shaped),
        "train/groups_all_right": float(((worst == best) & (best > 0)).double().mean()),
        "train/groups_all_wrong": float(((worst == best) & (best <= 0)).double().mean()),
        "train/tries": rollout.tries,
        "train/tokens": sum(length for length, _ in lengths),
        "train/response_tokens": sum(length for length, _ in lengths) / len(lengths),
        "train/response_tokens_max": max(length for length, _ in lengths),
        "train/truncated": sum(truncated for _, truncated in lengths) / len(lengths),
        "train/no_answer": sum(reason in ("no_answer", "no_box", "empty") for reason in reasons) / len(reasons),
        "train/timeout": sum(reason == "timeout" for reason in reasons) / len(reasons),
    } | _reward_metrics(graded, engine)


def _reward_metrics(graded: Graded, engine: Engine) -> dict[str, float]:
    """Mean, spread, and shares of timeouts and errors of each reward over all samples, and means of its metrics."""
    metrics: dict[str, float] = {}
    for label, own in graded.by_reward.items():
        verdicts = engine.gather(own)
        scores = torch.tensor([verdict.score for verdict in verdicts], dtype=torch.float64)
        metrics[f"reward/{label}"] = float(scores.mean())
        metrics[f"reward/{label}_std"] = float(scores.std())
        for reason in ("timeout", "error"):
            metrics[f"reward/{label}_{reason}"] = sum(v.reason == reason for v in verdicts) / len(verdicts)
        for name in sorted({name for verdict in verdicts for name in verdict.metrics}):
            values = [verdict.metrics[name] for verdict in verdicts if name in verdict.metrics]
            metrics[f"reward/{label}/{name}"] = sum(values) / len(values)
    return metrics


def _policy_metrics(updates: Sequence[Update]) -> dict[str, float]:
    tokens = sum(update.sums.get("tokens", 0.0) for update in updates)
    metrics: dict[str, float] = {"policy/tokens": tokens}
    if not tokens:
        return metrics
    totals = Tally()
    for update in updates:
        totals.add(update.loss, update.sums, {})
        totals.add_vectors({name: list(values) for name, values in update.vectors.items()})
    for name in sorted(totals.sums.keys() - {"tokens"}):
        if not name.startswith(TRUST):
            metrics[f"policy/{name}"] = totals.sums[name] / tokens
    metrics |= trust_metrics(totals.sums, totals.vectors.get(RATIOS))
    for name, sign in EXTREMES.items():
        peaks = [update.peaks[name] for update in updates if name in update.peaks]
        metrics[f"policy/{name.lstrip('-')}"] = sign * max(peaks)
    return metrics


def _optim_metrics(updates: Sequence[Update]) -> dict[str, float]:
    return {
        "optim/loss": sum(update.loss for update in updates) / len(updates),
        "optim/grad_norm": sum(update.grad_norm for update in updates) / len(updates),
        "optim/grad_norm_max": max(update.grad_norm for update in updates),
        "optim/lr": updates[-1].lr,
        "optim/skipped": sum(not update.applied for update in updates),
    } | {name: sum(update.router[name] for update in updates) / len(updates) for name in updates[0].router}
