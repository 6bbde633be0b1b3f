"""What a privacy engineer is given: what was asked, what was done, what is left, and what this does not show."""

from __future__ import annotations

import hashlib
import html
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlx.benchmarks.tofu.scores import Estimate
from rlx.specs.unlearn import ResolvedUnlearn
from rlx.unlearning.attacks import Attack
from rlx.unlearning.data.requests import Coverage, Request
from rlx.unlearning.outcome import Conclusion

LIMITS = (
    "This is evidence from measurements, not certified removal: no bound on what the weights still hold is proved.",
    "Only the listed requests, in the listed wordings, were tried; other wordings may bring more back.",
    "Attacks are lower bounds: a stronger attacker may recover more than was recovered here.",
    "Intervals come from a bootstrap over authors; with few authors they are wide and themselves uncertain.",
    "The p-value of forget quality is a step function of D for small n and does not rank models.",
    "The original weights, earlier checkpoints and training data still hold the knowledge and must be handled apart.",
)
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;margin:1em 0}td,th{border-bottom:1px solid #ddd;padding:.3em .8em;text-align:left;"
    "vertical-align:top}th{background:#f6f6f6}code{font-size:90%}.yes{color:#176d2c}.no{color:#a11616}"
)


def certificate(
    resolved: ResolvedUnlearn,
    requests: Sequence[Request],
    report: Coverage,
    conclusion: Conclusion,
    model: Path,
    validation: set[str],
) -> dict[str, Any]:
    """The certificate's content.

    Args:
        resolved: the experiment.
        requests: the forget requests with the spans that were used.
        report: their coverage.
        conclusion: what was measured.
        model: folder of the unlearned model.
        validation: ids of the requests that the checkpoint was chosen by.
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
        "asked": {
            "source": spec.forget.source,
            "requests": report.requests,
            "with_spans": report.covered,
            "spans": spec.forget.spans,
            "uncovered": list(report.uncovered),
            "mended": list(report.mended),
            "refused": list(report.refused),
        },
        "selection": {
            "rule": f"most forgetting on the validation half with utility >= {spec.evaluation.utility_budget:g} of the "
            "original's",
            "update": conclusion.selected_step,
            "within_budget": conclusion.within_budget,
        },
        "aggregates": {
            "before": _estimates(conclusion.before_figures),
            "after": _estimates(conclusion.after_figures),
            "retain_model": _estimates(conclusion.retain_figures),
        },
        "attacks": [_attack(attack) for attack in conclusion.attacks],
        "requests": _per_request(requests, conclusion, validation),
    }


def page(content: Mapping[str, Any]) -> str:
    """The certificate as one self-contained page."""
    asked, chosen = content["asked"], content["selection"]
    uncovered = ", ".join(asked["uncovered"]) or "none"
    parts = [
        f"<h1>{html.escape(content['title'])}</h1>",
        "<p><b>Evidence, never certified removal.</b></p>",
        f"<p>Verdict: <b>{html.escape(content['verdict'])}</b></p>",
        _table(
            ["condition", "holds", "figures"],
            [[f["condition"], "yes" if f["holds"] else "no", f["figures"]] for f in content["findings"]],
        ),
        "<h2>What was asked</h2>",
        f"<p>{asked['requests']} requests from <code>{html.escape(asked['source'])}</code>, "
        f"{asked['with_spans']} with a sensitive span. Without one: {html.escape(uncovered)}.</p>",
        _list([*asked["mended"], *asked["refused"]]),
        "<h2>What was done</h2>",
        f"<p>Method <code>{html.escape(str(content['method']))}</code>. Checkpoint of update {chosen['update']}: "
        f"{html.escape(chosen['rule'])}{'' if chosen['within_budget'] else ' (NONE was: this is the last one)'}.</p>",
        "<h2>Before and after</h2>",
        _aggregate_table(content["aggregates"]),
        "<h2>Attacks</h2>",
        _table(
            ["attack", "ROUGE-L recall under it", "original", "yardstick", "recovered"],
            [
                [a["name"], _n(a["attacked"]), _n(a["original"]), _n(a["yardstick"]), _e(a["recovery"])]
                for a in content["attacks"]
            ],
        ),
        "<h2>Every request</h2>",
        _request_table(content["requests"]),
        "<h2>Limits</h2>",
        _list(content["limits"]),
        "<h2>Hashes</h2>",
        _table(["of", "value"], [[name, str(value)] for name, value in content["hashes"].items()]),
    ]
    body = "\n".join(parts)
    head = f'<meta charset="utf-8"><title>{html.escape(content["run"]["id"])}</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en">{head}{body}</html>\n'


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
    """Means and what came back; each request's own recalls stand with the request."""
    means = {which: getattr(attack, which) for which in ("name", "attacked", "original", "yardstick")}
    return {**means, "recovery": attack.recovery.plain()}


def _request_table(rows: Sequence[Mapping[str, Any]]) -> str:
    def told(row: Mapping[str, Any], name: str) -> str:
        if name not in row:
            return ""
        one = row[name]
        return f"p {_n(one['probability'])}, extraction {_n(one['extraction_strength'])}: {one['answer']}"

    columns = ["id", "half", "question", "sensitive", "before", "after"]
    return _table(
        columns,
        [
            [
                r["id"],
                r["half"],
                r["question"],
                "; ".join(r["sensitive"]) or "NONE",
                told(r, "before"),
                told(r, "after"),
            ]
            for r in rows
        ],
    )


def _aggregate_table(aggregates: Mapping[str, Mapping[str, Mapping[str, float | None]]]) -> str:
    names = list(aggregates["after"])
    models = [model for model in aggregates if aggregates[model]]
    return _table(
        ["figure", *models],
        [
            [name, *(_e(aggregates[model][name]) if name in aggregates[model] else "" for model in models)]
            for name in names
        ],
    )


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _list(items: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(item)}</li>" for item in items) + "</ul>" if items else ""


def _estimates(figures: Mapping[str, Estimate]) -> dict[str, dict[str, float | None]]:
    return {name: estimate.plain() for name, estimate in figures.items()}


def _n(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _e(estimate: Mapping[str, float | None]) -> str:
    return f"{_n(estimate['value'])} [{_n(estimate['low'])}, {_n(estimate['high'])}]"


def _digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
