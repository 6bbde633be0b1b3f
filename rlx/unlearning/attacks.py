"""Attacks that try to recover forgotten knowledge: relearning, quantisation, a prefix of the answer, a paraphrase."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from rlx.benchmarks.tofu.columns import Floats
from rlx.benchmarks.tofu.rouge import rouge_l_recall
from rlx.benchmarks.tofu.scores import Estimate, clustered_interval
from rlx.engine.batch import Batch, Losses
from rlx.engine.lora import LM
from rlx.engine.step import Engine
from rlx.numerics.collate import TokenBatch
from rlx.numerics.output_layer.logprobs import Head
from rlx.numerics.output_layer.statistics import label_logprobs
from rlx.numerics.terms import Counts, Term
from rlx.specs.unlearn import UnlearnSpec
from rlx.unlearning.data.requests import Request
from rlx.unlearning.data.tokens import encode
from rlx.unlearning.measures import answers
from rlx.unlearning.quantize import round_trip
from rlx.unlearning.strengths import Strength, strengths_of
from rlx.unlearning.subject import Subject

SMALLEST_GAP = 0.05
"""Smallest difference in ROUGE between the original and the reference level for which recovery is defined."""


@dataclass(frozen=True, slots=True)
class Attack:
    """The knowledge that one attack recovered, on the final half of the forget set.

    Example:
        ``Attack("quantize", attacked=0.41, original=0.98, yardstick=0.40, by_request={"17": {"attacked": 0.4, ...}},
        recovery=Estimate(0.02, -0.05, 0.1))``
    """

    name: str
    attacked: float
    """Mean ROUGE-L recall of the unlearned model's greedy answers under the attack."""
    original: float
    """Mean ROUGE-L recall of the original model's answers."""
    yardstick: float
    """Reference level: the retain model's recall under the attack, or else the unlearned model's without it."""
    by_request: Mapping[str, Mapping[str, float]]
    """The three recalls of each request by its id."""
    recovery: Estimate
    """(attacked - yardstick) / (original - yardstick): 0 is nothing, 1 is all; NaN if nothing was lost."""


def attacked_rouge(
    name: str,
    load: Callable[[], LM],
    subject: Subject,
    halves: tuple[Sequence[Request], Sequence[Request]],
    spec: UnlearnSpec,
    amount: int | None = None,
) -> Floats:
    """ROUGE-L recall of each final request's greedy answer after an attack on a model.

    Args:
        name: kind of attack: ``relearn``, ``quantize``, ``prefix``, ``paraphrase``, or ``none``.
        load: returns a new copy of the model, which the attack may change.
        subject: tokenizer, template and sampling.
        halves: validation requests (used for relearning) and final requests (which are measured).
        spec: the attacks' settings.
        amount: requests to relearn, bits, or tokens (see ``Strength``); by default the spec's own key.
    """
    validation, final = halves
    settings, lm = spec.evaluation, load()
    if name == "relearn":
        lm = relearned(lm, subject, validation[: amount or settings.relearn_requests], spec)
    elif name == "quantize":
        round_trip(lm, amount or settings.quantize_bits)
    attacked = replace(subject, model=lm)
    if name == "prefix":
        return _rest_rouge(attacked, final, [amount or settings.prefix_tokens] * len(final))
    if name == "paraphrase":
        return _in_other_words_rouge(attacked, final)
    texts = answers(attacked, final)
    return np.array([rouge_l_recall(r.answer, text) for r, text in zip(final, texts, strict=True)])


def _rest_rouge(subject: Subject, requests: Sequence[Request], given: Sequence[int]) -> Floats:
    """ROUGE-L recall of what follows the first tokens of the answers, of which each request has its number."""
    texts = answers(subject, requests, given)
    heads = [_head(subject, request, tokens) for request, tokens in zip(requests, given, strict=True)]
    rests = [
        (r.answer[len(head) :], text.strip()[len(head.strip()) :])
        for r, head, text in zip(requests, heads, texts, strict=True)
    ]
    return np.array([rouge_l_recall(rest, generated) for rest, generated in rests])


def in_other_wording(request: Request) -> tuple[Request, int] | None:
    """A request in other words, and the character at which its answer is to be continued; None if there is none.

    The paraphrased question is asked. Without one, the paraphrased answer is continued from its first sensitive part.
    """
    if request.question_paraphrase:
        return replace(request, question=request.question_paraphrase), 0
    if not request.paraphrase:
        return None
    text, parts = request.paraphrase.casefold(), [request.answer[s.start : s.end].casefold() for s in request.spans]
    starts = [text.index(part) for part in parts if part in text]
    usable = starts and min(starts) > 0 and len(text) == len(request.paraphrase)
    return (replace(request, answer=request.paraphrase, spans=()), min(starts)) if usable else None


