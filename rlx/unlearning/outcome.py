"""After training: select the checkpoint, measure and attack it, and decide the certificate's verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rlx.benchmarks.tofu.scores import Estimate, Sample, aggregates, clustered_interval, intervals, kept_utility
from rlx.engine.checkpoint import load_checkpoint, load_weights
from rlx.engine.lora import LM
from rlx.runs.checkpoint_files import step_folders
from rlx.runs.samples import Row
from rlx.unlearning.attacks import Attack, attack_all
from rlx.unlearning.components import UnlearnComponents
from rlx.unlearning.data.requests import Request
from rlx.unlearning.measures import Scored, examine

MARGIN = 0.1
"""Largest extraction strength above the reference level's, at the interval's upper end."""
RECOVERABLE = 0.25
"""Largest fraction of the lost knowledge that an attack may recover, at the interval's upper end."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One condition of the verdict.

    Example:
        ``Finding("utility is kept", True, "0.87 of 0.88 (99 %), budget 95 %")``
    """

    condition: str
    holds: bool
    values: str


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The final measurements of a run, and its verdict."""

    selected_step: int
    """Update of the selected checkpoint; the last one if none was within the budget."""
    within_budget: bool
    before: Sequence[Scored]
    after: Sequence[Scored]
    retain: Sequence[Scored]
    """Scores of the retain model; empty if there is none."""
    before_metrics: Mapping[str, Estimate]
    """Metrics on the final half of the forget set and the kept sets."""
    after_metrics: Mapping[str, Estimate]
    retain_metrics: Mapping[str, Estimate]
    attacks: Sequence[Attack]
    findings: Sequence[Finding]
    chosen_on_same_requests: bool = False
    """Whether the checkpoint was selected on the requests that are measured, because they are too few to split."""

    @property
    def verdict(self) -> str:
        """``supported``, or the conditions that fail."""
        failed = [finding.condition for finding in self.findings if not finding.holds]
        return "supported by these measurements" if not failed else "NOT supported; what fails: " + "; ".join(failed)


def load_selected(components: UnlearnComponents) -> tuple[int, bool]:
    """Load the weights of the selected checkpoint.

    It was selected on the validation half during training: most forgetting within the utility budget.

    Returns:
        Its update, and whether it is within the budget.
    """
    position = load_checkpoint(step_folders(components.run.checkpoints)[-1], components.engine)
    if position.best_step < 0:
        return position.step, False
    load_weights(components.run.checkpoint(position.best_step), components.engine)
    return position.best_step, True


def conclude(
    components: UnlearnComponents, loaders: Mapping[str, Callable[[], LM]], selected: int, within_budget: bool
) -> Conclusion:
    """Measure the saved model, the original and the retain model, and attack the saved model.

    Args:
        components: the run.
        loaders: functions that load the ``unlearned`` (as saved), ``original`` and, if given, ``retain`` models.
        selected: the selected update.
        within_budget: whether it is within the utility budget.
    """
    scored = {who: _examine(components, load) for who, load in loaders.items()}
    finals = {who: _final(components, scores) for who, scores in scored.items()}
    retain = finals.get("retain", [])
    metrics = {who: intervals(samples, retain, seed=components.resolved.spec.seed) for who, samples in finals.items()}
    attacks = attack_all(
        loaders, components.subject, (components.validation, components.final), components.resolved.spec
    )
    return Conclusion(
        selected_step=selected,
        within_budget=within_budget,
        before=scored["original"],
        after=scored["unlearned"],
        retain=scored.get("retain", []),
        before_metrics=metrics["original"],
        after_metrics=metrics["unlearned"],
        retain_metrics=metrics.get("retain", {}),
        attacks=attacks,
        findings=findings(finals, attacks, components.resolved.spec.evaluation.utility_budget),
        chosen_on_same_requests=components.chosen_on_same_requests,
    )


def findings(finals: Mapping[str, Sequence[Sample]], attacks: Sequence[Attack], budget: float) -> list[Finding]:
    """The conditions of the verdict, each with its values.

    Args:
        finals: samples of the final half and the kept sets, by model.
        attacks: their results.
        budget: fraction of the original's utility that must be kept.
    """
    before, after = (kept_utility(aggregates(finals[who])) for who in ("original", "unlearned"))
    share = after / before if before else 0.0
    results = [
        Finding("utility is kept", share >= budget, f"{after:.3f} of {before:.3f} ({share:.1%}), budget {budget:.0%}")
    ]
    forget = {who: [s for s in samples if s.part == "forget"] for who, samples in finals.items()}
    columns = [[s.strict_strength or 0.0 for s in forget[who]] for who in ("unlearned", "retain") if who in forget]
    excess = _excess(columns, [s.author for s in forget["unlearned"]])
    against = "the retain model's" if "retain" in forget else "zero"
    results.append(
        Finding(
            f"strict extraction strength is near {against}",
            excess.high <= MARGIN,
            f"excess {excess.value:+.3f} [{excess.low:+.3f}, {excess.high:+.3f}], allowed {MARGIN:g}",
        )
    )
    for attack in attacks:
        recovery = attack.recovery
        values = f"recovers {recovery.value:.0%} [{recovery.low:.0%}, {recovery.high:.0%}], allowed {RECOVERABLE:.0%}"
        nothing_lost = math.isnan(recovery.value)
        if nothing_lost:
            values = "nothing was lost that could come back"
        holds = nothing_lost or recovery.high <= RECOVERABLE
        results.append(Finding(f"the {attack.name} attack brings little back", holds, values))
    return results


def sample_table(conclusion: Conclusion) -> list[Row]:
    """Every sample of every model as rows of one table."""
    sources = {"original": conclusion.before, "unlearned": conclusion.after, "retain": conclusion.retain}
    return [
        {
            "model": who,
            "part": one.sample.part,
            "id": one.id,
            "author": one.sample.author,
            "nll": one.nll,
            "tokens": one.tokens,
            "probability": one.sample.prob,
            "probability_normalised": one.sample.prob_normalised,
            "rouge_l_recall": one.sample.rouge,
            "truth_ratio": one.sample.truth_ratio,
            "exact_memorization": one.sample.exact,
            "extraction_strength": one.sample.strength,
            "extraction_strength_strict": one.sample.strict_strength,
            "generation": one.generation,
            **{f"mia_{name}": one.sample.attacks.get(name) for name in ("loss", "zlib", "min_k", "min_k_plus_plus")},
        }
        for who, scored in sources.items()
        for one in scored
    ]


def _examine(components: UnlearnComponents, load: Callable[[], LM]) -> list[Scored]:
    """A model's scores on all sets; the forget set in its own order."""
    return examine(replace(components.subject, model=load()), {"forget": _ordered(components), **components.measured})


def _ordered(components: UnlearnComponents) -> list[Request]:
    """Validation and final requests in the order of the request file."""
    return [example.request for example in components.forget.examples]


def _final(components: UnlearnComponents, scored: Sequence[Scored]) -> list[Sample]:
    """Samples of the final half, which selected nothing unless there is one request only, and of the other sets."""
    final_ids = {request.id for request in components.final}
    return [one.sample for one in scored if one.sample.part != "forget" or one.id in final_ids]


def _excess(columns: Sequence[Sequence[float]], authors: Sequence[int]) -> Estimate:
    """Mean of the first column minus that of the second (or zero)."""
    arrays = [np.array(column) for column in columns]
    if len(arrays) == 1:
        return clustered_interval(arrays, authors, lambda a: float(a.mean()))
    return clustered_interval(arrays, authors, lambda a, b: float(a.mean() - b.mean()))
