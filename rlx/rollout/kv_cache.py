"""A key-value cache with room for tokens to come."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer

ROOM = 64
"""Tokens that a layer's tensors grow by."""


class RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """One layer's keys and values [b, heads, s, d], which are the first s tokens of tensors that have room for more.

    transformers' own layer copies all that it holds at each new token, this one at every ``ROOM``-th.
    """

    _room: Tensor | None = None
    """Keys and values [2, b, heads, tokens, d]."""

    def update(self, key_states: Tensor, value_states: Tensor, *others: Any, **named: Any) -> tuple[Tensor, Tensor]:
        """Add the keys and values of new tokens behind those that are here; all of them."""
        old = self.get_seq_length()
        new = old + key_states.shape[2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if self._room is None or self._room.shape[3] < new:
            held = None if self._room is None else self._room[:, :, :, :old]
            b, heads, _, d = key_states.shape
            self._room = key_states.new_empty((2, b, heads, new + ROOM, d))
            if held is not None:
                self._room[:, :, :, :old] = held
        self._room[0, :, :, old:new] = key_states
        self._room[1, :, :, old:new] = value_states
        self._point(new)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows."""
        if self._room is not None:
            length = self.get_seq_length()
            self._room = self._room[:, indices, :, :length]  # the next token makes room again
            self._point(length)

    def _point(self, length: int) -> None:
        assert self._room is not None
        self.keys: Tensor = self._room[0, :, :, :length]
        self.values: Tensor = self._room[1, :, :, :length]


def roomy_cache(config: PreTrainedConfig) -> DynamicCache:
    """A cache for a model of this configuration; layers that attend to all tokens have room."""
    cache = DynamicCache(config=config)
    cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
