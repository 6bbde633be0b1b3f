"""Three ways to decode with a transformers model, from the fastest to the one that every causal model supports."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from rlx.engine.model import FORWARD_ERRORS
from rlx.rollout.kv_cache import preallocated_cache


class Decoder(Protocol):
    """The forward passes of one batch of growing responses."""

    needs_equal_lengths: bool
    """Whether all prompts of a batch must have the same number of tokens."""

    def prefill(self, lm: nn.Module, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Read the prompts, one per row; the next token's logits [rows, v]."""
        ...

    def step(self, tokens_b: Tensor) -> Tensor:
        """Append one token to every row; the next token's logits [rows, v]."""
        ...

    def keep(self, rows: Tensor) -> bool:
        """Drop all other rows; False, with nothing changed, if this decoder cannot."""
        ...


class SharedPrefillDecoder:
    """One prefill per distinct prompt, left padding, finished rows leave: for caches of attention layers only."""

    needs_equal_lengths = False

    def prefill(self, lm: nn.Module, prompts: Sequence[Sequence[int]]) -> Tensor:
        """See ``Decoder.prefill``; equal prompts must be neighbours and the same object to be read once."""
        self.lm: Any = lm
        device = next(lm.parameters()).device
        distinct: list[Sequence[int]] = []
        source = []
        for prompt in prompts:
            if not distinct or prompt is not distinct[-1]:
                distinct.append(prompt)
            source.append(len(distinct) - 1)
        width = max(len(prompt) for prompt in distinct)
        ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in distinct], device=device)
        attention = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in distinct], device=device)
        self.cache = preallocated_cache(self.lm.config)
        output = self.lm(
            input_ids=ids,
            attention_mask=None if bool(attention.all()) else attention,
            position_ids=(attention.cumsum(dim=1) - 1).clamp(min=0),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        repeat = torch.tensor(source, device=device)
        self.cache.batch_select_indices(repeat)
        self.attention: Tensor = attention[repeat]
        logits_bv: Tensor = output.logits[repeat, -1]
        return logits_bv

    def step(self, tokens_b: Tensor) -> Tensor:
        """See ``Decoder.step``."""
        ones = torch.ones((len(tokens_b), 1), dtype=self.attention.dtype, device=self.attention.device)
        self.attention = torch.cat([self.attention, ones], dim=1)
        output = self.lm(
            input_ids=tokens_b[:, None],
            attention_mask=None if bool(self.attention.all()) else self.attention,
            position_ids=self.attention.sum(dim=1, keepdim=True) - 1,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits_bv: Tensor = output.logits[:, -1]
        return logits_bv

    def keep(self, rows: Tensor) -> bool:
        """See ``Decoder.keep``."""
        self.cache.batch_select_indices(rows)
        self.attention = self.attention[rows]
        return True


class OwnCacheDecoder:
    """The model's own cache, without padding: for states that cannot be cut or shared (linear attention, Mamba)."""

    needs_equal_lengths = True

    def prefill(self, lm: nn.Module, prompts: Sequence[Sequence[int]]) -> Tensor:
        """See ``Decoder.prefill``."""
        self.lm: Any = lm
        accepted = inspect.signature(self.lm.forward).parameters
        names = [name for name in ("past_key_values", "cache_params", "state") if name in accepted]
        if not names:
            raise ValueError("the model's forward takes no cache")
        self.cache_name = names[0]
        self.cache: Any = None
        self.length = 0
        return self._read(torch.tensor([list(prompt) for prompt in prompts], device=next(lm.parameters()).device))

    def step(self, tokens_b: Tensor) -> Tensor:
        """See ``Decoder.step``."""
        return self._read(tokens_b[:, None])

    def keep(self, rows: Tensor) -> bool:
        """Never: the rows of such a state cannot be selected in general."""
        return False

    def _read(self, ids_bt: Tensor) -> Tensor:
        output = self.lm(input_ids=ids_bt, use_cache=True, **{self.cache_name: self.cache})
        self.cache = getattr(output, self.cache_name)
        if self.cache is None:
            raise ValueError("the model returns no cache")
        logits_bv: Tensor = output.logits[:, -1]
        return logits_bv


class RecomputeDecoder:
    """No cache: every token costs a forward pass over its whole sequence. Correct for every causal model, and slow."""

    needs_equal_lengths = True

    def prefill(self, lm: nn.Module, prompts: Sequence[Sequence[int]]) -> Tensor:
        """See ``Decoder.prefill``."""
        self.lm: Any = lm
        self.ids_bt = torch.tensor([list(prompt) for prompt in prompts], device=next(lm.parameters()).device)
        return self._logits()

    def step(self, tokens_b: Tensor) -> Tensor:
        """See ``Decoder.step``."""
        self.ids_bt = torch.cat([self.ids_bt, tokens_b[:, None]], dim=1)
        return self._logits()

    def keep(self, rows: Tensor) -> bool:
        """See ``Decoder.keep``."""
        self.ids_bt = self.ids_bt[rows]
        return True

    def _logits(self) -> Tensor:
        logits_bv: Tensor = self.lm(input_ids=self.ids_bt, use_cache=False).logits[:, -1]
        return logits_bv


DECODERS: tuple[type[Decoder], ...] = (SharedPrefillDecoder, OwnCacheDecoder, RecomputeDecoder)
TRIAL_STEPS = 12
"""Tokens that each decoder appends in its trial: more than the convolution kernels and state chunks of tiny models."""
_CHOICES: WeakKeyDictionary[nn.Module, type[Decoder]] = WeakKeyDictionary()


def choose_decoder(lm: nn.Module) -> type[Decoder]:
    """The fastest decoder whose logits equal those of the model's plain forward pass, tried on the model itself.

    The choice is remembered for the life of the model.
    """
    if lm not in _CHOICES:
        _CHOICES[lm] = next((decoder for decoder in DECODERS[:-1] if _reproduces(lm, decoder)), DECODERS[-1])
    return _CHOICES[lm]


@torch.no_grad()
def _reproduces(lm: Any, kind: type[Decoder]) -> bool:
    """Whether the decoder's logits are the plain forward pass's, for two prompts, repeated rows and a dropped row."""
    device = next(lm.parameters()).device
    vocabulary = lm.config.get_text_config().vocab_size
    ids = [int(i) for i in torch.arange(3, 36) * 7 % vocabulary]
    long, short = ids[:9], ids[4:9] if not kind.needs_equal_lengths else ids[3:12]
    later = torch.tensor(ids[12 : 12 + TRIAL_STEPS], device=device)
    decoder = kind()
    try:
        logits = decoder.prefill(lm, [long, long, long, short])
        dropped = decoder.keep(torch.tensor([0, 1, 3], device=device))
        rows = [long, long, short] if dropped else [long, long, long, short]
        steps = [logits[[0, 1, 3]] if dropped else logits]
        for token in later:
            steps.append(decoder.step(token.repeat(len(rows))))
        for index, row in enumerate(rows):
            sequence = torch.tensor([*row, *later.tolist()], device=device)[None]
            plain = lm(input_ids=sequence, use_cache=False).logits[0, len(row) - 1 :].float()
            ours = torch.stack([step[index] for step in steps]).float()
            if not bool((ours - plain).abs().max() <= 1e-3 * (1 + plain.abs().max())):
                return False
    except FORWARD_ERRORS:
        return False
    return True
