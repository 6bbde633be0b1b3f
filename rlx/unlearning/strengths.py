"""The attacks of a run with their strengths, and what a reader calls them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rlx.specs.unlearn import UnlearnEvaluation

Kind = Literal["relearn", "quantize", "prefix", "paraphrase"]


@dataclass(frozen=True, slots=True)
class Strength:
    """One attack at one strength.

    Example:
        ``Strength("quantize_8", "quantize", 8)``
    """

    name: str
    """The kind, for the strength that the spec's own key gives, or the kind with the strength behind it."""
    kind: Kind
    amount: int
    """Requests to relearn, bits, or tokens; 0 for a paraphrase."""


def strengths_of(settings: UnlearnEvaluation, requests: int, others: int) -> list[Strength]:
    """Every attack of a spec, each strength once.

    Args:
        settings: the attacks and their strengths.
        requests: size of the forget set, of which percentages are taken.
        others: requests of it that may be relearned; 0 leaves relearning out.
    """
    own = {"relearn": settings.relearn_requests, "quantize": settings.quantize_bits, "prefix": settings.prefix_tokens}
    more: dict[str, Sequence[tuple[float, int]]] = {
        "relearn": [(share, math.ceil(share * requests / 100)) for share in settings.strengths.relearn_percent],
        "quantize": [(bits, bits) for bits in settings.strengths.quantize_bits],
        "prefix": [(tokens, tokens) for tokens in settings.strengths.prefix_tokens],
    }
    result = []
    for kind in settings.attacks:
        most = others if kind == "relearn" else max(own[kind], *(amount for _, amount in more[kind]), 0)
        by_amount: dict[int, str] = {min(own[kind], most): kind}
        # Of several percentages that are the same number of requests, the largest gives its name.
        for value, amount in sorted(more[kind], reverse=True):
            by_amount.setdefault(min(amount, most), f"{kind}_{value:g}")
        if most:
            result += [Strength(name, kind, amount) for amount, name in sorted(by_amount.items())]
    if settings.attacks and settings.strengths.paraphrase:
        result.append(Strength("paraphrase", "paraphrase", 0))
    return result


def attack_name(name: str, settings: UnlearnEvaluation) -> str:
    """What an attack does, as the subject of a sentence."""
    kind, _, strength = name.partition("_")
    if kind == "relearn":
        return f"Relearning {f'{strength} % of the' if strength else settings.relearn_requests} requests"
    if kind == "quantize":
        return f"Rounding the weights to {strength or settings.quantize_bits} bits"
    if kind == "prefix":
        tokens = int(strength or settings.prefix_tokens)
        return f"Giving the first {'token' if tokens == 1 else f'{tokens} tokens'} of the answer"
    return "Asking in other words" if kind == "paraphrase" else f"The {name} attack"
