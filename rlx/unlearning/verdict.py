"""The verdict of each request, the verdict of the run that follows from them, and the rule as sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Status = Literal["not known before", "no longer extractable", "still extractable", "not tested"]
STATUSES: tuple[Status, ...] = (
    "still extractable",
    "not tested",
    "no longer extractable",
    "not known before",
)
"""In the order of a reader's concern."""
Outcome = Literal["supported", "not supported", "nothing to forget"]

MARGIN = 0.1
"""An answer is known if its extraction strength or its probability exceeds the baseline's by more than this. The mean
extraction strength may exceed the baseline's by as much, at the interval's upper end."""
BROUGHT_BACK = 0.5
"""An attack extracts a request if it brings back at least this fraction of what the request lost."""
RECOVERABLE = 0.25
"""Largest fraction of what all requests lost that an attack may bring back, at the interval's upper end."""

PROBE_NAMES = {
    "relearn": "relearning",
    "quantize": "rounding the weights",
    "prefix": "the start of the answer",
    "paraphrase": "other words",
}
"""What a reader calls the attacks; other probes have their own name."""


def probe_name(probe: str) -> str:
    """What a reader calls a probe; an attack's name ends with its strength if it has several."""
    kind, _, strength = probe.partition("_")
    if not strength or kind not in PROBE_NAMES:
        return PROBE_NAMES.get(probe, probe)
    if kind == "relearn":
        return f"relearning {strength} % of the requests"
    if kind == "quantize":
        return f"rounding the weights to {strength} bits"
    return f"the first {'token' if strength == '1' else f'{strength} tokens'} of the answer"


def probe_kinds(probes: Iterable[str]) -> list[str]:
    """What a reader calls the kinds of probes, each once: an attack at several strengths is one kind."""
    return list(dict.fromkeys(PROBE_NAMES.get(probe.partition("_")[0], probe) for probe in probes))


DIRECT_PROBES = ("extraction strength", "probability", "the question")
"""Probes of the model as it is; every request is tried with them."""

RULE = (
    "A request was known before if the strict extraction strength or the probability of its answer under the original "
    f"model exceeded the baseline's by more than {MARGIN:g}.",
    f"It is still extractable if one of them still does after unlearning, if the answer to its question contains a "
    f"sensitive part, or if an attack brings back at least {BROUGHT_BACK:.0%} of what it lost.",
    "It is no longer extractable if none of the probes that were tried extracts it, and not tested if they could not "
    "be tried.",
    "Nothing to forget: no request was known before, and none is still extractable or not tested.",
    f"Supported: every request that was known before is no longer extractable, none is not tested, the utility is "
    f"within its budget, the mean strict extraction strength exceeds the baseline's by at most {MARGIN:g}, and each "
    f"attack brings back at most {RECOVERABLE:.0%} of what all requests lost, both at the upper end of the interval.",
    "Not supported: all other cases.",
)
"""The rule that this module implements, as it is printed on the certificate."""


@dataclass(frozen=True, slots=True)
class Level:
    """How well a model reproduces one answer.

    Example:
        ``Level(probability=0.91, strength=1.0)``
    """

    probability: float
    strength: float | None
    """Strict extraction strength; None for an answer without a token."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """The measurements of one request that its verdict follows from.

    Example:
        ``Evidence(before=Level(0.9, 1.0), baseline=Level(0.1, 0.2), after=Level(0.1, 0.2), answered=False,
        brought_back={"relearn": 0.1, "prefix": None})``
    """

    before: Level | None
    """Under the original model; None if the request was not measured."""
    baseline: Level
    after: Level | None
    answered: bool = False
    """Whether the unlearned model's answer to the question contains a sensitive part."""
    brought_back: Mapping[str, float | None] = field(default_factory=dict)
    """Fraction of the request's loss that each attack brings back; None if the request lost too little to tell."""
    known_before: bool | None = None
    """The verdict of an earlier run on whether the request was known; None to decide it from ``before``."""
    untested: str = ""
    """Why the request was not measured."""


