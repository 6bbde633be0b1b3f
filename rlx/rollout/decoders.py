"""How to decode with a transformers model: three decoders, and the choice of the fastest that a model supports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from rlx.engine.model import FORWARD_ERRORS
from rlx.rollout.cache_argument import cache_argument
from rlx.rollout.shared_prefill import FixedShapesDecoder, SharedPrefillDecoder


class Decoder(Protocol):
    """The forward passes of one batch of growing responses."""

    needs_equal_lengths: bool
    """Whether all prompts of a batch must have the same number of tokens."""

    def prefill(self, lm: nn.Module, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Read the prompts, one per row; the next token's logits [rows, v]."""
        ...

    def step(self, tokens_b: Tensor) -> Tensor:
        """Append one token to every row; the next token's logits [rows, v], valid until the next call."""
        ...

    def keep(self, rows: Sequence[int]) -> bool:
        """Drop all other rows; False, with nothing changed, if this decoder cannot."""
        return False

    def free(self, rows: Sequence[int]) -> None:
        """Expect no more logits of these rows, until they are replaced."""

    def replace(self, rows: Sequence[int], prompts: Sequence[Sequence[int]]) -> Tensor | None:
        """Start these rows again with new prompts; the next token's logits [len(rows), v].

        Returns:
            None, with nothing changed, if this decoder cannot.
        """
        return None


class OwnCacheDecoder(Decoder):
    """The model's own cache, without padding: for states that cannot be cut or shared (linear attention, Mamba).

    The rows of such a state can in general neither be dropped nor be replaced.
    """

    needs_equal_lengths = True

    def prefill(self, lm: nn.Module, prompts: Sequence[Sequence[int]]) -> Tensor:
        """See ``Decoder.prefill``."""
        self.lm: Any = lm
        self.cache_name = cache_argument(lm)
        self.cache: Any = None
        self.length = 0
        return self._read(torch.tensor([list(prompt) for prompt in prompts], device=next(lm.parameters()).device))

    def step(self, tokens_b: Tensor) -> Tensor:
        """See ``Decoder.step``."""
        return self._read(tokens_b[:, None])

    def _read(self, ids_bt: Tensor) -> Tensor:
        output = self.lm(input_ids=ids_bt, use_cache=True, **{self.cache_name: self.cache})
        self.cache = getattr(output, self.cache_name, None)
        if self.cache is None:
            raise ValueError("the model returns no cache")
        logits_bv: Tensor = output.logits[:, -1]
        return logits_bv


class RecomputeDecoder(Decoder):
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

    def keep(self, rows: Sequence[int]) -> bool:
        """See ``Decoder.keep``."""
        self.ids_bt = self.ids_bt[torch.tensor(rows, device=self.ids_bt.device)]
        return True

    def _logits(self) -> Tensor:
        logits_bv: Tensor = self.lm(input_ids=self.ids_bt, use_cache=False).logits[:, -1]
        return logits_bv


DECODERS: tuple[type[Decoder], ...] = (FixedShapesDecoder, SharedPrefillDecoder, OwnCacheDecoder, RecomputeDecoder)
"""From the fastest to the one that every causal model supports."""
TRIAL_STEPS = 12
"""Tokens that each decoder appends in its trial: more than the convolution kernels and state chunks of tiny models."""
_CHOICES: dict[tuple[str, str, str], type[Decoder]] = {}
"""The decoder by class, configuration and device of the model."""


def choose_decoder(lm: nn.Module) -> type[Decoder]:
    """The fastest decoder whose logits equal those of the model's plain forward pass, tried on the model itself.

    Fixed shapes are for a GPU only: a CPU has no graphs to replay, and computes attention over unused columns too. The
    choice is remembered for models of the same class, configuration and device.
    """
    config: Any = lm.config
    device = next(lm.parameters()).device.type
    key = (type(lm).__qualname__, config.to_json_string(use_diff=False), device)
    if key not in _CHOICES:
        tried = DECODERS[:-1] if device == "cuda" else DECODERS[1:-1]
        _CHOICES[key] = next((decoder for decoder in tried if _reproduces(lm, decoder)), DECODERS[-1])
    return _CHOICES[key]


@torch.no_grad()
def _reproduces(lm: Any, kind: type[Decoder]) -> bool:
    """Whether the decoder's logits are the plain forward pass's.

    Two prompts are tried, with repeated rows, a dropped row, and a row that starts again with another prompt.
    """
    device = next(lm.parameters()).device
    vocabulary = lm.config.get_text_config().vocab_size
    ids = [int(i) for i in torch.arange(3, 36) * 7 % vocabulary]
    long, short = ids[:9], ids[4:9] if not kind.needs_equal_lengths else ids[3:12]
    decoder = kind()
    try:
        logits = decoder.prefill(lm, [long, long, long, short])
        rows_left = [0, 1, 3] if decoder.keep([0, 1, 3]) else [0, 1, 2, 3]
        rows = [_Trial((long, long, long, short)[row], logits[row]) for row in rows_left]
        trials = list(rows)
        for number, token in enumerate(ids[12 : 12 + TRIAL_STEPS]):
            restarted = decoder.replace([0], [short]) if number == TRIAL_STEPS // 2 else None
            if restarted is not None:
                rows[0] = _Trial(short, restarted[0])
                trials.append(rows[0])
            logits = decoder.step(torch.tensor([token] * len(rows), device=device))
            for row, logits_v in zip(rows, logits, strict=True):
                row.tokens.append(token)
                row.logits.append(logits_v.clone())
        return all(trial.agrees(lm, device) for trial in trials)
    except FORWARD_ERRORS:
        return False


class _Trial:
    """A prompt, the tokens appended to it, and the decoder's logits after the prompt and after each token."""

    def __init__(self, prompt: Sequence[int], logits_v: Tensor) -> None:
        self.prompt = prompt
        self.tokens: list[int] = []
        self.logits = [logits_v.clone()]

    def agrees(self, lm: Any, device: torch.device) -> bool:
        """Whether the logits equal those of the model's plain forward pass, to rounding."""
        sequence = torch.tensor([[*self.prompt, *self.tokens]], device=device)
        plain = lm(input_ids=sequence, use_cache=False).logits[0, len(self.prompt) - 1 :].float()
        ours = torch.stack(self.logits).float()
        return bool((ours - plain).abs().max() <= 1e-3 * (1 + plain.abs().max()))
