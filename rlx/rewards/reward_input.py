"""What a reward can see of one sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class RewardInput:
    """One response with its prompt, its gold answer and the row of the data that they come from.

    Example:
        ``RewardInput(completion="7+5=12#12", final="7+5=12#12", answer="12", prompt="7+5=", location="sums line 3")``
    """

    completion: str
    """Text of the response, with special tokens if ``reward.special_tokens`` is ``keep``."""
    final: str
    """Text behind the end of thinking, without special tokens: what the registered graders of rlx get."""
    answer: str
    """The gold answer as text."""
    prompt: str | Sequence[Mapping[str, Any]]
    """The question as in the data: text, or the messages of a conversation."""
    completion_ids: tuple[int, ...] = ()
    """Token ids of the response, including the stop token."""
    row: Mapping[str, Any] = field(default_factory=dict)
    """All columns of the row."""
    location: str = ""
    """Where the prompt is in the data, for messages."""
    accepted: tuple[str, ...] = ()
    """Other answers that are right too; a grader's verdict is the best one over all answers."""

    @property
    def golds(self) -> tuple[str, ...]:
        """All accepted answers."""
        return (self.answer, *self.accepted)

    @property
    def messages(self) -> str | list[dict[str, str]]:
        """The completion as a conversation's last message, if the prompt is a conversation; else its text."""
        if isinstance(self.prompt, str):
            return self.completion
        return [{"role": "assistant", "content": self.completion}]
