"""The embedded task: two-digit addition with a scratchpad, learned in a minute on two CPU cores.

A prompt is ``47+85=``; its solution ``7+5=12 4+8=12#132`` writes the units column, the tens column without the carry,
and after ``#`` the sum. The carry is therefore never written down, and is what the base model gets wrong.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Literal

ALPHABET = "0123456789+-*=()#? \n"
"""Every character that a prompt or a response of this task may hold."""
OPERANDS = range(10, 100)
TEST_PAIRS = 500
"""Ordered pairs held out of the 8100; no script of ours trains on them."""


def solution(a: int, b: int) -> str:
    """The worked solution of ``a+b=``: both columns, ``#``, the sum.

    Args:
        a: first operand, 10..99.
        b: second operand, 10..99.

    Example:
        ``solution(47, 85) == "7+5=12 4+8=12#132"``
    """
    if a not in OPERANDS or b not in OPERANDS:
        raise ValueError(f"operands are 10..99, got {a} and {b}")
    tens_a, units_a = divmod(a, 10)
    tens_b, units_b = divmod(b, 10)
    return f"{units_a}+{units_b}={units_a + units_b} {tens_a}+{tens_b}={tens_a + tens_b}#{a + b}"


def rows(split: Literal["train", "test"]) -> list[dict[str, str]]:
    """The problems of one split, in an order that is fixed and unrelated to the operands.

    Args:
        split: ``test``, the 500 held-out pairs, or ``train``, the other 7600.

    Example:
        ``{"id": "47+85", "prompt": "47+85=", "answer": "132"}``
    """
    if split not in ("train", "test"):
        raise ValueError(f"split '{split}' is not one of train, test")
    ordered = _pairs_by_hash()
    pairs = ordered[:TEST_PAIRS] if split == "test" else ordered[TEST_PAIRS:]
    return [{"id": f"{a}+{b}", "prompt": f"{a}+{b}=", "answer": str(a + b)} for a, b in pairs]


@cache
def _pairs_by_hash() -> tuple[tuple[int, int], ...]:
    """All 8100 ordered pairs, sorted by the SHA-256 of their id.

    A hash needs no seed and no random generator whose stream may change between versions, and leaves the first n rows
    of either split an unbiased sample for whoever asks for fewer.
    """
    pairs = ((a, b) for a in OPERANDS for b in OPERANDS)
    return tuple(sorted(pairs, key=lambda pair: hashlib.sha256(f"{pair[0]}+{pair[1]}".encode()).digest()))
