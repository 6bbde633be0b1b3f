"""Sampling with transformers, from the trainer's own weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DynamicCache

from rlx.engine.cpu.kv_cache import preallocated_cache
from rlx.engine.cpu.small_batch_linear import small_batch_linears
from rlx.rollout.grouped_attention import grouped_decoding
from rlx.rollout.sampler import Response, Sampling

COMPACT_AT = 0.75
"""Finished sequences leave the batch when fewer than this share of its rows are still growing."""


@dataclass(slots=True)
class HFSampler:
    """A ``Sampler`` over a transformers causal language model.

    Prompts are grouped by length, a prompt is prefilled once for all its samples, and finished sequences leave the
    batch. Tokens are drawn by inverting the cumulative distribution at a uniform number that is a function of the
    sample's seed and the position alone.

    Example:
        ``HFSampler(lm).sample([[7, 10, 8, 14]], seeds=[[1, 2]], sampling=Sampling(1.0, 24, stop_ids=(2,)))``
    """

    lm: nn.Module | None = None
    autocast: Callable[[], AbstractContextManager[None]] = nullcontext
    batch_size: int = 256
    """Sequences decoded at once."""

    def load_weights(self, model: nn.Module) -> None:
        """Nothing to copy: the sampler reads the module itself."""
        self.lm = model

    def sleep(self) -> None:
        """Drop the reference to the model so that its memory can be freed."""
        self.lm = None

    def sample(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[Sequence[int]], sampling: Sampling
    ) -> list[list[Response]]:
        """See ``Sampler.sample``."""
        if self.lm is None:
            raise ValueError("load_weights comes before sample")
        results: list[list[Response]] = [[] for _ in prompts]
        lm, was_training = self.lm, self.lm.training
        lm.eval()
        try:
            for rows in self._batches(prompts, seeds):
                with torch.no_grad(), self.autocast(), small_batch_linears(lm), grouped_decoding(lm):
                    asked, drawn = [prompts[q] for q, _ in rows], [seeds[q][g] for q, g in rows]
                    responses = _decode(_DecodeState(lm, asked, drawn, sampling))
                for (q, _), response in zip(rows, responses, strict=True):
                    results[q].append(response)
        finally:
            lm.train(was_training)
        return results

    def _batches(self, prompts: Sequence[Sequence[int]], seeds: Sequence[Sequence[int]]) -> list[list[tuple[int, int]]]:
        """(prompt, sample) pairs in batches of prompts of like length, a prompt's samples side by side."""
        order = sorted(range(len(prompts)), key=lambda q: (len(prompts[q]), q))
        pairs = [(q, g) for q in order for g in range(len(seeds[q]))]
        return [pairs[start : start + self.batch_size] for start in range(0, len(pairs), self.batch_size)]


def _decode(state: _DecodeState) -> list[Response]:
    """One response a row."""
    for _ in range(state.sampling.max_new_tokens):
        state.draw()
        if state.done():
            break
        state.advance()
    return state.responses()


