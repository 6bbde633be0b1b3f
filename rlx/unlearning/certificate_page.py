"""The certificate as a page: the sentences of its summary, and the rendering."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rlx.templates import render
from rlx.unlearning.certificate_schema import Certificate
from rlx.unlearning.verdict import STATUSES, Outcome, probe_kinds, probe_name

HEADLINES: Mapping[Outcome, str] = {
    "supported": "Supported by these measurements",
    "not supported": "NOT supported by these measurements",
    "nothing to forget": "Nothing to forget",
}
TONES: Mapping[Outcome, str] = {"supported": "yes", "not supported": "no", "nothing to forget": "neutral"}
"""Style class of each outcome."""
STATUS_TONES = {
    "still extractable": "no",
    "not tested": "no",
    "no longer extractable": "yes",
    "not known before": "neutral",
}
LIMITS_IN_SUMMARY = 3
MODELS = {"before": "before", "after": "after", "retain_model": "retain model"}


@dataclass(frozen=True, slots=True)
class Summary:
    """The first screen, for a reader who signs."""

    headline: str
    tone: str
    requested: list[str]
    done: list[str]
    meaning: str
    counts: list[tuple[str, int, str]]
    """Verdict, number of requests, style class."""
    earlier_counts: list[tuple[str, int, str]]
    limits: list[str]
    old_copies: list[tuple[str, str]]
    """What still holds the knowledge, and the command that deletes it; no command for what is not rlx's."""


def page(content: Certificate, texts: Mapping[str, str] | None = None) -> str:
    """The certificate as one self-contained HTML page.

    Args:
        content: the certificate.
        texts: sensitive texts by their hash, to show them in clear; by default they are masked.
    """
    return render(
        "certificate.html",
        title=content.run.id,
        content=content.model_dump(mode="json"),
        summary=summary(content),
        models=[model for model, metrics in content.aggregates.items() if metrics],
        model_names=MODELS,
        tones=STATUS_TONES,
        probe_names=_probe_names(content),
        probe_kinds=probe_kinds,
        texts=texts or {},
        clear=texts is not None,
    )


def _probe_names(content: Certificate) -> dict[str, str]:
    """What a reader calls every probe of the certificate."""
    verdicts = [row.verdict for row in content.requests] + [row.verdict for row in content.earlier_requests]
    probes = {probe for verdict in verdicts for probe in (*verdict.tried, *verdict.probes)}
    return {probe: probe_name(probe) for probe in sorted(probes | {attack.name for attack in content.attacks})}


def summary(content: Certificate) -> Summary:
    """The sentences of the first screen."""
    return Summary(
        headline=HEADLINES[content.outcome],
        tone=TONES[content.outcome],
        requested=_requested(content),
        done=_done(content),
        meaning=_meaning(content),
        counts=_counts(content.counts),
        earlier_counts=_counts(content.earlier_counts),
        limits=content.limits[:LIMITS_IN_SUMMARY],
        old_copies=_old_copies(content),
    )


def next_step(outcome: Outcome, folder: str) -> str:
    """What to do after the run, in one sentence.

    Args:
        outcome: the verdict of the run.
        folder: the run folder, as it is given to a command.
    """
    if outcome == "nothing to forget":
        return "use the model from before the run; check that the requests are worded as in its training data"
    if outcome == "supported":
        return f"have the certificate signed; rlx unlearn --purge {folder} deletes what still holds the knowledge"
    return "do not release this model; try more epochs (--epochs) or another method (--method)"


def _requested(content: Certificate) -> list[str]:
    number = content.request_set.requests
    sentences = [f"Forget {number} request{'' if number == 1 else 's'} from {content.request_set.source}."]
    dates = sorted({row.received for row in content.requests if row.received})
    if dates:
        period = dates[0] if len(dates) == 1 else f"between {dates[0]} and {dates[-1]}"
        sentences.append(f"Received {period}.")
    bases = sorted({row.basis for row in content.requests if row.basis})
    if bases:
        sentences.append(f"Basis: {', '.join(bases)}.")
    if content.earlier_requests:
        runs = list(dict.fromkeys(row.run for row in content.earlier_requests))
        sentences.append(
            f"{len(content.earlier_requests)} requests of {len(runs)} earlier "
            f"run{'' if len(runs) == 1 else 's'} ({', '.join(runs)}) had to stay forgotten and were measured again."
        )
    return sentences


def _done(content: Certificate) -> list[str]:
    method, selection = content.method, content.selection
    sentences = [
        f"The model '{content.run.model}' was trained with the method {method.name} for {method.epochs} "
        f"epoch{'' if method.epochs == 1 else 's'} to forget them; the state after update {selection.update} is the "
        "result."
    ]
    if not selection.within_budget:
        sentences.append("No state of the training kept the model's utility; the last one is shown.")
    if selection.on_same_requests:
        sentences.append("The state was chosen on the requests that are reported: there are too few to split.")
    attacks = probe_kinds(attack.name for attack in content.attacks)
    tried = f". To bring the answers back, it was attacked by {', '.join(attacks)}" if attacks else ""
    sentences.append(f"The result was asked every question again{tried}.")
    if content.request_set.uncovered:
        sentences.append(
            f"{len(content.request_set.uncovered)} of {content.request_set.requests} requests have no sensitive part: "
            "a method that reads sensitive parts does not forget them."
        )
    return sentences


def _meaning(content: Certificate) -> str:
    if content.outcome == "nothing to forget":
        return (
            "The model before training gave none of these answers better than a model that never saw them. Nothing "
            "could be forgotten, and this page does not show that anything was."
        )
    if content.outcome == "supported":
        return "Every request that the model knew is no longer extractable by the probes that were tried."
    return "The measurements do not show that the model has forgotten what was asked:"


def _counts(counts: Mapping[str, int]) -> list[tuple[str, int, str]]:
    return [(status, counts[status], STATUS_TONES[status]) for status in STATUSES if counts.get(status)]


def _old_copies(content: Certificate) -> list[tuple[str, str]]:
    """What still holds the knowledge: models, and files of this run and of those that it continues."""
    runs = list(dict.fromkeys([row.run for row in content.earlier_requests]))
    copies = [
        (f"The model before this run ({content.run.model}) and every copy of it: restrict or delete them.", ""),
        *([("The models before and of the earlier runs: in the same way.", "")] if runs else []),
        ("The training data, and backups of models and data: handle them in the same way.", ""),
        ("Checkpoints, reference caches and samples of this run.", f"rlx unlearn --purge {content.run.id}"),
    ]
    return copies + [(f"The same of the earlier run {run}.", f"rlx unlearn --purge {run}") for run in runs]
