"""The requests of earlier runs that a run continues (``--after``), to be measured again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlx.engine.load import describe_model, load_tokenizer
from rlx.errors import UserError
from rlx.files.sources import Source
from rlx.runs.folder import RunDir, read_json
from rlx.specs.identity import data_fingerprints
from rlx.specs.reading import validate
from rlx.specs.resolve_unlearn import EMBEDDED_DATA, is_tofu
from rlx.specs.unlearn import ResolvedUnlearn
from rlx.unlearning.baseline import BaselineSource
from rlx.unlearning.certificate_schema import SCHEMA_VERSION
from rlx.unlearning.data.passages import passage_length, passages_of
from rlx.unlearning.data.requests import Request, read_requests
from rlx.unlearning.data.sets import load_sets
from rlx.unlearning.data.spans import Span
from rlx.unlearning.verdict import Level, Status


@dataclass(frozen=True, slots=True)
class EarlierRequest:
    """A request that an earlier run forgot.

    Example:
        ``EarlierRequest("palu_s0-1f0c", "17", request, Level(0.1, 0.2), "retain model", "no longer extractable")``
    """

    run: str
    label: str
    """Its id on that run's certificate."""
    request: Request | None
    """None if its text can no longer be read."""
    baseline: Level
    source: BaselineSource
    status: Status
    """Its verdict in that run."""
    received: str | None = None
    basis: str | None = None
    untested: str = ""
    """Why its text cannot be read."""


def earlier_requests(after: str | None, trust: bool = False) -> list[EarlierRequest]:
    """Every request of the runs that a run continues, oldest first.

    Args:
        after: folder of the run whose model is the start; None for none.
        trust: whether code may be executed that comes with the models of these runs.

    Raises:
        UserError: when a run has no certificate with verdicts, or continues itself.
    """
    rounds: list[list[EarlierRequest]] = []
    visited: set[Path] = set()
    while after is not None:
        folder = RunDir(Path(after))
        if folder.root.resolve() in visited:
            raise UserError(f"run {folder.run_id} continues itself (after={after})", fix="give another run")
        visited.add(folder.root.resolve())
        resolved = _without_code(validate(read_json(folder.resolved), ResolvedUnlearn), trust)
        rounds.append(_of_run(resolved, _certificate(folder)))
        after = resolved.spec.after
    return [request for requests in reversed(rounds) for request in requests]


def _without_code(resolved: ResolvedUnlearn, trust: bool) -> ResolvedUnlearn:
    """The experiment, whose tokenizer is loaded without the code that comes with it unless the user trusts that."""
    model = resolved.spec.model.model_copy(
        update={"trust_remote_code": resolved.spec.model.trust_remote_code and trust}
    )
    return resolved.model_copy(update={"spec": resolved.spec.model_copy(update={"model": model})})


def _certificate(folder: RunDir) -> Mapping[str, Any]:
    content: Mapping[str, Any] = read_json(folder.certificate)
    if content.get("schema_version") != SCHEMA_VERSION:
        raise UserError(
            f"the certificate of run {folder.run_id} has schema version {content.get('schema_version', 'none')}, not "
            f"{SCHEMA_VERSION}: it has no verdict for each request",
            fix="repeat that run with --fresh",
            exit_code=1,
        )
    return content


def _of_run(resolved: ResolvedUnlearn, certificate: Mapping[str, Any]) -> list[EarlierRequest]:
    """The requests of one run; their texts are read again from its request file."""
    rows = certificate["requests"]
    requests, untested = readable_requests(resolved, len(rows))
    return [
        EarlierRequest(
            run=resolved.run_id,
            label=row["id"],
            request=None if untested else _with_spans(requests[index], row),
            baseline=Level(row["baseline"]["probability"], row["baseline"]["extraction_strength_strict"]),
            source=row["baseline"]["source"],
            status=row["verdict"]["status"],
            received=row["received"],
            basis=row["basis"],
            untested=untested,
        )
        for index, row in enumerate(rows)
    ]


def readable_requests(resolved: ResolvedUnlearn, expected: int) -> tuple[list[Request], str]:
    """A finished run's requests, read again, or the reason why they cannot be read as they were.

    Args:
        resolved: the run.
        expected: their number on its certificate.
    """
    forget = resolved.spec.forget
    if forget.source == EMBEDDED_DATA or is_tofu(forget.source):
        return load_sets(forget, 1).forget, ""
    file = f"the request file {forget.source} of run {resolved.run_id}"
    try:
        current = data_fingerprints({"forget": [Source(forget.source, key="forget.source")]})
        requests = _in_passages(read_requests(Path(forget.source)), resolved)
    except UserError as error:
        return [], f"{file} cannot be read ({error.what})"
    if current.get("forget") != resolved.fingerprints.get("forget") or len(requests) != expected:
        return [], f"{file} has changed since"
    return requests, ""


def _in_passages(requests: list[Request], resolved: ResolvedUnlearn) -> list[Request]:
    """The requests with documents cut as that run cut them."""
    if all(request.question for request in requests):
        return requests
    spec, folder = resolved.spec, resolved.model_folder
    tokenizer = load_tokenizer(folder, spec.model)
    length = passage_length(spec.forget, describe_model(folder, spec.model).context)
    return passages_of(requests, tokenizer, length)


def _with_spans(request: Request, row: Mapping[str, Any]) -> Request:
    spans = tuple(Span(start, end) for start, end in row["spans"])
    return replace(request, spans=spans, source=row["span_source"])
