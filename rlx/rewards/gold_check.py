"""What a reward gives to the gold answer in usual forms, to an empty answer and to noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rlx.errors import UserError
from rlx.rewards.reward_input import RewardInput
from rlx.rewards.reward_set import Grader

GOLD_FORMS: Mapping[str, Callable[[str], str]] = {
    "gold in a box": lambda gold: f"The answer is \\boxed{{{gold}}}",
    "gold alone": lambda gold: gold,
    "#### gold": lambda gold: f"#### {gold}",
    "Answer: gold": lambda gold: f"Answer: {gold}",
    "#gold": lambda gold: f"#{gold}",
}
"""The forms of a right answer that the registered rewards and the common prompts use."""
OTHER_FORMS: Mapping[str, Callable[[str], str]] = {
    "an empty answer": lambda gold: "",
    "noise": lambda gold: "Lorem ipsum dolor sit amet.",
}
CHECKED_GOLDS = 8
"""Number of gold answers that are checked; they are spread evenly over the data."""


@dataclass(frozen=True, slots=True)
class GoldCheck:
    """The scores of one reward on the gold answers.

    Example:
        ``GoldCheck("boxed", {"gold in a box": 1.0, "gold alone": 0.0, "noise": 0.0}, unpaid=(), error="")``
    """

    name: str
    scores: Mapping[str, float]
    """Mean score of each form; empty if the reward failed."""
    unpaid: tuple[str, ...]
    """Gold answers that get more than 0 in none of ``GOLD_FORMS``."""
    error: str = ""
    """Why the reward gave no scores."""
    is_first: bool = True
    """Whether accuracy is measured by this reward; the others may pay an answer that is not right."""

    def problems(self) -> list[str]:
        """Sentences about what is wrong; empty if nothing is."""
        if self.error:
            return [self.error]
        sentences = []
        if self.unpaid:
            sentences.append(
                f"reward {self.name} does not pay the gold answer {self.unpaid[0]!r:.60} in any usual form "
                f"({len(self.unpaid)} of the gold answers that were tried): check the reward, and data.answer and "
                "data.answer_format"
            )
        for form in OTHER_FORMS:
            if self.is_first and self.scores[form] > 0:
                sentences.append(f"reward {self.name} pays {self.scores[form]:g} to {form}")
        return sentences


def check_gold(name: str, grader: Grader, samples: Sequence[RewardInput], tokenizer: Any, is_first: bool) -> GoldCheck:
    """Grade every form of some of the gold answers.

    Args:
        name: the reward's name.
        grader: the reward.
        samples: prompts with their gold answers and rows, of which ``CHECKED_GOLDS`` are used.
        tokenizer: gives the token ids of each form.
        is_first: whether accuracy is measured by this reward.
    """
    count = min(CHECKED_GOLDS, len(samples))
    tried = [samples[i * len(samples) // count] for i in range(count)]
    forms = {**GOLD_FORMS, **OTHER_FORMS}
    try:
        answers = [_answered(sample, write(sample.answer), tokenizer) for write in forms.values() for sample in tried]
        values = [float(verdict.score) for verdict in grader(answers)]
    except UserError as error:
        return GoldCheck(name, {}, (), error.what, is_first)
    by_form = {form: values[i * count : (i + 1) * count] for i, form in enumerate(forms)}
    unpaid = [sample.answer for i, sample in enumerate(tried) if not any(by_form[form][i] > 0 for form in GOLD_FORMS)]
    means = {form: sum(scores) / count for form, scores in by_form.items()}
    return GoldCheck(name, means, tuple(unpaid), is_first=is_first)


def _answered(sample: RewardInput, text: str, tokenizer: Any) -> RewardInput:
    try:
        tokens = tuple(tokenizer(text, add_special_tokens=False).input_ids)
    except Exception:  # tokenizers raises nothing narrower for a text that a small vocabulary cannot encode
        tokens = ()
    return replace(sample, completion=text, final=text, completion_ids=tokens)
