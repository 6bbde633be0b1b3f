"""A key-value cache that allocates memory for future tokens in advance."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer

GROWTH = 64
"""Number of tokens by which a layer's tensors grow."""


class PreallocatedLayer(DynamicLayer):  # type: ignore[misc]
    """One layer's keys and values [b, heads, s, d], stored as the first s tokens of larger preallocated tensors.

    transformers' own layer copies all keys and values for each new token, this one only for every ``GROWTH``-th.
    """

    _buffers: tuple[Tensor, ...] = ()
    """Allocated tensors of keys and of values [b, heads, tokens, d]."""

    def update(self, key_states: Tensor, value_states: Tensor, *others: Any, **options: Any) -> tuple[Tensor, Tensor]:
        """Append the keys and values of new tokens; return those of all tokens."""
        old = self.get_seq_length()
        new = old + key_states.shape[2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if not self._buffers or self._buffers[0].shape[2] < new:
            previous = (self.keys, self.values)
            self._buffers = tuple(
                states.new_empty((*states.shape[:2], new + GROWTH, states.shape[3]))
                for states in (key_states, value_states)
            )
            for buffer, tokens in zip(self._buffers, previous, strict=True):
                if old:
                    buffer[:, :, :old] = tokens
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, old:new] = states
        self._point(new)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows only."""
        length = self.get_seq_length()
        self._buffers = tuple(buffer[indices, :, :length] for buffer in self._buffers)  # the next token allocates again
        if length:
            self._point(length)

    def _point(self, length: int) -> None:
        self.keys, self.values = (buffer[:, :, :length] for buffer in self._buffers)


def preallocated_cache(config: PreTrainedConfig) -> DynamicCache:
    """A cache for a model of this configuration; layers that attend to all tokens are preallocated."""
    cache = DynamicCache(config=config)
    cache.layers = [PreallocatedLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
