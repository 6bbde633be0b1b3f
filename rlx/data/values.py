"""Cells of a row as text: questions, conversations and gold answers; the same rules for every command."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlx.errors import UserError
from rlx.files.row_hash import number_text
from rlx.rewards.extract import last_boxed, last_hash
from rlx.specs.data import AnswerFormat

ROLES = ("system", "user", "assistant", "tool")
_HASHED = re.compile(r"(?:^|\n)[ \t]*####[ \t]*\S[^\n]*\s*$")


@dataclass(frozen=True, slots=True)
class Question:
    """The last message of a user, and the messages before it.

    Example:
        ``Question("And 2+2?", system="be brief", history=(("user", "1+1?"), ("assistant", "2")))``
    """

    text: str
    system: str | None = None
    history: tuple[tuple[str, str], ...] = ()
    """Earlier messages as (role, content), without the system prompt."""


def as_text(value: Any, where: str, name: str) -> str:
    """Text, or a number written out; not empty.

    Args:
        value: the cell.
        where: source and line, for the message.
        name: what names the column: a key of the spec or a benchmark.

    Raises:
        UserError: for any other value.
    """
    text = value if isinstance(value, str) else number_text(value)
    if not text.strip() or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise UserError(f"{where}: the column {name} names holds {value!r:.80}", fix="it must hold text or a number")
    return text


def as_question(value: Any, where: str, name: str) -> Question:
    """A question, or a conversation up to the last message of its user.

    Raises:
        UserError: when the cell holds neither.
    """
    if not _is_conversation(value):
        return Question(as_text(value, where, name))
    messages = [(message.get("role"), _content(message["content"])) for message in value]
    last = max((index for index, (role, _) in enumerate(messages) if role == "user"), default=None)
    unknown = next((role for role, _ in messages if role not in ROLES), None)
    if last is None or unknown is not None:
        problem = "no message of the role user" if unknown is None else f"the role {unknown!r}"
        raise UserError(
            f"{where}: the column {name} names holds {value!r:.80}, which has {problem}",
            fix=f"choices for role: {', '.join(ROLES)}",
        )
    texts = [(str(role), as_text(content, where, name)) for role, content in messages[: last + 1]]
    system = texts[0][1] if texts[0][0] == "system" else None
    history = tuple(texts[0 if system is None else 1 : -1])
    return Question(texts[-1][1], system, history)


def as_answers(value: Any, where: str, name: str, answer_format: AnswerFormat) -> tuple[str, ...]:
    """The accepted gold answers of a cell with one answer or a list of them, without repetitions.

    Raises:
        UserError: when there is none, or one is not text or a number in the given format.
    """
    values = value if isinstance(value, list | tuple) and value else [value]
    answers = [gold(as_text(one, where, name), where, answer_format) for one in values]
    return tuple(dict.fromkeys(answers))


def gold(answer: str, where: str, answer_format: AnswerFormat) -> str:
    """The gold answer in its format; with ``raw``, a last line ``#### 7`` is read as 7."""
    if answer_format == "raw" and not ends_with_hash(answer):
        return answer.strip()
    text = last_boxed(answer) if answer_format == "last_boxed" else (last_hash(answer) or "").replace(",", "")
    if not text:
        marker = "\\boxed{...}" if answer_format == "last_boxed" else "'#### ...'"
        raise UserError(
            f"{where}: the answer has no {marker}, which data.answer_format={answer_format} reads",
            fix="choices for data.answer_format: raw, last_boxed, gsm8k_hash",
        )
    return text


def ends_with_hash(answer: Any) -> bool:
    """Whether the last line of an answer is that of GSM8K: ``#### 7``."""
    return isinstance(answer, str) and _HASHED.search(answer) is not None


def _is_conversation(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(m, Mapping) and "content" in m for m in value)


def _content(content: Any) -> Any:
    """A message's text; the parts of a list of ``{"type": "text", "text": ...}`` joined."""
    if not isinstance(content, list) or not all(isinstance(part, Mapping) for part in content):
        return content
    has_text_only = all(part.get("type") == "text" for part in content)
    return "".join(str(part.get("text", "")) for part in content) if has_text_only else content
