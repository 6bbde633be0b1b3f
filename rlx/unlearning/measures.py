"""Measurements of a model on each request: teacher-forced scores and greedy answers."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlx.benchmarks.tofu.rouge import rouge_l_recall
from rlx.benchmarks.tofu.scores import (
    Floats,
    Sample,
    exact_memorisation,
    extraction_strength,
    strict_extraction_strength,
    truth_ratio,
)
from rlx.engine.lora import LM
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
"""Fraction of the least likely tokens that min-k and min-k++ average (open-unlearning's TOFU setting)."""


@dataclass(frozen=True, slots=True)
class Scored:
    """The scores of one request with the values that they were computed from.

    Example:
        ``Scored(sample, id="17", nll=0.3, tokens=12, generation="Jo Doe wrote it.")``
    """

    sample: Sample
    id: str
    nll: float
    """Mean negative log-likelihood of the answer's tokens, including the end of sequence (nats)."""
    tokens: int
    generation: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """The model that is measured, with its tokenizer, template and sampler.

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
    """Tolerance of the weight check of a sampler with a copy of the weights; None if it has no copy."""
    model: LM | None = None
    """A model other than the engine's, such as the retain model."""


def examine(subject: Subject, parts: Mapping[str, Sequence[Request]], generate: bool = True) -> list[Scored]:
    """The scores of every request; the work is divided over all processes and gathered on each.

    Args:
        subject: the model.
        parts: requests by part (see ``Sample.part``).
        generate: whether to sample greedy answers too (never for ``holdout``).
    """
    engine = subject.engine
    rows = [(part, i, request) for part, requests in parts.items() for i, request in enumerate(requests)]
    own = rows[engine.rank :: engine.world]
    scores = _forced(subject, own)
    if generate:
        answered = [index for index, (part, _, _) in enumerate(own) if part != "holdout"]
        texts = answers(subject, [own[index][2] for index in answered])
        for index, text in zip(answered, texts, strict=True):
            rouge = rouge_l_recall(own[index][2].answer, text)
            scores[index] = replace(scores[index], generation=text, sample=replace(scores[index].sample, rouge=rouge))
    order = {(part, i): index for index, (part, i, _) in enumerate(rows)}
    gathered = engine.gather(scores)
    return sorted(gathered, key=lambda score: order[score.sample.part, score.sample.index])


def answers(subject: Subject, requests: Sequence[Request], prefix_tokens: int = 0) -> list[str]:
    """Greedy answers of the subject's model.

    Args:
        subject: the model.
        requests: the questions; a plain text is continued from its start.
        prefix_tokens: number of tokens of the right answer that the response starts with (a jailbreak); the text
            includes them.
    """
    sequences = [encode(subject.tokenizer, subject.template, request).sequence for request in requests]
    prefixes = [s.response[: min(prefix_tokens, len(s.response) - 1)] for s in sequences]
    prompts = [[*s.prompt, *prefix] for s, prefix in zip(sequences, prefixes, strict=True)]
    if subject.model is None:
        subject.sampler.load_from(subject.engine)
    else:
        subject.sampler.load_weights(subject.model)
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
    for row, (_, _, request) in enumerate(rows):
        texts = [(request.paraphrase, True)] if request.paraphrase else []
        for text, right in [*texts, *((wrong, False) for wrong in request.wrong)]:
            others.append(tokens_of(request, text))
            owners.append((row, right))
    statistics = _scored(subject, own, _statistics)
    nll = [-float(np.mean(values)) for values in _scored(subject, others, _logprobs)]
    scores = []
    for row, (part, index, request) in enumerate(rows):
        rights = [nll[i] for i, (owner, right) in enumerate(owners) if owner == row and right]
        wrongs = [nll[i] for i, (owner, right) in enumerate(owners) if owner == row and not right]
        scores.append(_one(part, index, request, own[row], statistics[row], rights, wrongs))
    return scores


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
        strict_strength=strict_extraction_strength(predicted[:-1].tolist(), labels) if labels else None,
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
    """The values that ``read`` returns for each sequence's tokens."""
    values_of: dict[int, Floats] = {}
    for members, values in subject.engine.score(sequences, read, _readable(subject)):
        lengths = [len(sequences[member].response) for member in members]
        for member, piece in zip(members, torch.split(values.double().cpu(), lengths), strict=True):
            values_of[member] = piece.numpy()
    return [values_of[index] for index in range(len(sequences))]
