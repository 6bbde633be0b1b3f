"""The certificate of an unlearning run: requests with verdicts, method, measurements, attacks, and limits."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rlx.benchmarks.tofu.scores import Estimate
from rlx.runs.integrity import sha256
from rlx.specs.unlearn import ResolvedUnlearn, UnlearnEvaluation
from rlx.unlearning.attacks import Attack
from rlx.unlearning.certificate_schema import (
    AttackRow,
    Baseline,
    Certificate,
    EarlierRow,
    FindingRow,
    Interval,
    Masked,
    MethodFacts,
    RequestRow,
    RequestSet,
    RunFacts,
    Scores,
    Selection,
    Verdict,
)
from rlx.unlearning.data.requests import Request
from rlx.unlearning.earlier import EarlierRequest
from rlx.unlearning.evidence import earlier_scores
from rlx.unlearning.greedy import decoding_protocol
from rlx.unlearning.masking import Masker, hide_quoted
from rlx.unlearning.measures import Scored
from rlx.unlearning.outcome import Conclusion
from rlx.unlearning.strengths import attack_name
from rlx.unlearning.verdict import RULE, STATUSES, RequestVerdict

TITLE = "Evidence of unlearning"
LIMITS = (
    "This is evidence from measurements, not certified removal: no bound on what the weights still contain is proved.",
    "Only the listed requests, in the listed wordings, were tried; other wordings may recover more.",
    "Attacks are lower bounds: a stronger attacker may recover more than was recovered here.",
    "The original weights, earlier checkpoints and training data still contain the knowledge: handle them separately.",
    "Intervals come from a bootstrap over authors; with few authors they are wide and themselves uncertain.",
    "The p-value of forget quality is a step function of D for small n and does not rank models.",
)
"""The first three are in the summary of the page."""


@dataclass(frozen=True, slots=True)
class Subjects:
    """Whose data the run forgot: its own requests, and those of earlier runs.

    Example:
        ``Subjects(requests, earlier, validation={"1"}, final={"2"})``
    """

    requests: Sequence[Request]
    """With the spans used in training."""
    earlier: Sequence[EarlierRequest]
    validation: set[str]
    """Ids of the requests that selected the checkpoint."""
    final: set[str]
    """Ids of the requests that are measured."""


def certificate(
    resolved: ResolvedUnlearn, subjects: Subjects, conclusion: Conclusion, model: Path, masker: Masker
) -> Certificate:
    """The certificate's content.

    Args:
        resolved: the experiment.
        subjects: the requests.
        conclusion: the measurements.
        model: folder of the unlearned model.
        masker: masks every sensitive text.
    """
    spec, verdict = resolved.spec, conclusion.verdict
    after = None if spec.after is None else Path(spec.after).name
    return Certificate(
        schema_version=1,
        title=TITLE,
        certified_removal=False,
        outcome=verdict.outcome,
        verdict=verdict.text,
        reasons=list(verdict.reasons),
        counts=_counts(conclusion.verdicts.values()),
        earlier_counts=_counts(conclusion.earlier_verdicts),
        rule=list(RULE),
        findings=[FindingRow(**asdict(finding)) for finding in conclusion.findings],
        limits=list(LIMITS),
        run=RunFacts(
            id=resolved.run_id, rlx=resolved.version, seed=spec.seed, model=masker.scrub(spec.model.path), after=after
        ),
        method=MethodFacts(
            name=spec.method.name, params=spec.method.params, reduction=spec.method.reduction, epochs=spec.epochs
        ),
        hashes=_hashes(resolved, subjects.requests, model, masker),
        request_set=_request_set(resolved, subjects.requests, masker),
        selection=Selection(
            rule=f"most forgetting on the validation half with utility >= {spec.evaluation.utility_budget:g} of the "
            "original's",
            update=conclusion.selected_step,
            within_budget=conclusion.within_budget,
            on_same_requests=bool(subjects.validation & subjects.final),
        ),
        aggregates={
            "before": _estimates(conclusion.before_metrics),
            "after": _estimates(conclusion.after_metrics),
            "retain_model": _estimates(conclusion.retain_metrics),
        },
        attacks=[_attack(attack) for attack in conclusion.attacks],
        protocol=_protocol(spec.evaluation, conclusion.attacks),
        requests=_request_rows(subjects, conclusion, masker),
        earlier_requests=_earlier_rows(subjects.earlier, conclusion, masker),
    )


def code_hash() -> str:
    """SHA-256 over this package's source files."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return "sha256:" + digest.hexdigest()


def file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a saved model."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files}


def _counts(verdicts: Iterable[RequestVerdict]) -> dict[str, int]:
    counts = Counter(verdict.status for verdict in verdicts)
    return {status: counts[status] for status in STATUSES if counts[status]}


def _hashes(
    resolved: ResolvedUnlearn, requests: Sequence[Request], model: Path, masker: Masker
) -> dict[str, str | dict[str, str]]:
    """Hashes of models, code, spec and requests; those of personal data are keyed, so that a guess is not confirmed."""
    keyed = {
        name: masker.digest(value) if name in ("forget", "retain") else value
        for name, value in resolved.fingerprints.items()
    }
    return {
        **keyed,
        "requests": masker.digest(repr([(r.id, r.question, r.answer, r.spans) for r in requests])),
        "spec": "sha256:" + hashlib.sha256(resolved.spec.model_dump_json().encode()).hexdigest(),
        "code": code_hash(),
        "unlearned_model": file_digests(model),
    }


