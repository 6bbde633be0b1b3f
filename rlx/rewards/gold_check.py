"""What a reward gives to the gold answer in usual forms, to an empty answer and to noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rlx.rewards.verdict import Reward

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

    def problems(self) -> list[str]:
        """Sentences about what is wrong; empty if nothing is."""
        if self.error:
            return [f"reward {self.name} fails: {self.error}"]
        sentences = []
        if self.unpaid:
            sentences.append(
                f"reward {self.name} does not pay the gold answer {self.unpaid[0]!r:.60} in any usual form "
                f"({len(self.unpaid)} of the gold answers that were tried): check the reward, and data.answer and "
                "data.answer_format"
            )
        for form in OTHER_FORMS:
            if self.scores[form] > 0:
                sentences.append(f"reward {self.name} pays {self.scores[form]:g} to {form}")
        return sentences


def check_gold(name: str, reward: Reward, golds: Sequence[str]) -> GoldCheck:
    """Grade every form of some of the gold answers.

    Args:
        name: the reward's name.
        reward: a function from (response, gold) pairs to verdicts.
        golds: gold answers, of which ``CHECKED_GOLDS`` are used.
    """
    count = min(CHECKED_GOLDS, len(golds))
    tried = [golds[i * len(golds) // count] for i in range(count)]
    forms = {**GOLD_FORMS, **OTHER_FORMS}
    try:
        verdicts = reward([(write(gold), gold) for write in forms.values() for gold in tried])
        values = [float(verdict.score) for verdict in verdicts]
    except Exception as error:  # a reward may be the user's own code
        return GoldCheck(name, {}, (), f"{type(error).__name__}: {error}")
    by_form = {form: values[i * count : (i + 1) * count] for i, form in enumerate(forms)}
    unpaid = [gold for i, gold in enumerate(tried) if not any(by_form[form][i] > 0 for form in GOLD_FORMS)]
    return GoldCheck(name, {form: sum(scores) / count for form, scores in by_form.items()}, tuple(unpaid))
