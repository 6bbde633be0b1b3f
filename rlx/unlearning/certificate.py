"""The certificate of an unlearning run: requests, method, measurements before and after, attacks, and limits."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlx.benchmarks.tofu.scores import Estimate
from rlx.specs.unlearn import ResolvedUnlearn
from rlx.templates import render
from rlx.unlearning.attacks import Attack
from rlx.unlearning.data.requests import Coverage, Request
from rlx.unlearning.outcome import Conclusion

LIMITS = (
    "This is evidence from measurements, not certified removal: no bound on what the weights still contain is proved.",
    "Only the listed requests, in the listed wordings, were tried; other wordings may recover more.",
    "Attacks are lower bounds: a stronger attacker may recover more than was recovered here.",
    "Intervals come from a bootstrap over authors; with few authors they are wide and themselves uncertain.",
    "The p-value of forget quality is a step function of D for small n and does not rank models.",
    "The original weights, earlier checkpoints and training data still contain the knowledge: handle them separately.",
)


def certificate(
    resolved: ResolvedUnlearn,
    requests: Sequence[Request],
    report: Coverage,
    conclusion: Conclusion,
    model: Path,
    validation: set[str],
) -> dict[str, Any]:
    """The certificate's content, which is written as JSON.

    Args:
        resolved: the experiment.
        requests: the forget requests with the spans used in training.
        report: which of them have sensitive spans.
        conclusion: the measurements.
        model: folder of the unlearned model.
        validation: ids of the requests that selected the checkpoint.
    """
    spec = resolved.spec
    return {
        "title": "Evidence of unlearning",
        "certified_removal": False,
        "verdict": conclusion.verdict,
        "findings": [asdict(finding) for finding in conclusion.findings],
        "limits": list(LIMITS),
        "run": {"id": resolved.run_id, "rlx": resolved.version, "seed": spec.seed},
        "method": {"name": spec.method.name, "params": spec.method.params, "reduction": spec.method.reduction},
        "hashes": {
            **resolved.fingerprints,
            "requests": _digest(repr([(r.id, r.question, r.answer, r.spans) for r in requests])),
            "spec": _digest(spec.model_dump_json()),
            "code": code_hash(),
            "unlearned_model": file_digests(model),
        },
        "request_set": {
            "source": spec.forget.source,
            "requests": report.requests,
            "with_spans": report.covered,
            "spans": spec.forget.spans,
            "uncovered": list(report.uncovered),
            "repaired": list(report.repaired),
            "refused": list(report.refused),
        },
        "selection": {
            "rule": f"most forgetting on the validation half with utility >= {spec.evaluation.utility_budget:g} of the "
            "original's",
            "update": conclusion.selected_step,
            "within_budget": conclusion.within_budget,
        },
        "aggregates": {
            "before": _estimates(conclusion.before_metrics),
            "after": _estimates(conclusion.after_metrics),
            "retain_model": _estimates(conclusion.retain_metrics),
        },
        "attacks": [_attack(attack) for attack in conclusion.attacks],
        "requests": _per_request(requests, conclusion, validation),
    }


def page(content: Mapping[str, Any]) -> str:
    """The certificate as one self-contained HTML page."""
    models = [model for model, metrics in content["aggregates"].items() if metrics]
    return render("certificate.html", title=content["run"]["id"], content=content, models=models)


def code_hash() -> str:
    """SHA-256 over this package's source files."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return "sha256:" + digest.hexdigest()


def file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a saved model."""
    digests = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                digests[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def _per_request(requests: Sequence[Request], conclusion: Conclusion, validation: set[str]) -> list[dict[str, Any]]:
    before, after, retain = (
        {one.id: one for one in scored if one.sample.part == "forget"}
        for scored in (conclusion.before, conclusion.after, conclusion.retain)
    )
    rows = []
    for request in requests:
        row: dict[str, Any] = {
            "id": request.id,
            "line": request.line,
            "half": "validation" if request.id in validation else "final",
            "question": request.question,
            "sensitive": [request.answer[span.start : span.end] for span in request.spans],
            "span_source": request.source,
        }
        for name, scored in (("before", before), ("after", after), ("retain_model", retain)):
            if request.id in scored:
                one = scored[request.id]
                row[name] = {
                    "probability": one.sample.prob,
                    "extraction_strength": one.sample.strength,
                    "answer": one.generation,
                }
        tried = {attack.name: attack.by_request[request.id] for attack in conclusion.attacks if row["half"] == "final"}
        rows.append({**row, "rouge_l_recall_under_attack": tried} if tried else row)
    return rows


def _attack(attack: Attack) -> dict[str, Any]:
    """Means and recovery of an attack; each request's own recalls are listed with the request."""
    means = {which: getattr(attack, which) for which in ("name", "attacked", "original", "yardstick")}
    return {**means, "recovery": attack.recovery.plain()}


def _estimates(metrics: Mapping[str, Estimate]) -> dict[str, dict[str, float | None]]:
    return {name: estimate.plain() for name, estimate in metrics.items()}


def _digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
