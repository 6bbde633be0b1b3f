"""Measurements of a model on each request: teacher-forced scores and greedy answers."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from rlx.benchmarks.tofu.columns import Floats
from rlx.benchmarks.tofu.rouge import rouge_l_recall
from rlx.benchmarks.tofu.scores import (
    Sample,
    exact_memorisation,
    extraction_strength,
    strict_extraction_strength,
    truth_ratio,
)
from rlx.numerics.collate import TokenBatch, TokenSequence
from rlx.numerics.output_layer.logprobs import Head
from rlx.numerics.output_layer.statistics import label_logprobs, over_logits
from rlx.unlearning.data.requests import Request
from rlx.unlearning.greedy import greedy_texts
from rlx.unlearning.subject import Subject, scored

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


def examine(
    subject: Subject, parts: Mapping[str, Sequence[Request]], answered: Collection[str] | None = None
) -> list[Scored]:
    """The scores of every request; the work is divided over all processes and gathered on each.

    Args:
        subject: the model.
        parts: requests by part (see ``Sample.part``).
        answered: parts whose requests are answered greedily too; by default all but ``holdout``.
    """
    engine = subject.engine
    rows = [(part, i, request) for part, requests in parts.items() for i, request in enumerate(requests)]
    own = rows[engine.rank :: engine.world]
    scores, predicted = _forced(subject, own)
    answered_parts = set(parts) - {"holdout"} if answered is None else set(answered)
    to_answer = [index for index, (part, _, _) in enumerate(own) if part in answered_parts]
    sequences = [subject.sequence(own[index][2]) for index in to_answer]
    texts = greedy_texts(subject, sequences, [predicted[index] for index in to_answer])
    for index, text in zip(to_answer, texts, strict=True):
        rouge = rouge_l_recall(own[index][2].answer, text)
        scores[index] = replace(scores[index], generation=text, sample=replace(scores[index].sample, rouge=rouge))
    order = {(part, i): index for index, (part, i, _) in enumerate(rows)}
    gathered = engine.gather(scores)
    return sorted(gathered, key=lambda score: order[score.sample.part, score.sample.index])


def answers(subject: Subject, requests: Sequence[Request], prefix_tokens: Sequence[int] = ()) -> list[str]:
    """Greedy answers of the subject's model.

    Args:
        subject: the model.
        requests: the questions; a plain text is continued from its start.
        prefix_tokens: see ``greedy_texts``.
    """
    sequences = [subject.sequence(request) for request in requests]
    return greedy_texts(subject, sequences, scored(subject, sequences, _likeliest), prefix_tokens)


def _forced(subject: Subject, rows: Sequence[tuple[str, int, Request]]) -> tuple[list[Scored], list[Floats]]:
    """Teacher-forced scores of (part, index, request) rows, and the most likely token at each response position."""
    own = [subject.sequence(request) for _, _, request in rows]
    others: list[TokenSequence] = []
    for _, _, request in rows:
        texts = [request.paraphrase] if request.paraphrase else []
        others += [subject.sequence(request, text) for text in (*texts, *request.wrong)]
    statistics = scored(subject, own, _statistics)
    nll = iter([-float(np.mean(values)) for values in scored(subject, others, _logprobs)])
    scores = []
    for row, (part, index, request) in enumerate(rows):
        rights = [next(nll)] if request.paraphrase else []
        wrongs = [next(nll) for _ in request.wrong]
        scores.append(_one(part, index, request, own[row], statistics[row], rights, wrongs))
    return scores, [values[:, 1] for values in statistics]


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


def _likeliest(hidden_nd: Tensor, head: Head, tokens: TokenBatch) -> Tensor:
    return over_logits(lambda logits_nv, _: logits_nv.argmax(dim=1), hidden_nd, head, tokens.targets_n)
