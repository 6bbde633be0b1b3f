"""What ``--preview`` prints of prompts, lengths and rewards, for every workflow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.text import Text

from rlx.console import print_error, print_out, table
from rlx.rewards.gold_check import GOLD_FORMS, OTHER_FORMS, GoldCheck

SHOWN = 3
"""Number of prompts that are printed."""
BINS, BAR = 10, 40
"""Number of rows of a histogram, and length of its longest bar (characters)."""


def print_prompts(
    prompts: Sequence[Sequence[int]], labels: Sequence[str], tokenizer: Any, golds: Sequence[str] = ()
) -> None:
    """Print three prompts as the model gets them: the first one, the middle one and the longest one, if they differ.

    Every line of a prompt follows a bar, so that spaces and line ends can be seen; special tokens are coloured on a
    terminal.

    Args:
        prompts: token ids of all prompts.
        labels: name of each prompt.
        tokenizer: a transformers tokenizer.
        golds: gold answer of each prompt; empty for sequences that contain their answer.
    """
    last = len(prompts) - 1
    longest = max(range(len(prompts)), key=lambda index: len(prompts[index]))
    for index in list(dict.fromkeys((0, len(prompts) // 2, longest, last, min(1, last))))[:SHOWN]:
        print_out(f"\nprompt {labels[index]} ({len(prompts[index])} tokens)")
        print_out(visible(prompts[index], tokenizer))
        if golds:
            print_out(f"gold answer: {golds[index]}")


def visible(tokens: Sequence[int], tokenizer: Any) -> Text:
    """The text of the tokens, special tokens included and coloured, each line after a bar."""
    text = tokenizer.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    shown = Text("\n".join(f"  | {line}" for line in text.split("\n")))
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    shown.highlight_words([*special, *tokenizer.all_special_tokens], style="bold magenta")
    return shown


def print_lengths(lengths: Sequence[int], unit: str) -> None:
    """Print a histogram of lengths in tokens.

    Args:
        lengths: at least one.
        unit: what has these lengths, in the plural.
    """
    ordered = sorted(lengths)
    middle = ordered[len(ordered) // 2]
    print_out(
        f"\nlengths of {len(lengths)} {unit}: shortest {ordered[0]}, median {middle}, longest {ordered[-1]} tokens"
    )
    for line in histogram(lengths):
        print_out(line)


def histogram(lengths: Sequence[int]) -> list[str]:
    """Lines such as ``  10 -   19  ####  4``, in at most ``BINS`` ranges of equal width.

    Args:
        lengths: whole numbers, at least one.
    """
    low, high = min(lengths), max(lengths)
    width = -(-(high - low + 1) // BINS)
    counts = [0] * ((high - low) // width + 1)
    for length in lengths:
        counts[(length - low) // width] += 1
    lines = []
    for number, count in enumerate(counts):
        start = low + number * width
        bar = "█" * -(-count * BAR // max(counts))
        lines.append(f"{start:6d} - {start + width - 1:5d}  {bar:{BAR}}  {count}")
    return lines


def print_gold_checks(checks: Sequence[GoldCheck]) -> list[str]:
    """Print what each reward gives to each form of an answer.

    Returns:
        What is wrong, as sentences.
    """
    forms = [*GOLD_FORMS, *OTHER_FORMS]
    rows = [
        [check.name.rpartition("/")[2], *(f"{check.scores[form]:g}" for form in forms)]
        for check in checks
        if check.scores
    ]
    if rows:
        print_out("")
        print_out(table("mean reward of", ["reward", *forms], rows))
    return [sentence for check in checks for sentence in check.problems()]


def print_problems(problems: Sequence[str]) -> int:
    """Print what is wrong in red, at the end of a preview.

    Returns:
        The exit code: 1 if anything is wrong, else 0.
    """
    for sentence in problems:
        print_error(sentence)
    return 1 if problems else 0
