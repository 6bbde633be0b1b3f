"""After training: select the checkpoint, measure and attack it, and decide the verdicts of the requests and the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from rlx.benchmarks.tofu.scores import Estimate, Sample, intervals
from rlx.engine.checkpoint import load_checkpoint, load_weights
from rlx.engine.lora import LM
from rlx.runs.checkpoint_files import step_folders
from rlx.runs.samples import Row
from rlx.unlearning.attacks import Attack, attack_all
from rlx.unlearning.baseline import name_pool
from rlx.unlearning.components import UnlearnComponents
from rlx.unlearning.data.requests import Request
from rlx.unlearning.evidence import RequestBaseline, earlier_verdicts, own_verdicts, request_baselines
from rlx.unlearning.findings import findings
from rlx.unlearning.masking import Masker
from rlx.unlearning.measures import Scored, examine
from rlx.unlearning.verdict import Finding, RequestVerdict, RunVerdict, run_verdict


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
    """On the final half."""
    validation_attacks: Sequence[Attack]
    """The same attacks on the validation half; relearning then trains on the final half."""
    findings: Sequence[Finding]
    baselines: Mapping[str, RequestBaseline]
    """By request id."""
    verdicts: Mapping[str, RequestVerdict]
    """By request id."""
    earlier_verdicts: Sequence[RequestVerdict]
    """Of the requests of earlier runs, in the order of ``UnlearnComponents.earlier``."""
    verdict: RunVerdict


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
    spec = components.resolved.spec
    note = components.recorder.note
    scored = {}
    for who, load in loaders.items():
        note(f"measuring the {who} model on the requests and the retained sets")
        scored[who] = _examine(components, load)
    finals = {who: _final(components, scores) for who, scores in scored.items()}
    retain = finals.get("retain", [])
    metrics = {who: intervals(samples, retain, seed=spec.seed) for who, samples in finals.items()}
    halves = (components.validation, components.final)
    if spec.evaluation.attacks:
        note(f"attacking the unlearned model: {', '.join(spec.evaluation.attacks)}")
    attacks = attack_all(loaders, components.subject, halves, spec)
    is_split = {request.id for request in halves[0]} != {request.id for request in halves[1]}
    if is_split and spec.evaluation.attacks:
        note("attacking it again with the halves of the requests exchanged")
    swapped = attack_all(loaders, components.subject, (halves[1], halves[0]), spec) if is_split else []
    forget = _ordered(components)
    pool = name_pool(forget, [example.request for example in components.retain.examples])
    baselines = request_baselines(components.subject, loaders["original"], forget, pool, scored.get("retain", []))
    verdicts = own_verdicts(forget, baselines, scored, [*attacks, *swapped])
    earlier = earlier_verdicts(components.earlier, scored)
    strengths = [baselines[request.id].level.strength or 0.0 for request in _final_requests(components)]
    conditions = findings(finals, strengths, attacks, spec.evaluation)
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
        validation_attacks=swapped,
        findings=conditions,
        baselines=baselines,
        verdicts=verdicts,
        earlier_verdicts=earlier,
        verdict=run_verdict(list(verdicts.values()), conditions, earlier),
    )


def sample_table(conclusion: Conclusion, requests: Sequence[Request], masker: Masker) -> list[Row]:
    """Every sample of every model as rows of one table, without sensitive text.

    Args:
        conclusion: the measurements.
        requests: the forget requests.
        masker: masks the ids and the answers.
    """
    labels = {request.id: masker.label(request) for request in requests}
    sources = {"original": conclusion.before, "unlearned": conclusion.after, "retain": conclusion.retain}
    return [
        {
            "model": who,
            "part": one.sample.part,
            "id": labels.get(one.id, one.id) if one.sample.part == "forget" else masker.scrub(one.id),
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
            "generation": _shown(one, masker),
            **{f"mia_{name}": one.sample.attacks.get(name) for name in ("loss", "zlib", "min_k", "min_k_plus_plus")},
        }
        for who, scored in sources.items()
        for one in scored
    ]


def _shown(one: Scored, masker: Masker) -> str:
    """An answer as it is stored: masked if it answers a forget request, else without the secret texts in it."""
    if one.sample.part in ("forget", "earlier"):
        return masker.mask(one.generation).short if one.generation else ""
    return masker.scrub(one.generation)


def _examine(components: UnlearnComponents, load: Callable[[], LM]) -> list[Scored]:
    """A model's scores on all sets; the forget set in its own order, then the requests of earlier runs."""
    earlier = [one.request for one in components.earlier if one.request is not None]
    parts = {"forget": _ordered(components), **components.measured}
    return examine(replace(components.subject, model=load()), parts | ({"earlier": earlier} if earlier else {}))


def _ordered(components: UnlearnComponents) -> list[Request]:
    """Validation and final requests in the order of the request file."""
    return [example.request for example in components.forget.examples]


def _final_requests(components: UnlearnComponents) -> list[Request]:
    """The final half in the order of the request file."""
    final_ids = {request.id for request in components.final}
    return [request for request in _ordered(components) if request.id in final_ids]


def _final(components: UnlearnComponents, scored: Sequence[Scored]) -> list[Sample]:
    """Samples of the final half, which selected nothing unless there is one request only, and of the other sets."""
    final_ids = {request.id for request in components.final}
    return [one.sample for one in scored if one.sample.part != "forget" or one.id in final_ids]
