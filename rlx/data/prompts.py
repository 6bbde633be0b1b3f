"""Prompts with their gold answers: reading, filtering, splitting, and the order in which they are drawn."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from itertools import islice
from typing import Any, Literal, cast

import numpy as np

from rlx.data import arithmetic
from rlx.data.chat import encode
from rlx.data.rows import column, read_rows
from rlx.errors import UserError, did_you_mean
from rlx.rewards.extract import last_boxed, last_hash
from rlx.specs.train import Data


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question with its answer, rendered as a prompt.

    Example:
        ``Prompt(id="47+85", question="47+85=", answer="132", tokens=(7, 10, 13, 11, 8, 16))``
    """

    id: str
    question: str
    """The question as in the data, without system prompt and suffix."""
    answer: str
    """The gold answer, extracted according to ``data.answer_format``."""
    tokens: tuple[int, ...]
    """The whole rendered prompt."""
    row: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """All columns of the row, which a reward may ask for."""
    conversation: tuple[Mapping[str, Any], ...] = field(default=(), compare=False, repr=False)
    """The messages of the prompt's column, if it holds a conversation."""
    location: str = field(default="", compare=False)
    """Source and line, for messages."""


@dataclass(frozen=True, slots=True)
class PromptSet:
    """Prompts, and the number of rows that were left out by reason.

    Example:
        ``PromptSet(prompts, left_out={"duplicate question": 2, "longer than 1024 tokens": 1})``
    """

    prompts: list[Prompt]
    left_out: Mapping[str, int]

    def sentence(self) -> str:
        """``7000 prompts; left out: 2 duplicate question, 1 longer than 1024 tokens``."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items())
        return f"{len(self.prompts)} prompts" + (f"; left out: {reasons}" if reasons else "")


def load_prompts(data: Data, tokenizer: Any) -> PromptSet:
    """The prompts of ``data.source``.

    A row without a readable answer is an error, since a wrong column would otherwise train on nothing; a repeated
    question or a too long prompt is left out and counted.

    Args:
        data: source, columns, answer format, chat settings and limits.
        tokenizer: a transformers tokenizer.

    Raises:
        UserError: for a missing file or column, a broken line, an unreadable answer, or when nothing is left.
    """
    left_out: Counter[str] = Counter()
    prompts: list[Prompt] = []
    seen: set[str] = set()
    ids: set[str] = set()
    for location, question, answer, row in islice(_questions(data), data.limit):
        if question.strip() in seen:
            left_out["duplicate question"] += 1
            continue
        seen.add(question.strip())
        try:
            tokens = encode(question, data, tokenizer)
        except UserError as error:
            raise UserError(f"{data.source} {location}: {error.what}", fix=error.fix) from None
        if len(tokens) > data.max_prompt_tokens:
            left_out[f"longer than {data.max_prompt_tokens} tokens"] += 1
            continue
        name = str(row["id"]) if isinstance(row.get("id"), (str, int)) else ""
        label = location if not name or name in ids else name
        ids.add(label)
        source = data.source
        messages = () if source == "arithmetic" else _conversation(column(row, data.prompt, location, "data.prompt"))
        prompts.append(Prompt(label, question, answer, tokens, row, messages, f"{source} {location}"))
    prompt_set = PromptSet(prompts, dict(left_out))
    if not prompts:
        why = prompt_set.sentence() if left_out else "it is empty"
        raise UserError(f"data.source '{data.source}' has no usable row ({why})", fix="check the file and data.*")
    return prompt_set


def hold_out(prompts: Sequence[Prompt], number: int) -> tuple[list[Prompt], list[Prompt]]:
    """Split prompts into training and held-out ones by a hash of the question.

    Args:
        prompts: all prompts.
        number: how many to hold out, at most half of them.

    Raises:
        UserError: when none can be held out.
    """
    if len(prompts) < 2:
        raise UserError(
            "data.source has one question only, so none can be held out for evaluation",
            fix="give more, name evaluation.source, or set evaluation.every=0",
        )
    ranked = sorted(prompts, key=lambda prompt: hashlib.sha256(prompt.question.encode()).hexdigest())
    held_out_questions = {prompt.question for prompt in ranked[: min(number, len(prompts) // 2)]}
    return [p for p in prompts if p.question not in held_out_questions], [
        p for p in prompts if p.question in held_out_questions
    ]


def prompt_indices(size: int, seed: int, start: int, number: int) -> list[int]:
    """Indices of the prompts at positions ``start`` to ``start + number`` of epochs, each shuffled without replacement.

    A pure function of its arguments, so that a resumed run needs only the number of prompts drawn so far.

    Args:
        size: number of prompts.
        seed: the run's seed.
        start: number of prompts drawn so far, over all epochs.
        number: how many to draw; they may span two epochs.
    """
    return [int(_epoch(size, seed, position // size)[position % size]) for position in range(start, start + number)]


@lru_cache(maxsize=4)
def _epoch(size: int, seed: int, epoch: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(size)


def _questions(data: Data) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    """Location, question, gold and all columns of every row."""
    if data.source == "arithmetic":
        for row in arithmetic.rows(_embedded_split(data.split)):
            yield row["id"], row["prompt"], row["answer"], row
        return
    for location, content in read_rows(data.source, data.subset, data.split):
        where = f"{data.source} {location}"
        question = _text(column(content, data.prompt, where, "data.prompt"), where, "data.prompt")
        answer = _text(column(content, data.answer, where, "data.answer"), where, "data.answer")
        yield location, question, _gold(answer, data, where), content


def _embedded_split(split: str) -> Literal["train", "test"]:
    if split not in ("train", "test"):
        raise UserError(f"split '{split}' is not one of the embedded task", fix=did_you_mean(split, ["train", "test"]))
    return cast(Literal["train", "test"], split)


def _text(value: Any, where: str, key: str) -> str:
    """A column's value as text: a number written out, or the last user message of a list of chat messages."""
    if messages := _conversation(value):
        value = next((m["content"] for m in reversed(messages) if m.get("role") == "user"), value)
    text = value if isinstance(value, str) else _number(value)
    if not text.strip() or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise UserError(f"{where}: the column {key} names holds {value!r:.80}", fix="it must hold text or a number")
    return text


def _conversation(value: Any) -> tuple[Mapping[str, Any], ...]:
    """The messages in a column's value; empty if it is no list of messages."""
    if isinstance(value, list) and all(isinstance(message, Mapping) and "content" in message for message in value):
        return tuple(value)
    return ()


def _number(value: Any) -> str:
    """A finite number as text without a zero fraction (72.0 is 72); empty for any other value."""
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        return ""
    if isinstance(value, int):
        return str(value)
    if not math.isfinite(value):
        return ""
    return str(int(value)) if value == int(value) else str(value)


def _gold(answer: str, data: Data, where: str) -> str:
    """The gold answer in its format."""
    if data.answer_format == "raw":
        return answer.strip()
    gold = last_boxed(answer) if data.answer_format == "last_boxed" else (last_hash(answer) or "").replace(",", "")
    if not gold:
        marker = "\\boxed{...}" if data.answer_format == "last_boxed" else "'#### ...'"
        raise UserError(
            f"{where}: the answer has no {marker}, which data.answer_format={data.answer_format} reads",
            fix="choices for data.answer_format: raw, last_boxed, gsm8k_hash",
        )
    return gold