def _request_set(resolved: ResolvedUnlearn, requests: Sequence[Request], masker: Masker) -> RequestSet:
    names = {request.id: f"{masker.label(request)} (line {request.line})" for request in requests}
    return RequestSet(
        source=masker.scrub(resolved.spec.forget.source),
        requests=len(requests),
        with_spans=sum(bool(request.spans) for request in requests),
        spans=resolved.spec.forget.spans,
        uncovered=[names[request.id] for request in requests if not request.spans],
        repaired=[f"request {names[r.id]}: {hide_quoted(text)}" for r in requests for text in r.repaired],
        refused=[f"request {names[r.id]}: {hide_quoted(text)}" for r in requests for text in r.refused],
    )


def _request_rows(subjects: Subjects, conclusion: Conclusion, masker: Masker) -> list[RequestRow]:
    before, after, retain = (
        {one.id: one for one in scored if one.sample.part == "forget"}
        for scored in (conclusion.before, conclusion.after, conclusion.retain)
    )
    attacks = [*conclusion.attacks, *conclusion.validation_attacks]
    rows = []
    for request in subjects.requests:
        baseline = conclusion.baselines[request.id]
        rows.append(
            RequestRow(
                id=masker.label(request),
                line=request.line,
                received=_scrubbed(request.received, masker),
                basis=_scrubbed(request.basis, masker),
                half=_half(request.id, subjects),
                verdict=_verdict(conclusion.verdicts[request.id]),
                question=_masked(request.question, masker),
                answer=_masked(request.answer, masker),
                subject=_masked(request.subject, masker) if request.subject else None,
                sensitive=[_masked(request.answer[s.start : s.end], masker) for s in request.spans],
                spans=[(span.start, span.end) for span in request.spans],
                span_source=request.source,
                baseline=Baseline(
                    source=baseline.source,
                    probability=baseline.level.probability,
                    extraction_strength_strict=baseline.level.strength,
                ),
                before=_scores(before[request.id], masker),
                after=_scores(after[request.id], masker),
                retain_model=_scores(retain[request.id], masker) if request.id in retain else None,
                rouge_l_recall_under_attack={
                    attack.name: dict(attack.by_request[request.id])
                    for attack in attacks
                    if request.id in attack.by_request
                },
            )
        )
    return rows


def _earlier_rows(earlier: Sequence[EarlierRequest], conclusion: Conclusion, masker: Masker) -> list[EarlierRow]:
    before, after = (iter(earlier_scores(scored)) for scored in (conclusion.before, conclusion.after))
    rows = []
    for one, verdict in zip(earlier, conclusion.earlier_verdicts, strict=True):
        readable = one.request is not None
        rows.append(
            EarlierRow(
                run=one.run,
                id=one.label,
                received=one.received,
                basis=one.basis,
                verdict_then=one.status,
                verdict=_verdict(verdict),
                baseline=Baseline(
                    source=one.source,
                    probability=one.baseline.probability,
                    extraction_strength_strict=one.baseline.strength,
                ),
                before=_scores(next(before), masker) if readable else None,
                after=_scores(next(after), masker) if readable else None,
            )
        )
    return rows


def _half(request_id: str, subjects: Subjects) -> Literal["validation", "final", "both"]:
    if request_id in subjects.validation:
        return "both" if request_id in subjects.final else "validation"
    return "final"


def _verdict(verdict: RequestVerdict) -> Verdict:
    return Verdict(status=verdict.status, probes=list(verdict.probes), tried=list(verdict.tried), why=verdict.why)


def _scores(one: Scored, masker: Masker) -> Scores:
    return Scores(
        probability=one.sample.prob or 0.0,
        extraction_strength=one.sample.strength,
        extraction_strength_strict=one.sample.strict_strength,
        rouge_l_recall=one.sample.rouge,
        truth_ratio=one.sample.truth_ratio,
        answer=_masked(one.generation, masker),
    )


def _masked(text: str, masker: Masker) -> Masked:
    return Masked(**asdict(masker.mask(text)))


def _scrubbed(text: str | None, masker: Masker) -> str | None:
    return None if text is None else masker.scrub(text)


def _attack(attack: Attack) -> AttackRow:
    """Means and recovery of an attack; each request's own recalls are listed with the request."""
    return AttackRow(
        name=attack.name,
        attacked=attack.attacked,
        original=attack.original,
        yardstick=attack.yardstick,
        recovery=Interval(**attack.recovery.plain()),
    )


def _protocol(settings: UnlearnEvaluation, attacks: Sequence[Attack]) -> list[str]:
    """How answers were decoded, and what each attack did."""
    sentences = [decoding_protocol(settings.max_new_tokens)]
    if any(attack.name.startswith("relearn") for attack in attacks):
        sentences.append(
            f"Relearning trains {settings.relearn_updates} updates on requests of the other half, at most "
            f"{settings.relearn_requests} where no percentage is given."
        )
    if attacks:
        sentences.append(f"Attacks: {'; '.join(attack_name(attack.name, settings) for attack in attacks)}.")
    return sentences


def _estimates(metrics: Mapping[str, Estimate]) -> dict[str, Interval]:
    return {name: Interval(**estimate.plain()) for name, estimate in metrics.items()}
