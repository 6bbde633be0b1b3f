"""The fastest decoders: one prefill per distinct prompt, rows of any length, and rows that leave or are replaced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from rlx.rollout.cache_argument import cache_argument
from rlx.rollout.fixed_step import FixedStep
from rlx.rollout.kv_cache import all_preallocated, can_replace_rows, drop_columns, preallocated_cache, replace_rows

UNUSED_COLUMNS = 64
"""Smallest number of columns that no row needs any more and that are then dropped."""


class SharedPrefillDecoder:
    """Decodes rows of different lengths at once, for caches of attention layers only.

    All rows end at the same column of the cache, and each has padding before its first token. A new prompt is read
    separately, and its keys and values then replace the last columns of a finished row.
    """

    needs_equal_lengths = False
    fixed_shapes = False
    """Whether steps keep their tensors' shapes and addresses (``FixedStep``)."""

    def prefill(self, lm: nn.Module, prompts: Sequence[Sequence[int]]) -> Tensor:
        """See ``Decoder.prefill``; equal prompts must be neighbours and the same object to be read once."""
        self.lm: Any = lm
        self.fixed: FixedStep | None = None
        self.idle: set[int] = set()
        self.cache_name = cache_argument(lm)
        part = _read(lm, prompts)
        self.cache = part.cache
        self.cache.batch_select_indices(part.source)
        self.widest = self.columns = part.width
        self._set_starts([part.width - len(prompt) for prompt in prompts])
        return part.logits_bv

    def step(self, tokens_b: Tensor) -> Tensor:
        """See ``Decoder.step``."""
        self._drop_unused_columns()
        if self.fixed is None and self.fixed_shapes and all_preallocated(self.cache):
            self.fixed = FixedStep(self.lm, self.cache, self.columns, self.starts_b)
        if self.fixed is not None:
            logits_bv = self.fixed.step(tokens_b)
            self.columns += 1
            if self.fixed.is_full():
                self._release()
            return logits_bv
        self.columns += 1
        output = self.lm(
            input_ids=tokens_b[:, None],
            attention_mask=self._mask(),
            position_ids=self.columns - 1 - self.starts_b[:, None],
            use_cache=True,
            logits_to_keep=1,
            **{self.cache_name: self.cache},
        )
        last_bv: Tensor = output.logits[:, -1]
        return last_bv

    def keep(self, rows: Sequence[int]) -> bool:
        """See ``Decoder.keep``."""
        self._release()
        self.cache.batch_select_indices(torch.tensor(rows, device=self.starts_b.device))
        self.idle = {index for index, row in enumerate(rows) if row in self.idle}
        self._set_starts([self.starts[row] for row in rows])
        return True

    def free(self, rows: Sequence[int]) -> None:
        """See ``Decoder.free``."""
        self.idle |= set(rows)
        if self.fixed is not None or any(self.starts):
            self._set_starts(self.starts)

    def replace(self, rows: Sequence[int], prompts: Sequence[Sequence[int]]) -> Tensor | None:
        """See ``Decoder.replace``; a prompt may not be longer than the columns that are in use."""
        if max(len(prompt) for prompt in prompts) > self.columns or not can_replace_rows(self.cache):
            return None
        part = _read(self.lm, prompts)
        if self.fixed is not None:
            self.fixed.update_lengths()
        replace_rows(self.cache, rows, part.cache, part.source)
        self.idle -= set(rows)
        new = dict(zip(rows, prompts, strict=True))
        self._set_starts(
            [self.columns - len(new[row]) if row in new else start for row, start in enumerate(self.starts)]
        )
        return part.logits_bv

    def _mask(self) -> Tensor | None:
        """1 at the tokens of each row and 0 at padding [rows, columns]; None without padding."""
        if not any(self.starts):
            return None
        return (torch.arange(self.columns, device=self.starts_b.device) >= self.starts_b[:, None]).long()

    def _set_starts(self, starts: list[int]) -> None:
        """Set each row's first column; that of an idle row is the next one, so that it needs no earlier column."""
        padded = self.fixed is not None or any(starts)
        self.starts = [self.columns if padded and row in self.idle else start for row, start in enumerate(starts)]
        self.starts_b = torch.tensor(self.starts, device=self.cache.layers[0].keys.device)
        if self.fixed is not None:
            self.fixed.set_starts(self.starts_b)

    def _drop_unused_columns(self) -> None:
        needed = min((start for row, start in enumerate(self.starts) if row not in self.idle), default=0)
        unused = min(needed, self.columns - self.widest)
        if unused >= max(UNUSED_COLUMNS, self.columns // 4):
            self._release()
            drop_columns(self.cache, unused)
            self.columns -= unused
            self._set_starts([max(0, start - unused) for start in self.starts])

    def _release(self) -> None:
        """Allow the shapes of the cache to change."""
        if self.fixed is not None:
            self.fixed.release()
            self.fixed = None


class FixedShapesDecoder(SharedPrefillDecoder):
    """The same with steps that a CUDA graph can replay, where every layer of the model attends to all tokens."""

    fixed_shapes = True


def bytes_per_token(lm: nn.Module) -> float:
    """Bytes of one token's keys and values in all layers, measured on a prompt of a few tokens."""
    tokens = 4
    layers = _read(lm, [list(range(3, 3 + tokens))]).cache.layers
    return float(sum(states.nbytes for layer in layers for states in (layer.keys, layer.values)) / tokens)


@dataclass(frozen=True, slots=True)
class _Prompts:
    """Keys and values of distinct prompts, and for each row its prompt's index among them and the next logits."""

    cache: DynamicCache
    source: Tensor
    logits_bv: Tensor
    width: int
    """Tokens of the longest prompt."""


@torch.no_grad()
def _read(lm: Any, prompts: Sequence[Sequence[int]]) -> _Prompts:
    """Read prompts, padded on the left; equal neighbours that are the same object once."""
    device = next(lm.parameters()).device
    distinct: list[Sequence[int]] = []
    source = []
    for prompt in prompts:
        if not distinct or prompt is not distinct[-1]:
            distinct.append(prompt)
        source.append(len(distinct) - 1)
    width = max(len(prompt) for prompt in distinct)
    ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in distinct], device=device)
    starts = torch.tensor([width - len(p) for p in distinct], device=device)[:, None]
    columns = torch.arange(width, device=device)
    padded = any(len(p) < width for p in distinct)
    cache = preallocated_cache(lm.config)
    output = lm(
        input_ids=ids,
        attention_mask=(columns >= starts).long() if padded else None,
        position_ids=(columns - starts).clamp(min=0),
        use_cache=True,
        logits_to_keep=1,
        **{cache_argument(lm): cache},
    )
    index = torch.tensor(source, device=device)
    return _Prompts(cache, index, output.logits[index, -1], width)
