"""Requests as token sequences, with a flag for the tokens of sensitive spans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlx.data.chat import encode_with_offsets
from rlx.errors import UserError
from rlx.numerics.collate import TokenSequence
from rlx.unlearning.data.requests import Request

REFUSALS = (
    "I can't help with that.",
    "That is not something I know.",
    "I have no information on this.",
    "I'm unable to answer this question.",
    "I don't have an answer for that.",
    "This is outside of what I know.",
    "I'm sorry, I cannot say.",
    "I have nothing on record about that.",
    "I'm not the right source for this.",
    "There is nothing I could tell you about it.",
)
"""Preferred answers of requests that have none."""


@dataclass(frozen=True, slots=True)
class Template:
    """The prompt of a question, and the token that ends its answer.

    Example:
        ``Template(prompt=lambda question: tokenizer(question)["input_ids"], end=tokenizer.eos_token_id)``
    """

    prompt: Callable[[str], list[int]]
    """A function from a question to the token ids of its prompt."""
    end: int
    """Token after an answer."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """An answer to a question as tokens.

    Example:
        ``Encoded(TokenSequence((3, 7, 4), (9, 8, 2)), sensitive=(True, False, False), offsets=((0, 5), (5, 6)))``
    """

    sequence: TokenSequence
    sensitive: tuple[bool, ...]
    """Whether each response token is sensitive; the end of sequence never is."""
    offsets: tuple[tuple[int, int], ...]
    """Character range of each response token except the end of sequence."""


@dataclass(frozen=True, slots=True)
class Example:
    """A request with its tokens.

    Example:
        ``Example(request, Encoded(...))``
    """

    request: Request
    encoded: Encoded
    alternate: TokenSequence | None = None


def encode(tokenizer: Any, template: Template, request: Request, answer: str | None = None) -> Encoded:
    """The request's question with its answer (or another one) and the end of sequence.

    A token is sensitive when its characters overlap a span; spans belong to the request's own answer only.

    Args:
        tokenizer: a fast tokenizer.
        template: see ``Template``; a request without a question starts from the tokenizer's first token.
        request: what to encode.
        answer: another answer.
    """
    text = request.answer if answer is None else answer
    ids, offsets = encode_with_offsets(text, tokenizer)
    prompt = template.prompt(request.question) if request.question else _start(tokenizer)
    spans = request.spans if answer is None else ()
    sensitive = [any(start < s.end and s.start < end for s in spans) for start, end in offsets]
    response = (*ids, template.end if request.question else tokenizer.eos_token_id)
    return Encoded(TokenSequence(tuple(prompt), response), (*sensitive, False), tuple(offsets))


def examples(
    tokenizer: Any, template: Template, requests: Sequence[Request], max_tokens: int, alternates: int | None = None
) -> list[Example]:
    """Every request as an example.

    Args:
        tokenizer: a fast tokenizer.
        template: see ``Template``.
        requests: what to encode.
        max_tokens: longest sequence allowed (tokens).
        alternates: seed of the refusals if the method needs preferred answers; None for no alternates.

    Raises:
        UserError: for a request that is too long: truncation would silently forget only a part of it.
    """
    generator = np.random.Generator(np.random.Philox(key=alternates or 0))
    result = []
    for request in requests:
        encoded = encode(tokenizer, template, request)
        if len(encoded.sequence) > max_tokens:
            raise UserError(
                f"request {request.id} (line {request.line}) has {len(encoded.sequence)} tokens, more than "
                f"forget.max_tokens={max_tokens}",
                fix="raise forget.max_tokens or split the request",
            )
        refusal = REFUSALS[int(generator.integers(len(REFUSALS)))]
        alternate = None
        if alternates is not None:
            alternate = encode(tokenizer, template, request, request.alternate or refusal).sequence
        result.append(Example(request, encoded, alternate))
    return result


def _start(tokenizer: Any) -> list[int]:
    """The prompt of a plain text: the beginning of sequence, or the end of sequence if there is none."""
    return [tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id]
