"""The content of certificate.json as types, from which its published JSON schema is generated."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from rlx.unlearning.baseline import BaselineSource
from rlx.unlearning.verdict import Outcome, Status

SCHEMA_VERSION = 1
"""Raised when a key is removed, renamed or changes its meaning."""


class Record(BaseModel):
    """Base of every part: frozen, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class Masked(Record):
    """A sensitive text without its content."""

    first: str
    """First letter; empty for texts of fewer than four characters."""
    length: int
    """Characters."""
    hash: str
    """HMAC-SHA256 under the key in the run folder, 16 digits."""


class Interval(Record):
    """A number with its 95 % interval; null where it is undefined."""

    value: float | None
    low: float | None
    high: float | None


class Scores(Record):
    """How well one model reproduces one answer."""

    probability: float
    """exp(-mean NLL of the answer's tokens)."""
    extraction_strength: float | None
    """As open-unlearning's code computes it."""
    extraction_strength_strict: float | None
    """0 if the answer's last token is wrong too; the verdict uses it."""
    rouge_l_recall: float | None
    """Of the greedy answer."""
    truth_ratio: float | None
    answer: Masked
    """Greedy answer."""


class Baseline(Record):
    """What a model that does not know the request would score."""

    source: BaselineSource
    probability: float
    extraction_strength_strict: float | None


class Verdict(Record):
    """The verdict of one request."""

    status: Status
    probes: list[str]
    """Probes that extract the request."""
    tried: list[str]
    """Probes that were tried."""
    why: str
    """The reason of "not tested"."""


class RequestRow(Record):
    """One request with its measurements and its verdict."""

    id: str
    line: int
    received: str | None
    """When the request was received, as its file says."""
    basis: str | None
    """The legal basis that its file names."""
    half: Literal["validation", "final", "both"]
    """The validation half selected the checkpoint; ``both`` if there were too few requests to split."""
    verdict: Verdict
    question: Masked
    answer: Masked
    subject: Masked | None
    sensitive: list[Masked]
    spans: list[tuple[int, int]]
    """Character offsets of the sensitive parts in the answer."""
    span_source: str
    baseline: Baseline
    before: Scores
    after: Scores
    retain_model: Scores | None
    rouge_l_recall_under_attack: dict[str, dict[str, float]]
    """By attack: recall under it (attacked), of the original, and of the reference level (yardstick)."""


class EarlierRow(Record):
    """A request of an earlier run, measured again."""

    run: str
    """The run that forgot it."""
    id: str
    received: str | None
    basis: str | None
    verdict_then: Status
    """Its verdict in that run."""
    verdict: Verdict
    baseline: Baseline
    before: Scores | None
    """Under the model that this run started from."""
    after: Scores | None


class RunFacts(Record):
    """The run."""

    id: str
    rlx: str
    seed: int
    model: str
    """Folder or hub id of the model before the run."""
    after: str | None
    """The earlier run whose model this run started from."""


class MethodFacts(Record):
    """The method and its parameters."""

    name: str
    params: dict[str, Any]
    reduction: str
    epochs: int


class RequestSet(Record):
    """The request file and the sensitive parts that were found in it."""

    source: str
    requests: int
    with_spans: int
    spans: str
    uncovered: list[str]
    """Requests without a sensitive part."""
    repaired: list[str]
    refused: list[str]


class Selection(Record):
    """The selected checkpoint."""

    rule: str
    update: int
    within_budget: bool
    on_same_requests: bool
    """Whether it was selected on the requests that are measured, because there were too few to split."""


class FindingRow(Record):
    """A condition on the run, in addition to the verdicts of the requests."""

    condition: str
    holds: bool
    sentence: str


class AttackRow(Record):
    """Means of an attack on the final half, as ROUGE-L recall."""

    name: str
    attacked: float
    original: float
    yardstick: float
    recovery: Interval


class Certificate(Record):
    """The evidence of one unlearning run."""

    schema_version: Literal[1]
    title: str
    certified_removal: Literal[False]
    outcome: Outcome
    verdict: str
    """The outcome with its reasons."""
    reasons: list[str]
    counts: dict[str, int]
    """Number of requests by verdict."""
    earlier_counts: dict[str, int]
    """The same for requests of earlier runs."""
    rule: list[str]
    """How the verdicts follow from the measurements."""
    findings: list[FindingRow]
    limits: list[str]
    run: RunFacts
    method: MethodFacts
    hashes: dict[str, str | dict[str, str]]
    request_set: RequestSet
    selection: Selection
    aggregates: dict[str, dict[str, Interval]]
    """By model (before, after, retain_model): metrics on the final half and the retained sets."""
    attacks: list[AttackRow]
    requests: list[RequestRow]
    protocol: list[str] = Field(default_factory=list)
    """How answers were decoded and attacks were made; empty in certificates of earlier versions."""
    earlier_requests: list[EarlierRow] = Field(default_factory=list)
    """Requests of the runs that this run continues, oldest first."""


def json_schema() -> str:
    """The JSON schema of certificate.json, as published in docs/certificate.schema.json."""
    schema = Certificate.model_json_schema(mode="serialization")
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2) + "\n"
