"""The conditions on a run in addition to the verdicts of its requests, as sentences that say what was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from rlx.benchmarks.tofu.scores import Estimate, Sample, aggregates, clustered_interval, kept_utility
from rlx.specs.unlearn import UnlearnEvaluation
from rlx.unlearning.attacks import Attack
from rlx.unlearning.strengths import attack_name
from rlx.unlearning.verdict import MARGIN, RECOVERABLE, Finding


def findings(
    finals: Mapping[str, Sequence[Sample]],
    baseline_strengths: Sequence[float],
    attacks: Sequence[Attack],
    settings: UnlearnEvaluation,
) -> list[Finding]:
    """Every condition, each with its values.

    Args:
        finals: samples of the final half and the retained sets, by model.
        baseline_strengths: extraction strength of each final request's baseline.
        attacks: their results.
        settings: the utility budget, and what the attacks did.
    """
    forget = [sample for sample in finals["unlearned"] if sample.part == "forget"]
    results = [_utility(finals, settings.utility_budget)]
    if forget:
        results.append(_strength(forget, baseline_strengths, "retain" in finals))
    by_kind: dict[str, list[Attack]] = {}
    for attack in attacks:
        by_kind.setdefault(attack.name.partition("_")[0], []).append(attack)
    return results + [_attack(kind, of_kind, settings) for kind, of_kind in by_kind.items()]


def _utility(finals: Mapping[str, Sequence[Sample]], budget: float) -> Finding:
    before, after = (kept_utility(aggregates(finals[who])) for who in ("original", "unlearned"))
    share = after / before if before else 0.0
    sentence = (
        f"The model keeps {share:.1%} of the original's utility ({after:.3f} of {before:.3f}; required: {budget:.0%})"
    )
    if not before:
        measured = any(sample.part not in ("forget", "holdout", "earlier") for sample in finals["original"])
        sentence = "The original's utility is 0" if measured else "No utility was measured: there is no retained set"
    return Finding("utility", share >= budget, sentence)


def _strength(forget: Sequence[Sample], baselines: Sequence[float], against_retain: bool) -> Finding:
    columns = [np.array([sample.strict_strength or 0.0 for sample in forget]), np.array(baselines)]
    excess = clustered_interval(
        columns, [sample.author for sample in forget], lambda after, base: float(after.mean() - base.mean())
    )
    against = "the retain model's" if against_retain else "that of the requests with names exchanged"
    direction = "above" if excess.value >= 0 else "below"
    sentence = (
        f"Strict extraction strength is {abs(excess.value):.3f} {direction} {against} "
        f"({_interval(excess, '{:+.3f}')}; allowed: {MARGIN:g} above at the upper end)"
    )
    return Finding("extraction strength", excess.high <= MARGIN, sentence)


def _attack(kind: str, attacks: Sequence[Attack], settings: UnlearnEvaluation) -> Finding:
    """The condition on one kind of attack, which has to hold for each of its strengths.

    The sentence is about the strength that brings the most back, of those for which it does not hold if there are any.
    """
    failing = [attack for attack in attacks if not _holds(attack.recovery)]
    worst = max(failing or attacks, key=lambda attack: np.nan_to_num(attack.recovery.value, nan=-math.inf))
    what, share = attack_name(worst.name, settings), worst.recovery
    condition = f"{kind} attack"
    if math.isnan(share.value):
        return Finding(condition, not failing, f"{what} brings nothing back: nothing was lost")
    if share.value < 0:
        amount = "brings back nothing of what was lost"
    else:
        amount = f"brings back {share.value:.0%} of what was lost"
    limit = f"allowed: {RECOVERABLE:.0%} at the upper end"
    most = f"; the most of {len(attacks)} strengths" if len(attacks) > 1 else ""
    sentence = f"{what} {amount} ({_interval(share, '{:.0%}')}; {limit}{most})"
    return Finding(condition, not failing, sentence)


def _holds(recovery: Estimate) -> bool:
    """Whether an attack brings back no more than is allowed; nothing can come back if nothing was lost."""
    return math.isnan(recovery.value) or recovery.high <= RECOVERABLE


def _interval(estimate: Estimate, form: str) -> str:
    if math.isnan(estimate.low):
        return "interval unknown: too few authors"
    return f"95 % interval {form.format(estimate.low)} to {form.format(estimate.high)}"
