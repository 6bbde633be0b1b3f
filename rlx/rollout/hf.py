"""Sampling with transformers, from the trainer's own weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from rlx.engine.device import decoding_optimizations
from rlx.rollout.decoders import Decoder, choose_decoder
from rlx.rollout.sampler import Response, Sampling

COMPACT_AT = 0.75
"""Finished sequences leave the batch when fewer than this fraction of its rows are still growing."""


@dataclass(slots=True)
class HFSampler:
    """A ``Sampler`` over a transformers causal language model.

    Prompts are grouped by length. Tokens are drawn by inverting the cumulative distribution at a uniform random number
    that depends on the sample's seed and the position alone. How the forward passes are computed depends on the model's
    cache (``choose_decoder``).

    Example:
        ``HFSampler(lm).sample([[7, 10, 8, 14]], seeds=[[1, 2]], sampling=Sampling(1.0, 24, stop_ids=(2,)))``
    """

    lm: nn.Module | None = None
    autocast: Callable[[], AbstractContextManager[None]] = nullcontext
    batch_size: int = 256
    """Sequences decoded at once."""

    def load_weights(self, model: nn.Module) -> None:
        """Keep a reference to the model; nothing is copied."""
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
        device = next(lm.parameters()).device
        lm.eval()
        try:
            decoder = choose_decoder(lm)
            for rows in self._batches(prompts, seeds, decoder.needs_equal_lengths):
                with torch.no_grad(), self.autocast(), decoding_optimizations(lm, device):
                    batch_prompts, batch_seeds = [prompts[q] for q, _ in rows], [seeds[q][g] for q, g in rows]
                    responses = _decode(_DecodeState(decoder(), lm, batch_prompts, batch_seeds, sampling))
                for (q, _), response in zip(rows, responses, strict=True):
                    results[q].append(response)
        finally:
            lm.train(was_training)
        return results

    def _batches(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[Sequence[int]], equal_lengths: bool
    ) -> list[list[tuple[int, int]]]:
        """(prompt, sample) pairs in batches of prompts of similar length; the samples of a prompt are neighbours."""
        order = sorted(range(len(prompts)), key=lambda q: (len(prompts[q]), q))
        pairs = [(q, g) for q in order for g in range(len(seeds[q]))]
        groups = [pairs]
        if equal_lengths:
            lengths = sorted({len(prompts[q]) for q in order})
            groups = [[pair for pair in pairs if len(prompts[pair[0]]) == length] for length in lengths]
        return [
            group[start : start + self.batch_size]
            for group in groups
            for start in range(0, len(group), self.batch_size)
        ]


def _decode(state: _DecodeState) -> list[Response]:
    """One response per row."""
    for _ in range(state.sampling.max_new_tokens):
        state.draw()
        if state.done():
            break
        state.advance()
    return state.responses()


@dataclass(slots=True)
class _DecodeState:
    """A batch of growing responses: which rows remain, which of them still grow, and the tokens drawn so far."""

    decoder: Decoder
    lm: nn.Module
    prompts: list[Sequence[int]]
    seeds: list[int]
    sampling: Sampling
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
        """Read the prompts and draw the uniform random numbers of every response."""
        self.logits_bv = self.decoder.prefill(self.lm, self.prompts)
        device = self.logits_bv.device
        rows, longest = len(self.prompts), self.sampling.max_new_tokens
        self.alive = torch.arange(rows, device=device)
        self.growing = torch.ones(rows, dtype=torch.bool, device=device)
        uniforms = np.stack([np.random.Generator(np.random.Philox(key=seed)).random(longest) for seed in self.seeds])
        self.uniforms_bt = torch.from_numpy(uniforms).to(device)
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
        rows = self.growing
        self.tokens_bt[self.alive[rows], self.t] = token_b[rows]
        self.logprobs_bt[self.alive[rows], self.t] = logprobs_bv.gather(1, token_b[:, None]).squeeze(1)[rows]
        self.t += 1
        self.lengths[self.alive[rows]] = self.t
        self.growing = rows & ~torch.isin(token_b, torch.tensor(self.sampling.stop_ids, device=token_b.device))

    def done(self) -> bool:
        """Whether no row needs another token."""
        return self.t >= self.sampling.max_new_tokens or not bool(self.growing.any())

    def advance(self) -> None:
        """Append the drawn tokens; finished rows leave when enough of them have finished."""
        if int(self.growing.sum()) <= COMPACT_AT * len(self.growing):
            rows = self.growing.nonzero().squeeze(1)
            if self.decoder.keep(rows):
                self.alive, self.growing = self.alive[rows], self.growing[rows]
        self.logits_bv = self.decoder.step(self.tokens_bt[self.alive, self.t - 1])

    def responses(self) -> list[Response]:
        """The drawn tokens as one response per row."""
        stops = set(self.sampling.stop_ids)
        tokens, logprobs = self.tokens_bt.tolist(), self.logprobs_bt.tolist()
        return [
            Response(tuple(row[:length]), tuple(values[:length]), row[length - 1] in stops)
            for row, values, length in zip(tokens, logprobs, self.lengths.tolist(), strict=True)
        ]


def sampling_logprobs(logits_bv: Tensor, sampling: Sampling) -> Tensor:
    """Log-probs [b, v] (nats) of the distribution that tokens are drawn from, after temperature and truncation.

    Truncation keeps, in this order, the ``top_k`` most likely tokens, those with at least ``min_p`` times the
    probability of the most likely one, and the fewest tokens whose total probability reaches ``top_p``; the remaining
    ones are renormalised.

    Args:
        logits_bv: raw logits.
        sampling: temperature 0 is treated as 1, because greedy decoding has no distribution of its own.
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
