"""The order in which prompts are drawn: pure functions of the seed and the position, so that a run can resume."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

BLOCK = 1000
"""Positions over which the weights of sources hold exactly, up to rounding."""


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


def mixed_indices(
    sizes: Sequence[int], weights: Sequence[float], seed: int, start: int, number: int
) -> list[tuple[int, int]]:
    """Source and index in it of the prompts at positions ``start`` to ``start + number``.

    Every ``BLOCK`` positions hold each source as often as its weight says; each source has epochs of its own.

    Args:
        sizes: number of prompts of each source; a source without prompts is not drawn.
        weights: of each source.
        seed: the run's seed.
        start: number of prompts drawn so far.
        number: how many to draw.
    """
    counts = tuple(block_counts([weight if size else 0.0 for size, weight in zip(sizes, weights, strict=True)]))
    drawn_indices = []
    for position in range(start, start + number):
        block, offset = divmod(position, BLOCK)
        sources = _block(counts, seed, block)
        source = int(sources[offset])
        before = block * counts[source] + int((sources[:offset] == source).sum())
        size = sizes[source]
        drawn_indices.append((source, int(_epoch(size, seed, before // size)[before % size])))
    return drawn_indices


def block_counts(weights: Sequence[float]) -> list[int]:
    """Prompts of each source in ``BLOCK`` positions, by largest remainders.

    Args:
        weights: of each source, 0 or more, not all 0.
    """
    exact = [BLOCK * weight / sum(weights) for weight in weights]
    counts = [int(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda index: counts[index] - exact[index])
    for index in by_remainder[: BLOCK - sum(counts)]:
        counts[index] += 1
    return counts


@lru_cache(maxsize=4)
def _block(counts: tuple[int, ...], seed: int, block: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The source of each position of a block, shuffled."""
    sources = np.repeat(np.arange(len(counts)), counts)
    return np.random.Generator(np.random.Philox(key=[seed, 2**32 + block])).permutation(sources)


@lru_cache(maxsize=16)
def _epoch(size: int, seed: int, epoch: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(size)