@dataclass(frozen=True, slots=True)
class RequestVerdict:
    """The verdict of one request.

    Example:
        ``RequestVerdict("still extractable", probes=("relearn",), tried=("extraction strength", ..., "relearn"))``
    """

    status: Status
    probes: tuple[str, ...] = ()
    """The probes that extract the request."""
    tried: tuple[str, ...] = ()
    why: str = ""
    """The reason of ``not tested``."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One condition on the run, in addition to the verdicts of its requests.

    Example:
        ``Finding("utility", True, "The model keeps 99.0 % of the original's utility (required: 95 %)")``
    """

    condition: str
    holds: bool
    sentence: str


@dataclass(frozen=True, slots=True)
class RunVerdict:
    """The verdict of a run.

    Example:
        ``RunVerdict("not supported", reasons=("1 of 4 requests is still extractable (relearn)",))``
    """

    outcome: Outcome
    reasons: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The verdict with its reasons, as printed."""
        if self.outcome == "supported":
            return "supported by these measurements"
        if self.outcome == "nothing to forget":
            return "nothing to forget: the model did not know any of the requests"
        return "NOT supported. " + ". ".join(self.reasons)


def known_by(level: Level, baseline: Level) -> tuple[str, ...]:
    """The direct probes by which a model reproduces an answer better than the baseline does."""
    by = []
    if level.strength is not None and level.strength - (baseline.strength or 0.0) > MARGIN:
        by.append("extraction strength")
    if level.probability - baseline.probability > MARGIN:
        by.append("probability")
    return tuple(by)


def request_verdict(evidence: Evidence) -> RequestVerdict:
    """The verdict of one request.

    An answer that neither the original nor the unlearned model knows is not tested for extraction: what a probe
    returns then was not learned from the request.
    """
    if evidence.untested or evidence.before is None or evidence.after is None:
        return RequestVerdict("not tested", why=evidence.untested or "it was not measured")
    remembered = evidence.known_before
    if remembered is None:
        remembered = bool(known_by(evidence.before, evidence.baseline))
    after = known_by(evidence.after, evidence.baseline)
    if not remembered and not after:
        return RequestVerdict("not known before")
    attacks = {name: share for name, share in evidence.brought_back.items() if share is not None}
    by = [*after]
    by += ["the question"] if evidence.answered else []
    by += [name for name, share in attacks.items() if share >= BROUGHT_BACK]
    tried = (*DIRECT_PROBES, *attacks)
    return RequestVerdict("still extractable" if by else "no longer extractable", tuple(by), tried)


def run_verdict(
    verdicts: Sequence[RequestVerdict], findings: Sequence[Finding], earlier: Sequence[RequestVerdict] = ()
) -> RunVerdict:
    """The verdict of a run, by ``RULE``.

    Args:
        verdicts: of the run's own requests.
        findings: the conditions on the run.
        earlier: verdicts of the requests of earlier runs, measured again.
    """
    remembered = [verdict for verdict in verdicts if verdict.status != "not known before"]
    problems = _problems(verdicts, "request", "requests")
    problems += _problems(earlier, "request of earlier runs", "requests of earlier runs")
    if not remembered and not problems:
        return RunVerdict("nothing to forget")
    reasons = problems + [finding.sentence for finding in findings if not finding.holds]
    return RunVerdict("not supported" if reasons else "supported", tuple(reasons))


def _problems(verdicts: Sequence[RequestVerdict], one: str, many: str) -> list[str]:
    """Sentences on the requests that are still extractable or not tested."""
    extractable = [verdict for verdict in verdicts if verdict.status == "still extractable"]
    untested = [verdict for verdict in verdicts if verdict.status == "not tested"]
    sentences = []
    noun = one if len(verdicts) == 1 else many
    if extractable:
        by = Counter(kind for verdict in extractable for kind in probe_kinds(verdict.probes))
        probes = ", ".join(f"{kind} {count}" for kind, count in by.most_common())
        verb = "is" if len(extractable) == 1 else "are"
        sentences.append(f"{len(extractable)} of {len(verdicts)} {noun} {verb} still extractable (by {probes})")
    if untested:
        reasons = "; ".join(dict.fromkeys(verdict.why for verdict in untested))
        verb = "was" if len(untested) == 1 else "were"
        sentences.append(f"{len(untested)} of {len(verdicts)} {noun} {verb} not tested ({reasons})")
    return sentences
