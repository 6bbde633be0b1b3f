"""The model that is measured, and the values that one forward pass gives for each sequence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rlx.benchmarks.tofu.columns import Floats
from rlx.engine.lora import LM
from rlx.engine.model import ReadableModel
from rlx.engine.row_layout import same_layers
from rlx.engine.step import Engine
from rlx.numerics.collate import TokenBatch, TokenSequence
from rlx.numerics.output_layer.logprobs import Head
from rlx.rollout.sampler import Sampler, Sampling
from rlx.rollout.sync_check import Tolerance
from rlx.unlearning.data.requests import Request
from rlx.unlearning.data.tokens import Template, encode


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
    share_prompts: bool = False
    """Whether the answers to one question are scored in one row."""
    _sequences: dict[tuple[str, str], TokenSequence] = field(default_factory=dict)
    """Tokens by question and answer, which are scored again in every evaluation."""

    def sequence(self, request: Request, answer: str | None = None) -> TokenSequence:
        """The tokens of a request's question with its answer, or with another one."""
        key = (request.question, request.answer if answer is None else answer)
        if key not in self._sequences:
            self._sequences[key] = encode(self.tokenizer, self.template, request, answer).sequence
        return self._sequences[key]


def readable(subject: Subject) -> ReadableModel | None:
    """The subject's model as the engine scores it; None for the engine's own."""
    return None if subject.model is None else ReadableModel(subject.model)


def scored(
    subject: Subject, sequences: Sequence[TokenSequence], read: Callable[[Tensor, Head, TokenBatch], Tensor]
) -> list[Floats]:
    """The values that ``read`` returns for each sequence's response tokens."""
    values_of: dict[int, Floats] = {}
    engine, model = subject.engine, subject.model
    share = subject.share_prompts and (model is None or same_layers(model, engine.lm))
    for members, values in engine.score(sequences, read, readable(subject), share):
        lengths = [len(sequences[member].response) for member in members]
        for member, piece in zip(members, torch.split(values.double().cpu(), lengths), strict=True):
            values_of[member] = piece.numpy()
    return [values_of[index] for index in range(len(sequences))]