@dataclass(slots=True)
class _DecodeState:
    """A batch of growing responses: the cache, the rows still growing and what they have drawn."""

    lm: nn.Module
    prompts: list[Sequence[int]]
    seeds: list[int]
    sampling: Sampling
    cache: DynamicCache = field(init=False)
    attention: Tensor = field(init=False)
    """1 where a row's token stands, 0 at the padding left of a shorter prompt; [rows, s]."""
    logits_bv: Tensor = field(init=False)
    alive: Tensor = field(init=False)
    """Index of each remaining row into the batch's responses."""
    growing: Tensor = field(init=False)
    """Of the remaining rows, those without a stop token yet."""
    uniforms_bt: Tensor = field(init=False)
    tokens_bt: Tensor = field(init=False)
    logprobs_bt: Tensor = field(init=False)
    lengths: Tensor = field(init=False)
    t: int = 0

    def __post_init__(self) -> None:
        """Prefill each distinct prompt once and repeat it for its samples."""
        device = next(self.lm.parameters()).device
        distinct: list[Sequence[int]] = []
        source = []
        for prompt in self.prompts:
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
        self.attention, self.logits_bv = attention[repeat], output.logits[repeat, -1]
        rows, longest = len(self.prompts), self.sampling.max_new_tokens
        self.alive = torch.arange(rows, device=device)
        self.growing = torch.ones(rows, dtype=torch.bool, device=device)
        draws = np.stack([np.random.Generator(np.random.Philox(key=seed)).random(longest) for seed in self.seeds])
        self.uniforms_bt = torch.from_numpy(draws).to(device)
        self.tokens_bt = torch.zeros((rows, longest), dtype=torch.long, device=device)
        self.logprobs_bt = torch.zeros((rows, longest), dtype=torch.float32, device=device)
        self.lengths = torch.zeros(rows, dtype=torch.long, device=device)

    def draw(self) -> None:
        """Draw the next token of every growing row."""
        logprobs_bv = sampling_logprobs(self.logits_bv, self.sampling)
        if self.sampling.temperature == 0:
            token_b = logprobs_bv.argmax(dim=-1)
        else:
            cumulative_bv = logprobs_bv.exp().cumsum(dim=-1, dtype=torch.float64)
            # u * total instead of u: the last entry is 1 only to rounding. right=True never takes a token of mass 0.
            target_b = self.uniforms_bt[self.alive, self.t] * cumulative_bv[:, -1]
            token_b = torch.searchsorted(cumulative_bv, target_b[:, None], right=True).squeeze(1)
            token_b = token_b.clamp(max=logprobs_bv.shape[1] - 1)
        kept = self.growing
        self.tokens_bt[self.alive[kept], self.t] = token_b[kept]
        self.logprobs_bt[self.alive[kept], self.t] = logprobs_bv.gather(1, token_b[:, None]).squeeze(1)[kept]
        self.t += 1
        self.lengths[self.alive[kept]] = self.t
        self.growing = kept & ~torch.isin(token_b, torch.tensor(self.sampling.stop_ids, device=token_b.device))

    def done(self) -> bool:
        """Whether no row needs another token."""
        return self.t >= self.sampling.max_new_tokens or not bool(self.growing.any())

    def advance(self) -> None:
        """Feed the drawn tokens; rows that have finished leave when enough of them have."""
        if int(self.growing.sum()) <= COMPACT_AT * len(self.growing):
            kept = self.growing.nonzero().squeeze(1)
            self.cache.batch_select_indices(kept)
            self.attention, self.alive = self.attention[kept], self.alive[kept]
            self.growing = self.growing[kept]
        ones = torch.ones((len(self.alive), 1), dtype=self.attention.dtype, device=self.attention.device)
        self.attention = torch.cat([self.attention, ones], dim=1)
        output = self.lm(
            input_ids=self.tokens_bt[self.alive, self.t - 1][:, None],
            attention_mask=None if bool(self.attention.all()) else self.attention,
            position_ids=self.attention.sum(dim=1, keepdim=True) - 1,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.logits_bv = output.logits[:, -1]

    def responses(self) -> list[Response]:
        """What has been drawn, one response a row."""
        stops = set(self.sampling.stop_ids)
        tokens, logprobs = self.tokens_bt.tolist(), self.logprobs_bt.tolist()
        return [
            Response(tuple(row[:length]), tuple(values[:length]), row[length - 1] in stops)
            for row, values, length in zip(tokens, logprobs, self.lengths.tolist(), strict=True)
        ]


def sampling_logprobs(logits_bv: Tensor, sampling: Sampling) -> Tensor:
    """Log-probs of the distribution that is drawn from, after temperature and truncation [b, v] (nats).

    Truncation keeps, in this order, the ``top_k`` likeliest tokens, those of at least ``min_p`` times the likeliest
    one's probability, and the fewest tokens whose mass reaches ``top_p``; what is left is renormalised.

    Args:
        logits_bv: raw logits.
        sampling: temperature 0 is taken as 1 here, since greedy decoding has no distribution of its own.
    """
    scaled_bv = logits_bv.float()
    if sampling.temperature not in (0.0, 1.0):
        scaled_bv = scaled_bv / sampling.temperature
    logprobs_bv = torch.log_softmax(scaled_bv, dim=-1)
    if not sampling.truncated:
        return logprobs_bv
    if sampling.top_k:
        kth_b1 = logprobs_bv.topk(min(sampling.top_k, logprobs_bv.shape[-1]), dim=-1).values[:, -1:]
        logprobs_bv = logprobs_bv.masked_fill(logprobs_bv < kth_b1, -torch.inf)
    if sampling.min_p:
        floor_b1 = logprobs_bv.max(dim=-1, keepdim=True).values + float(np.log(sampling.min_p))
        logprobs_bv = logprobs_bv.masked_fill(logprobs_bv < floor_b1, -torch.inf)
    if sampling.top_p < 1:
        ordered_bv, order_bv = torch.log_softmax(logprobs_bv, dim=-1).sort(dim=-1, descending=True)
        before_bv = ordered_bv.exp().cumsum(dim=-1) - ordered_bv.exp()
        dropped_bv = torch.zeros_like(before_bv, dtype=torch.bool).scatter(1, order_bv, before_bv >= sampling.top_p)
        logprobs_bv = logprobs_bv.masked_fill(dropped_bv, -torch.inf)
    return torch.log_softmax(logprobs_bv, dim=-1)
