"""The files that a finished unlearning run leaves: samples, certificate and summary."""

from __future__ import annotations

import json

from rlx.errors import UserError
from rlx.runs.folder import RunDir, read_json, write_atomically
from rlx.runs.samples import write_samples
from rlx.runs.tracking import read_metrics
from rlx.specs.reading import validate
from rlx.specs.unlearn import ResolvedUnlearn
from rlx.unlearning.build import Assembled
from rlx.unlearning.certificate import Subjects, certificate
from rlx.unlearning.certificate_page import page
from rlx.unlearning.certificate_schema import Certificate
from rlx.unlearning.earlier import readable_requests
from rlx.unlearning.masking import Masker, read_key, secret_texts
from rlx.unlearning.outcome import Conclusion, sample_table


def write_results(resolved: ResolvedUnlearn, folder: RunDir, assembled: Assembled, conclusion: Conclusion) -> None:
    """Write samples, certificate and, last, the summary that marks the run as complete."""
    components = assembled.components
    subjects = Subjects(
        assembled.requests,
        components.earlier,
        {request.id for request in components.validation},
        {request.id for request in components.final},
    )
    earlier = [one.request for one in components.earlier if one.request is not None]
    masker = Masker(read_key(folder.mask_key), secret_texts([*assembled.requests, *earlier]))
    write_samples(sample_table(conclusion, assembled.requests, masker), folder.sample_part(conclusion.selected_step))
    content = certificate(resolved, subjects, conclusion, folder.model, masker)
    write_atomically(folder.certificate, content.model_dump_json(indent=2))
    write_atomically(folder.certificate_page, page(content))
    if folder.clear_page.exists():
        write_atomically(folder.clear_page, page(content, masker.texts), private=True)
    records = read_metrics(folder.metrics)
    dumped = content.model_dump(mode="json")
    summary = {
        "method": resolved.spec.method.name,
        "outcome": content.outcome,
        "verdict": content.verdict,
        "counts": content.counts,
        "earlier_counts": content.earlier_counts,
        "selected_step": conclusion.selected_step,
        "within_budget": conclusion.within_budget,
        "chosen_on_same_requests": content.selection.on_same_requests,
        "seconds": round(sum(r.get("time/step", 0.0) for r in records) + records[0].get("time/eval", 0.0), 1),
        "aggregates": dumped["aggregates"],
        "attacks": dumped["attacks"],
        "curve": [[r["step"], r["eval/forgetting"], r["eval/utility"]] for r in records if "eval/utility" in r],
    }
    write_atomically(folder.summary, json.dumps(summary, indent=2))


def request_clear_page(folder: RunDir, requested: bool) -> None:
    """Create the empty page with sensitive text, which every process of the run then sees, or drop an earlier request.

    Args:
        folder: the run folder.
        requested: whether the page is requested.
    """
    if requested and not folder.clear_page.exists():
        write_atomically(folder.clear_page, "", private=True)
    elif not requested and folder.clear_page.exists() and not folder.clear_page.stat().st_size:
        folder.clear_page.unlink()


def fill_clear_page(resolved: ResolvedUnlearn, folder: RunDir) -> None:
    """Write the requested page of a run that had finished before; the models' answers are no longer known.

    Raises:
        UserError: when the request file cannot be read as it was.
    """
    if not folder.clear_page.exists() or folder.clear_page.stat().st_size:
        return
    content = validate(read_json(folder.certificate), Certificate)
    requests, problem = readable_requests(resolved, len(content.requests))
    if problem:
        folder.clear_page.unlink()
        raise UserError(f"--show-secrets has no texts to show: {problem}", fix="restore the file", exit_code=1)
    masker = Masker(read_key(folder.mask_key))
    for request, row in zip(requests, content.requests, strict=True):
        for text in (request.question, request.answer, request.subject or ""):
            masker.mask(text)
        for start, end in row.spans:
            masker.mask(request.answer[start:end])
    write_atomically(folder.clear_page, page(content, masker.texts), private=True)
