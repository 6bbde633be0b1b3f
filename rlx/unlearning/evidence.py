"""The evidence on each request: its baseline, its scores before and after, and what attacks bring back of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rlx.engine.lora import LM
from rlx.unlearning.attacks import SMALLEST_GAP, Attack
from rlx.unlearning.baseline import BaselineSource, exchanged
from rlx.unlearning.data.requests import Request
from rlx.unlearning.earlier import EarlierRequest
from rlx.unlearning.measures import Scored, examine
from rlx.unlearning.subject import Subject
from rlx.unlearning.verdict import Evidence, Level, RequestVerdict, request_verdict

SHORTEST_PART = 2
"""A sensitive part of fewer letters and digits occurs in answers by chance."""


@dataclass(frozen=True, slots=True)
class RequestBaseline:
    """What a model that does not know a request scores.

    Example:
        ``RequestBaseline("names exchanged", Level(0.21, 0.1))``
    """

    source: BaselineSource
    level: Level


def request_baselines(
    subject: Subject,
    load_original: Callable[[], LM],
    requests: Sequence[Request],
    pool: Sequence[str],
    retain: Sequence[Scored],
) -> dict[str, RequestBaseline]:
    """The baseline of every request, by id: the retain model's scores, or those of exchanged requests.

    Args:
        subject: tokenizer, template and engine.
        load_original: loads the model before unlearning.
        requests: the forget requests.
        pool: names of other persons, see ``name_pool``.
        retain: the retain model's scores; empty if there is none.
    """
    if retain:
        return {one.id: RequestBaseline("retain model", level_of(one)) for one in retain if one.sample.part == "forget"}
    variants = {request.id: exchanged(request, requests, pool) for request in requests}
    rows = [variant for _, group in variants.values() for variant in group]
    scored: dict[str, list[Scored]] = {request.id: [] for request in requests}
    if rows:
        for one in examine(replace(subject, model=load_original()), {"exchanged": rows}, answered=()):
            scored[one.id].append(one)
    return {
        request.id: RequestBaseline(variants[request.id][0], _mean_level(scored[request.id])) for request in requests
    }


def own_verdicts(
    requests: Sequence[Request],
    baselines: Mapping[str, RequestBaseline],
    scored: Mapping[str, Sequence[Scored]],
    attacks: Sequence[Attack],
) -> dict[str, RequestVerdict]:
    """The verdict of every request of the run, by id.

    Args:
        requests: the forget requests.
        baselines: see ``request_baselines``.
        scored: every score by model: ``original``, ``unlearned`` and, if there is one, ``retain``.
        attacks: on either half.
    """
    before, after, retain = (
        {one.id: one for one in scored.get(who, ()) if one.sample.part == "forget"}
        for who in ("original", "unlearned", "retain")
    )
    return {
        request.id: request_verdict(
            Evidence(
                before=level_of(before[request.id]),
                baseline=baselines[request.id].level,
                after=level_of(after[request.id]),
                answered=says_sensitive(
                    request, after[request.id].generation, retain[request.id].generation if retain else ""
                ),
                brought_back=_brought_back(request.id, attacks),
            )
        )
        for request in requests
    }


def earlier_verdicts(earlier: Sequence[EarlierRequest], scored: Mapping[str, Sequence[Scored]]) -> list[RequestVerdict]:
    """The verdict of every request of earlier runs after this run; only direct probes are repeated."""
    before, after = (iter(earlier_scores(scored[who])) for who in ("original", "unlearned"))
    verdicts = []
    for one in earlier:
        if one.request is None:
            verdicts.append(request_verdict(Evidence(None, one.baseline, None, untested=one.untested)))
            continue
        start, end = next(before), next(after)
        evidence = Evidence(
            before=level_of(start),
            baseline=one.baseline,
            after=level_of(end),
            answered=says_sensitive(one.request, end.generation, ""),
            known_before=one.status != "not known before",
        )
        verdicts.append(request_verdict(evidence))
    return verdicts


def earlier_scores(scored: Sequence[Scored]) -> list[Scored]:
    """The scores of the requests of earlier runs, in order."""
    return [one for one in scored if one.sample.part == "earlier"]


def level_of(one: Scored) -> Level:
    """The two scores that say whether an answer is known."""
    return Level(one.sample.prob or 0.0, one.sample.strict_strength)


def says_sensitive(request: Request, generation: str, reference: str) -> bool:
    """Whether an answer contains a sensitive part that the question and a model that never saw it do not.

    Args:
        request: with its spans; without any, its complete answer counts as sensitive.
        generation: the answer.
        reference: the retain model's answer; empty if there is none.
    """
    parts = [_words(request.answer[span.start : span.end]) for span in request.spans] or [_words(request.answer)]
    spoken, others = _words(generation), (_words(request.question), _words(reference))
    return any(
        len(part.replace(" ", "")) >= SHORTEST_PART and part in spoken and not any(part in other for other in others)
        for part in parts
    )


def _brought_back(request_id: str, attacks: Sequence[Attack]) -> dict[str, float | None]:
    """The fraction of a request's lost recall that each attack brings back; None if too little was lost."""
    shares: dict[str, float | None] = {}
    for attack in attacks:
        if request_id in attack.by_request:
            recall = attack.by_request[request_id]
            lost = recall["original"] - recall["yardstick"]
            share = (recall["attacked"] - recall["yardstick"]) / lost if lost >= SMALLEST_GAP else None
            shares[attack.name] = share
    return shares


def _mean_level(scored: Sequence[Scored]) -> Level:
    if not scored:
        return Level(0.0, 0.0)
    levels = [level_of(one) for one in scored]
    strengths = [level.strength for level in levels if level.strength is not None]
    return Level(
        float(np.mean([level.probability for level in levels])), float(np.mean(strengths)) if strengths else None
    )


def _words(text: str) -> str:
    """The text's words in lower case with one space around each."""
    words = re.findall(r"[^\W_]+", text.casefold())
    return f" {' '.join(words)} "
