"""Attacks that try to recover forgotten knowledge: relearning, quantisation, a prefix of the answer."""

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
) -> Floats:
    """ROUGE-L recall of each final request's greedy answer after an attack on a model.

    Args:
        name: ``relearn``, ``quantize``, ``prefix``, or ``none``.
        load: returns a new copy of the model, which the attack may change.
        subject: tokenizer, template and sampling.
        halves: validation requests (used for relearning) and final requests (which are measured).
        spec: the attacks' settings.
    """
    validation, final = halves
    lm = load()
    if name == "relearn":
        lm = relearned(lm, subject, validation[: spec.evaluation.relearn_requests], spec)
    elif name == "quantize":
        round_trip(lm, spec.evaluation.quantize_bits)
    attacked_subject = replace(subject, model=lm)
    if name != "prefix":
        texts = answers(attacked_subject, final)
        return np.array([rouge_l_recall(r.answer, text) for r, text in zip(final, texts, strict=True)])
    given = spec.evaluation.prefix_tokens
    texts = answers(attacked_subject, final, prefix_tokens=given)
    heads = [_head(subject, request, given) for request in final]
    rests = [
        (r.answer[len(head) :], text.strip()[len(head.strip()) :])
        for r, head, text in zip(final, heads, texts, strict=True)
    ]
    return np.array([rouge_l_recall(rest, generated) for rest, generated in rests])


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
    authors = [index if r.author is None else r.author for index, r in enumerate(halves[1])]
    plain: dict[str, Floats] = {}

    def rouge(model: str, name: str) -> Floats:
        if name == "none" and model in plain:
            return plain[model]
        values = attacked_rouge(name, loaders[model], subject, halves, spec)
        if name == "none":
            plain[model] = values
        return values

    attacks = []
    final_ids = {request.id for request in halves[1]}
    teachable = any(request.id not in final_ids for request in halves[0])
    for name in spec.evaluation.attacks:
        # Relearning the very request that is measured would teach its answer, not bring it back.
        if name == "relearn" and not teachable:
            continue
        attacked = rouge("unlearned", name)
        original = rouge("original", "prefix" if name == "prefix" else "none")
        yardstick = rouge("retain", name) if "retain" in loaders else rouge("unlearned", "none")
        recalls = {"attacked": attacked, "original": original, "yardstick": yardstick}
        attacks.append(
            Attack(
                name=name,
                **{which: float(values.mean()) for which, values in recalls.items()},
                by_request={
                    request.id: {which: float(values[index]) for which, values in recalls.items()}
                    for index, request in enumerate(halves[1])
                },
                recovery=recovery(attacked, original, yardstick, authors),
            )
        )
    return attacks


def _nll(hidden_nd: Tensor, head: Head, tokens: TokenBatch) -> Losses:
    nll_n = -label_logprobs(hidden_nd, tokens.targets_n, head)
    return Losses([Term("relearn", tokens.padded(nll_n), tokens.mask_bt)])


def _head(subject: Subject, request: Request, tokens: int) -> str:
    """The text of the answer's first tokens."""
    encoded = encode(subject.tokenizer, subject.template, request)
    given = min(tokens, len(encoded.sequence.response) - 1)
    return request.answer[: encoded.offsets[given - 1][1]] if given else ""
