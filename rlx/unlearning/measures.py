"""What a model still says about each request: teacher-forced scores and greedy answers, per sample."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlx.benchmarks.tofu.rouge import rouge_l_recall
from rlx.benchmarks.tofu.scores import Floats, Sample, exact_memorisation, extraction_strength, truth_ratio
from rlx.engine.lora import LM, causal_lm
from rlx.engine.model import ReadableModel
from rlx.engine.step import Engine
from rlx.numerics.collate import TokenBatch, TokenSequence
from rlx.numerics.output_layer.logprobs import Head
from rlx.numerics.output_layer.statistics import label_logprobs, over_logits
from rlx.rollout.sampler import Sampler, Sampling
from rlx.rollout.sync_check import Tolerance, check_sync
from rlx.unlearning.data.requests import Request
from rlx.unlearning.data.tokens import Template, encode

MIN_K = 0.4
"""Share of the least likely tokens that min-k and min-k++ average (open-unlearning's TOFU setting)."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A sample with what it was computed from.

    Example:
        ``Scored(sample, id="17", nll=0.3, tokens=12, generation="Jo Doe wrote it.")``
    """

    sample: Sample
    id: str
    nll: float
    """Mean over the answer's tokens, end of sequence counted (nats)."""
    tokens: int
    generation: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """The model that is examined, and how to speak to it.

    Example:
        ``Subject(engine, HFSampler(), tokenizer, template, Sampling(0.0, 64, stop_ids=(2,)))``
    """

    engine: Engine
    sampler: Sampler
    tokenizer: Any
    template: Template
    sampling: Sampling
    """Greedy: temperature 0."""
    tolerance: Tolerance | None = None
    """How far the log-probs of a sampler with a copy of the weights may part from the model's; None: it has no copy."""
    model: LM | None = None
    """Another model than the engine's, such as the retain model."""


def examine(subject: Subject, parts: Mapping[str, Sequence[Request]], generate: bool = True) -> list[Scored]:
    """Every request's scores; the work is shared by all processes and gathered on each.

    Args:
        subject: the model.
        parts: requests by part (see ``Sample.part``).
        generate: whether to let it answer greedily too (never for ``holdout``).
    """
    engine = subject.engine
    wanted = [(part, i, request) for part, requests in parts.items() for i, request in enumerate(requests)]
    mine = wanted[engine.rank :: engine.world]
    made = _forced(subject, mine)
    if generate:
        asked = [place for place, (part, _, _) in enumerate(mine) if part != "holdout"]
        texts = answers(subject, [mine[place][2] for place in asked])
        for place, text in zip(asked, texts, strict=True):
            rouge = rouge_l_recall(mine[place][2].answer, text)
            made[place] = replace(made[place], generation=text, sample=replace(made[place].sample, rouge=rouge))
    order = {(part, i): place for place, (part, i, _) in enumerate(wanted)}
    every = engine.gather(made)
    return sorted(every, key=lambda scored: order[scored.sample.part, scored.sample.index])


def answers(subject: Subject, requests: Sequence[Request], prefix_tokens: int = 0) -> list[str]:
    """Greedy answers of the subject's model.

    Args:
        subject: the model.
        requests: what to ask; a plain text is continued from its start.
        prefix_tokens: so many tokens of the right answer are put in its mouth first (a jailbreak); the text holds them.
    """
    sequences = [encode(subject.tokenizer, subject.template, request).sequence for request in requests]
    prefixes = [s.response[: min(prefix_tokens, len(s.response) - 1)] for s in sequences]
    prompts = [[*s.prompt, *prefix] for s, prefix in zip(sequences, prefixes, strict=True)]
    subject.sampler.load_weights(causal_lm(subject.engine.gathered_model()) if subject.model is None else subject.model)
    responses = [group[0] for group in subject.sampler.sample(prompts, [[0]] * len(prompts), subject.sampling)]
    subject.sampler.sleep()
    if subject.tolerance is not None:
        sampled = [TokenSequence(tuple(p), r.tokens) for p, r in zip(prompts, responses, strict=True)]
        check_sync(sampled, responses, subject.engine, 1.0, subject.tolerance, _readable(subject))
    return [
        subject.tokenizer.decode([*prefix, *response.tokens], skip_special_tokens=True)
        for prefix, response in zip(prefixes, responses, strict=True)
    ]


def _readable(subject: Subject) -> ReadableModel | None:
    return None if subject.model is None else ReadableModel(subject.model)


def _forced(subject: Subject, rows: Sequence[tuple[str, int, Request]]) -> list[Scored]:
    """Teacher-forced scores of (part, index, request) rows."""

    def tokens_of(request: Request, text: str | None = None) -> TokenSequence:
        return encode(subject.tokenizer, subject.template, request, text).sequence

    own = [tokens_of(request) for _, _, request in rows]
    others: list[TokenSequence] = []
    owners: list[tuple[int, bool]] = []
    for place, (_, _, request) in enumerate(rows):
        texts = [(request.paraphrase, True)] if request.paraphrase else []
        for text, right in [*texts, *((wrong, False) for wrong in request.wrong)]:
            others.append(tokens_of(request, text))
            owners.append((place, right))
    statistics = _scored(subject, own, _statistics)
    nll = [-float(np.mean(values)) for values in _scored(subject, others, _logprobs)]
    made = []
    for place, (part, index, request) in enumerate(rows):
        rights = [nll[i] for i, (owner, right) in enumerate(owners) if owner == place and right]
        wrongs = [nll[i] for i, (owner, right) in enumerate(owners) if owner == place and not right]
        made.append(_one(part, index, request, own[place], statistics[place], rights, wrongs))
    return made


def _one(
    part: str,
    index: int,
    request: Request,
    sequence: TokenSequence,
    statistics: Floats,
    rights: list[float],
    wrongs: list[float],
) -> Scored:
    """One request's scores from its tokens' (logprob, argmax, mean, deviation) [n, 4] and the other texts' NLL."""
    logprobs, predicted = statistics[:, 0], statistics[:, 1].astype(int)
    loss = -float(logprobs.mean())
    probability = float(np.exp(-loss))
    labels = sequence.response[:-1]
    wrong_mass = float(np.sum(np.exp(-np.array(wrongs)))) if wrongs else 0.0
    right = rights[0] if rights else loss
    attacks = {
        "loss": loss,
        "zlib": loss / len(zlib.compress(request.answer.encode())),
        "min_k": -_lowest(logprobs),
        "min_k_plus_plus": -_lowest((logprobs - statistics[:, 2]) / np.maximum(statistics[:, 3], 1e-6)),
    }
    author = index if request.author is None else request.author
    sample = Sample(
        part=part,
        index=index,
        author=author,
        prob=probability,
        prob_normalised=probability / (probability + wrong_mass) if wrongs else None,
        truth_ratio=truth_ratio(right, wrongs) if wrongs else None,
        exact=exact_memorisation(predicted[:-1].tolist(), labels) if labels else None,
        strength=extraction_strength(predicted[:-1].tolist(), labels) if labels else None,
        attacks=attacks if part in ("forget", "holdout") else {},
    )
    return Scored(sample, request.id, loss, len(sequence.response))


def _lowest(values: Floats) -> float:
    """Mean of the lowest 40 % of values, at least one."""
    return float(np.sort(values)[: max(1, int(len(values) * MIN_K))].mean())


def _statistics(hidden_nd: Tensor, head: Head, tokens: TokenBatch) -> Tensor:
    """Log-prob of the label, argmax, and mean and deviation of the log-prob under the model itself, [n, 4]."""

    def of_logits(logits_nv: Tensor, labels_n: Tensor) -> Tensor:
        logprobs_nv = logits_nv.log_softmax(dim=1)
        probs_nv = logprobs_nv.exp()
        mean_n = (probs_nv * logprobs_nv).sum(dim=1)
        variance_n = (probs_nv * logprobs_nv.square()).sum(dim=1) - mean_n.square()
        label_n = logprobs_nv.gather(1, labels_n[:, None]).squeeze(1)
        return torch.stack(
            [label_n, logits_nv.argmax(dim=1).to(label_n.dtype), mean_n, variance_n.clamp(min=0).sqrt()], 1
        )

    return over_logits(of_logits, hidden_nd, head, tokens.targets_n)


def _logprobs(hidden_nd: Tensor, head: Head, tokens: TokenBatch) -> Tensor:
    return label_logprobs(hidden_nd, tokens.targets_n, head)


def _scored(subject: Subject, sequences: Sequence[TokenSequence], read: Any) -> list[Floats]:
    """``read``'s figures of each sequence's tokens."""
    found: dict[int, Floats] = {}
    for members, values in subject.engine.score(sequences, read, _readable(subject)):
        lengths = [len(sequences[member].response) for member in members]
        for member, piece in zip(members, torch.split(values.double().cpu(), lengths), strict=True):
            found[member] = piece.numpy()
    return [found[place] for place in range(len(sequences))]
