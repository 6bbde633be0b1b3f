"""Prompts with their gold answers: reading, filtering, splitting, and the order in which they are drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlx.data.chat import encode_texts, prompt_text
from rlx.data.examples import Example, read_examples
from rlx.data.left_out import LeftOut, in_words
from rlx.data.order import mixed_indices, prompt_indices
from rlx.data.values import Question
from rlx.errors import UserError
from rlx.specs.data import Data


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question with its answer, rendered as a prompt.

    Example:
        ``Prompt(id="47+85", question="47+85=", answer="132", tokens=(7, 10, 13, 11, 8, 16))``
    """

    id: str
    question: str
    """The question as in the data, without system prompt and suffix; of a conversation the user's last message."""
    answer: str
    """The gold answer, extracted according to ``data.answer_format``; the first one of several."""
    tokens: tuple[int, ...]
    """The whole rendered prompt."""
    accepted: tuple[str, ...] = ()
    """Other answers that are right too."""
    system: str | None = None
    """The row's own system prompt; None for that of the spec."""
    history: tuple[tuple[str, str], ...] = ()
    """Messages of a conversation before the question, as (role, content)."""
    source: int = 0
    """Index in ``data.sources``."""

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
        ``PromptSet(prompts, {"duplicate question": 2, "not JSON": 1}, {"not JSON": ["line 5"]})``
    """

    prompts: list[Prompt]
    left_out: Mapping[str, int]
    named: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The first rows of each reason."""
    notices: tuple[str, ...] = ()
    """What was read in another way than the spec says, one sentence each."""

    def sentence(self) -> str:
        """``7000 prompts; left out: 2 duplicate question, 1 longer than 1024 tokens (line 17)``."""
        reasons = in_words(self.left_out, self.named)
        return f"{len(self.prompts)} prompts" + (f"; left out: {reasons}" if reasons else "")


def load_prompts(data: Data, tokenizer: Any) -> PromptSet:
    """The prompts of ``data.source``, or of all ``data.sources`` one after the other.

    A row that cannot be used (unreadable, no prompt, no answer, too long) is left out and counted, and so is a repeated
    question.

    Args:
        data: sources, columns, answer format, chat settings and limits.
        tokenizer: a transformers tokenizer.

    Raises:
        UserError: for a missing file or column, when more than ``data.max_left_out`` of the rows cannot be used, or
            when nothing is left.
    """
    left_out, notices, rows = LeftOut(), list[str](), 0
    prompts: list[Prompt] = []
    seen: set[Question | str] = set()
    ids: set[str] = set()
    for index, part in enumerate(data.parts()):
        source_rows, examples = read_examples(part, left_out, notices)
        rows += source_rows
        for example, tokens in _with_tokens(_distinct(examples, seen, left_out), part, tokenizer, left_out):
            question = example.question
            label = example.location if not example.id or example.id in ids else example.id
            ids.add(label)
            answer, *accepted = example.answers
            prompts.append(
                Prompt(
                    id=label,
                    question=question.text,
                    answer=answer,
                    tokens=tokens,
                    accepted=tuple(accepted),
                    system=question.system,
                    history=question.history,
                    source=index,
                    row=example.row,
                    conversation=example.conversation,
                    location=f"{part.source} {example.location}",
                )
            )
    prompt_set = PromptSet(prompts, dict(left_out.counts), left_out.named, tuple(notices))
    if prompts or not all(reason.startswith("longer than") for reason in left_out.counts):
        left_out.check(rows, data.max_left_out)
    if not prompts:
        why = prompt_set.sentence() if left_out.counts else "it is empty"
        raise UserError(f"data.source '{_names(data)}' has no usable row ({why})", fix="check the file and data.*")
    return prompt_set


def _names(data: Data) -> str:
    return ", ".join(part.source for part in data.parts())


def _distinct(examples: Iterable[Example], seen: set[Question | str], left_out: LeftOut) -> Iterator[Example]:
    """The examples whose question is not in ``seen``, to which it is added; the others are counted."""
    for example in examples:
        question = example.question
        key = question if question.history or question.system else question.text.strip()
        if key in seen:
            left_out.add_duplicate()
        else:
            seen.add(key)
            yield example


def _with_tokens(
    examples: Iterable[Example], data: Data, tokenizer: Any, left_out: LeftOut
) -> Iterator[tuple[Example, tuple[int, ...]]]:
    """Examples with their rendered prompts; those that cannot be encoded or are too long are counted."""
    rendered: list[tuple[Example, str]] = []
    for example in examples:
        question = example.question
        own = data if question.system is None else data.model_copy(update={"system": question.system})
        try:
            rendered.append((example, prompt_text(question.text, own, tokenizer, question.history)))
        except UserError as error:
            _add_without_tokens(example, data, error, left_out)
    encoded = encode_texts([text for _, text in rendered], data, tokenizer)
    for (example, _), tokens in zip(rendered, encoded, strict=True):
        if isinstance(tokens, UserError):
            _add_without_tokens(example, data, tokens, left_out)
        elif len(tokens) > data.max_prompt_tokens:
            problem = f"the prompt has {len(tokens)} tokens, more than data.max_prompt_tokens={data.max_prompt_tokens}"
            too_long = UserError(f"{data.source} {example.location}: {problem}", fix="raise data.max_prompt_tokens")
            left_out.add(f"longer than {data.max_prompt_tokens} tokens", example.location, too_long)
        else:
            yield example, tokens


def _add_without_tokens(example: Example, data: Data, error: UserError, left_out: LeftOut) -> None:
    where = f"{data.source} {example.location}"
    left_out.add("without tokens", example.location, UserError(f"{where}: {error.what}", fix=error.fix))


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


def draw_prompts(
    prompts: Sequence[Prompt], weights: Sequence[float] | None, seed: int, start: int, number: int
) -> list[Prompt]:
    """The prompts at positions ``start`` to ``start + number``; with weights each source has its own epochs.

    Args:
        prompts: all prompts.
        weights: of each source, see ``data.sources``; None draws every prompt equally often.
        seed: the run's seed.
        start: number of prompts drawn so far.
        number: how many to draw.
    """
    if weights is None:
        return [prompts[index] for index in prompt_indices(len(prompts), seed, start, number)]
    by_source = [[prompt for prompt in prompts if prompt.source == index] for index in range(len(weights))]
    sizes = [len(group) for group in by_source]
    return [by_source[source][index] for source, index in mixed_indices(sizes, weights, seed, start, number)]
