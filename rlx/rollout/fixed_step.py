"""Decode steps whose tensors keep their shapes and addresses, recorded once as a CUDA graph and replayed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from rlx.rollout.cache_argument import cache_argument

CAPACITY_STEP = 256
"""The cache is allocated in multiples of this many tokens; each new size is recorded again."""


class FixedStep:
    """A decode step over a cache of fixed capacity: one token per row, its column and the rows' starts are tensors.

    A step of a 28-layer model launches about 450 kernels, whose launches take longer than the kernels
    (``experiments/gpu/README.md``); a recorded graph launches once. On a CPU the step is computed without a recording,
    which the tests use.

    Args:
        lm: the model, in evaluation mode.
        cache: keys and values of ``columns`` tokens, all layers preallocated.
        columns: tokens that are stored.
        starts_b: first column of each row.
    """

    def __init__(self, lm: nn.Module, cache: DynamicCache, columns: int, starts_b: Tensor) -> None:
        self._lm: Any = lm
        self._cache = cache
        self._cache_name = cache_argument(lm)
        self.capacity = -(-(columns + 1) // CAPACITY_STEP) * CAPACITY_STEP
        self._columns = columns
        self._column = torch.tensor([columns], device=starts_b.device)
        self._starts_b = starts_b.clone()
        self._tokens_b1 = torch.zeros((len(starts_b), 1), dtype=torch.long, device=starts_b.device)
        self._all_columns = torch.arange(self.capacity, device=starts_b.device)
        self._replay: Callable[[], Tensor] | None = None
        for layer in cache.layers:
            layer.fix_shapes(self.capacity, self._column)

    @torch.no_grad()
    def step(self, tokens_b: Tensor) -> Tensor:
        """Append one token to every row; the next token's logits [rows, v], overwritten by the next call."""
        self._tokens_b1.copy_(tokens_b[:, None])
        if self._replay is None:
            self._replay = self._recorded() if tokens_b.is_cuda else self._forward
        logits_bv = self._replay()
        self._column += 1
        self._columns += 1
        return logits_bv

    def set_starts(self, starts_b: Tensor) -> None:
        """Change the rows' first columns."""
        self._starts_b.copy_(starts_b)

    def is_full(self) -> bool:
        """Whether no further token fits."""
        return self._columns >= self.capacity

    def update_lengths(self) -> None:
        """Let the cache's layers show all tokens that are stored."""
        for layer in self._cache.layers:
            layer.set_length(self._columns)

    def release(self) -> None:
        """Give the cache back, whose shapes may change from now on."""
        self.update_lengths()
        for layer in self._cache.layers:
            layer.release_shapes()

    def _forward(self) -> Tensor:
        sees_bk = (self._all_columns >= self._starts_b[:, None]) & (self._all_columns <= self._column)
        output = self._lm(
            input_ids=self._tokens_b1,
            attention_mask=sees_bk[:, None, None],
            position_ids=self._column - self._starts_b[:, None],
            use_cache=True,
            logits_to_keep=1,
            **{self._cache_name: self._cache},
        )
        logits_bv: Tensor = output.logits[:, -1]
        return logits_bv

    def _recorded(self) -> Callable[[], Tensor]:
        """The step as the replay of a recorded graph.

        Recording needs a forward pass before it. Both write the same keys and values to the same column.

        Raises:
            RuntimeError: when the model's forward waits for the device, which a graph cannot contain.
        """
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._forward()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            logits_bv = self._forward()

        def replay() -> Tensor:
            graph.replay()
            return logits_bv

        return replay
