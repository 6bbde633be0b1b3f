"""A key-value cache that allocates memory for future tokens in advance, and whose rows can be replaced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

GROWTH = 64
"""Number of tokens by which a layer's tensors grow."""


class PreallocatedLayer(DynamicLayer):  # type: ignore[misc]
    """One layer's keys and values [b, heads, s, d], stored as the first s tokens of larger preallocated tensors.

    transformers' own layer copies all keys and values for each new token, this one only for every ``GROWTH``-th.
    """

    _buffers: tuple[Tensor, ...] = ()
    """Allocated tensors of keys and of values [b, heads, tokens, d]."""
    _column: Tensor | None = None
    """Index of the next token's column [1] while all shapes are fixed."""

    def update(self, key_states: Tensor, value_states: Tensor, *others: Any, **options: Any) -> tuple[Tensor, Tensor]:
        """Append the keys and values of new tokens; return those of all tokens.

        With fixed shapes, those of unused columns are returned too: the caller's mask must exclude them.
        """
        if self._column is not None:
            for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
                buffer.index_copy_(2, self._column, states)
            return self._buffers[0], self._buffers[1]
        old = self.get_seq_length()
        new = old + key_states.shape[2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if not self._buffers or self._buffers[0].shape[2] < new:
            self._allocate(new + GROWTH, (key_states, value_states))
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, old:new] = states
        self.set_length(new)
        return self.keys, self.values

    def fix_shapes(self, capacity: int, column: Tensor) -> None:
        """Write the following tokens at ``column``, which the caller advances, into tensors of ``capacity`` tokens."""
        if self._buffers[0].shape[2] != capacity:
            self._allocate(capacity, (self.keys, self.values))
        for buffer in self._buffers:
            buffer[:, :, self.get_seq_length() :] = 0  # a masked column is multiplied by 0, which NaN survives
        self._column = column

    def release_shapes(self) -> None:
        """End the effect of ``fix_shapes``."""
        self._column = None

    def set_length(self, length: int) -> None:
        """Let ``keys`` and ``values`` be those of the first ``length`` tokens of the allocated tensors."""
        self.keys, self.values = (buffer[:, :, :length] for buffer in self._buffers)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows only."""
        length = self.get_seq_length()
        self._buffers = tuple(buffer[indices, :, :length] for buffer in self._buffers)  # the next token allocates again
        if length:
            self.set_length(length)

    def drop_columns(self, count: int) -> None:
        """Remove the first ``count`` tokens of every row."""
        length = self.get_seq_length() - count
        self._buffers = tuple(buffer[:, :, count : count + length].clone() for buffer in self._buffers)
        self.set_length(length)

    def _allocate(self, capacity: int, like: tuple[Tensor, Tensor]) -> None:
        """New tensors of ``capacity`` tokens that start with the stored ones; the others have any value."""
        length, previous = self.get_seq_length(), (self.keys, self.values)
        self._buffers = tuple(states.new_empty((*states.shape[:2], capacity, states.shape[3])) for states in like)
        for buffer, tokens in zip(self._buffers, previous, strict=True):
            if length:
                buffer[:, :, :length] = tokens
        if length:
            self.set_length(length)


def preallocated_cache(config: PreTrainedConfig) -> DynamicCache:
    """A cache for a model of this configuration; layers that attend to all tokens are preallocated."""
    cache = DynamicCache(config=config)
    cache.layers = [PreallocatedLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def all_preallocated(cache: DynamicCache) -> bool:
    """Whether every layer attends to all tokens."""
    return all(type(layer) is PreallocatedLayer for layer in cache.layers)


def can_replace_rows(cache: DynamicCache) -> bool:
    """Whether every layer stores keys and values of tokens, of all or of the last ones."""
    return all(type(layer) in (PreallocatedLayer, DynamicSlidingWindowLayer) for layer in cache.layers)


@torch.no_grad()
def replace_rows(cache: DynamicCache, rows: Sequence[int], other: DynamicCache, source: Tensor) -> None:
    """Put rows of another cache, which has at most as many tokens, in the place of rows of this one.

    Both end at the same token: the last columns of each layer are copied, and those before them keep what they were.

    Args:
        cache: the cache that is changed.
        rows: its rows that are replaced.
        other: the cache of the new rows.
        source: row of ``other`` for each of ``rows``.
    """
    index = torch.tensor(rows, device=source.device)
    for own, new in zip(cache.layers, other.layers, strict=True):
        count = min(own.keys.shape[2], new.keys.shape[2])
        for old_states, states in ((own.keys, new.keys), (own.values, new.values)):
            old_states[index, :, old_states.shape[2] - count :] = states[source, :, states.shape[2] - count :]


def drop_columns(cache: DynamicCache, count: int) -> None:
    """Remove the first ``count`` tokens of every row, which no row needs any more."""
    for layer in cache.layers:
        if isinstance(layer, PreallocatedLayer):
            layer.drop_columns(count)
        else:
            layer.cumulative_length -= count
            stored = min(layer.keys.shape[2], layer.cumulative_length)
            layer.keys, layer.values = (t[:, :, t.shape[2] - stored :] for t in (layer.keys, layer.values))