def _in_other_words_rouge(subject: Subject, requests: Sequence[Request]) -> Floats:
    """ROUGE-L recall of the answers to the requests that have another wording."""
    variants = [variant for request in requests if (variant := in_other_wording(request)) is not None]
    given = []
    for asked_request, start in variants:
        offsets = encode(subject.tokenizer, subject.template, asked_request).offsets
        given.append(sum(end <= start for _, end in offsets))
    return _rest_rouge(subject, [variant for variant, _ in variants], given)


def relearned(lm: LM, subject: Subject, requests: Sequence[Request], spec: UnlearnSpec) -> LM:
    """The model after a few supervised updates on some forgotten requests."""
    settings = spec.evaluation
    optim = spec.optim.model_copy(update={"warmup_updates": 0, "schedule": "constant"})
    lm.requires_grad_(True)
    engine = Engine(lm, spec.model, optim, settings.relearn_updates, spec.batch.max_tokens)
    sequences = [encode(subject.tokenizer, subject.template, request).sequence for request in requests]
    counts = {"relearn": Counts(sum(len(s.response) for s in sequences), len(sequences))}
    own = sequences[engine.rank :: engine.world]
    for _ in range(settings.relearn_updates):
        engine.update(Batch(own, _nll, lambda losses, tokens, rows: losses, counts))
    return lm


def recovery(attacked: Floats, original: Floats, yardstick: Floats, authors: Sequence[int]) -> Estimate:
    """Fraction of the lost knowledge that was recovered, with an interval from a bootstrap over authors."""

    def share(a: Floats, o: Floats, y: Floats) -> float:
        gap = float(o.mean() - y.mean())
        return float(a.mean() - y.mean()) / gap if gap >= SMALLEST_GAP else float("nan")

    return clustered_interval([attacked, original, yardstick], authors, share)


def attack_all(
    loaders: Mapping[str, Callable[[], LM]],
    subject: Subject,
    halves: tuple[Sequence[Request], Sequence[Request]],
    spec: UnlearnSpec,
) -> list[Attack]:
    """Run every attack of the spec; relearning only if there are requests other than the measured ones to relearn.

    Args:
        loaders: functions that return new copies of the ``unlearned``, ``original`` and, if given, ``retain`` models.
        subject: tokenizer, template and sampling.
        halves: see ``attacked_rouge``.
        spec: the attacks and their settings.
    """
    plain: dict[str, Floats] = {}
    in_other_words = [r for r in halves[1] if in_other_wording(r) is not None]

    def unattacked(model: str) -> Floats:
        if model not in plain:
            plain[model] = attacked_rouge("none", loaders[model], subject, halves, spec)
        return plain[model]

    def attacked_by(model: str, strength: Strength) -> Floats:
        return attacked_rouge(strength.kind, loaders[model], subject, halves, spec, strength.amount)

    def recalls_of(strength: Strength) -> dict[str, Floats]:
        asked_otherwise = strength.kind in ("prefix", "paraphrase")
        without = unattacked("unlearned")
        if strength.kind == "paraphrase":
            without = without[[in_other_wording(request) is not None for request in halves[1]]]
        return {
            "attacked": attacked_by("unlearned", strength),
            "original": attacked_by("original", strength) if asked_otherwise else unattacked("original"),
            "yardstick": attacked_by("retain", strength) if "retain" in loaders else without,
        }

    attacks = []
    final_ids = {request.id for request in halves[1]}
    # Relearning the very request that is measured would teach its answer, not bring it back.
    teachable = sum(request.id not in final_ids for request in halves[0])
    total = len(final_ids | {request.id for request in halves[0]})
    for strength in strengths_of(spec.evaluation, total, teachable):
        measured = in_other_words if strength.kind == "paraphrase" else halves[1]
        if not measured:
            continue
        recalls = recalls_of(strength)
        attacks.append(
            Attack(
                name=strength.name,
                **{which: float(values.mean()) for which, values in recalls.items()},
                by_request={
                    request.id: {which: float(values[index]) for which, values in recalls.items()}
                    for index, request in enumerate(measured)
                },
                recovery=recovery(**recalls, authors=_authors(measured)),
            )
        )
    return attacks


def _authors(requests: Sequence[Request]) -> list[int]:
    return [index if request.author is None else request.author for index, request in enumerate(requests)]


def _nll(hidden_nd: Tensor, head: Head, tokens: TokenBatch) -> Losses:
    nll_n = -label_logprobs(hidden_nd, tokens.targets_n, head)
    return Losses([Term("relearn", tokens.padded(nll_n), tokens.mask_bt)])


def _head(subject: Subject, request: Request, tokens: int) -> str:
    """The text of the answer's first tokens."""
    encoded = encode(subject.tokenizer, subject.template, request)
    given = min(tokens, len(encoded.sequence.response) - 1)
    return request.answer[: encoded.offsets[given - 1][1]] if given else ""
