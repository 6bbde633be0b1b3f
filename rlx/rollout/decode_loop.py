"""The loop that draws tokens for the rows of a decoder, replaces finished rows and reports their responses."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from rlx.rollout.decoders import Decoder
from rlx.rollout.distribution import draw
from rlx.rollout.sampler import Finished, Response, Sampling

COMPACT_AT = 0.75
"""With no prompt left, finished rows leave the batch when fewer than this fraction of its rows are still growing."""
REPLACE_AT = 1 / 16
"""Finished rows are replaced when they are this fraction of the batch: a prefill of few prompts costs almost as much as
one of many."""
CHECK_EVERY = {"cpu": 1, "cuda": 8}
"""Tokens between two looks at which rows have finished, by device type: on a GPU each look waits for the device."""


@dataclass(frozen=True, slots=True)
class Request:
    """A response that is to be sampled.

    Example:
        ``Request(prompt=(7, 10, 8, 14), seed=5172537475550556618, key=(0, 3), limit=24)``
    """

    prompt: Sequence[int]
    seed: int
    key: tuple[int, int]
    """Index of the prompt, and of the sample among its seeds."""
    limit: int | None = None
    """Longest response (tokens); None for the sampling's ``max_new_tokens``."""


class DecodeLoop:
    """One batch of growing responses; rows that finish take the next request of the queue if the decoder allows it.

    Args:
        lm: the model, in evaluation mode.
        decoder: computes the forward passes.
        batch: the first requests, one per row.
        queue: further requests, which the loop takes from the left.
        sampling: the sampling parameters.
    """

    def __init__(
        self, lm: nn.Module, decoder: Decoder, batch: Sequence[Request], queue: deque[Request], sampling: Sampling
    ) -> None:
        self.decoder, self.queue, self.sampling = decoder, queue, sampling
        self.owners: list[Request | None] = list(batch)
        """The request of each row; None once its response has been reported."""
        self.can_replace = True
        logits_bv = decoder.prefill(lm, [request.prompt for request in batch])
        device = logits_bv.device
        self.check_every = CHECK_EVERY.get(device.type, 1)
        # Rows that have finished go on drawing; what they draw beyond the limit falls into the last column.
        rows, width = len(batch), sampling.max_new_tokens + 1
        self.stops = torch.tensor(sampling.stop_ids, dtype=torch.long, device=device)
        self.uniforms_bt = torch.zeros((rows, width), dtype=torch.float64, device=device)
        self.tokens_bt = torch.zeros((rows, width), dtype=torch.long, device=device)
        self.logprobs_bt = torch.zeros((rows, width), dtype=torch.float32, device=device)
        self.drawn_b = torch.zeros(rows, dtype=torch.long, device=device)
        """Tokens drawn for each row."""
        self.lengths_b = torch.zeros(rows, dtype=torch.long, device=device)
        """Length of each row's response so far."""
        self.limits_b = torch.zeros(rows, dtype=torch.long, device=device)
        """Longest response of each row."""
        self.latest_b = torch.zeros(rows, dtype=torch.long, device=device)
        self.growing_b = torch.ones(rows, dtype=torch.bool, device=device)
        self.all_rows_b = torch.arange(rows, device=device)
        self._start(self.all_rows_b, batch, logits_bv)

    def advance(self) -> list[Finished]:
        """Draw tokens until a few responses are finished (``REPLACE_AT``) or no row is left, and return these."""
        finished: list[Finished] = []
        while True:
            growing = self.growing_b.tolist()
            done = [row for row, owner in enumerate(self.owners) if owner is not None and not growing[row]]
            finished += self._take(done)
            self._refill()
            if not self.running() or len(finished) >= REPLACE_AT * len(self.owners):
                return finished
            for _ in range(self.check_every):
                self._append(self.all_rows_b, self.decoder.step(self.latest_b))

    def running(self) -> bool:
        """Whether a response is still growing."""
        return any(owner is not None for owner in self.owners)

    def _take(self, rows: Sequence[int]) -> list[Finished]:
        """The responses of finished rows, which are free from now on."""
        if not rows:
            return []
        index = torch.tensor(rows, device=self.tokens_bt.device)
        lengths = self.lengths_b[index].tolist()
        longest = max(lengths)
        tokens = self.tokens_bt[index, :longest].tolist()
        logprobs = self.logprobs_bt[index, :longest].tolist()
        stops, finished = set(self.sampling.stop_ids), []
        for row, length, ids, values in zip(rows, lengths, tokens, logprobs, strict=True):
            request, self.owners[row] = self.owners[row], None
            assert request is not None
            response = Response(tuple(ids[:length]), tuple(values[:length]), ids[length - 1] in stops)
            finished.append((*request.key, response))
        self.decoder.free(rows)
        return finished

    def _refill(self) -> None:
        """Start the next requests in free rows, or let free rows leave the batch if there is none."""
        free = [row for row, owner in enumerate(self.owners) if owner is None]
        occupied = len(self.owners) - len(free)
        if self.queue and self.can_replace:
            if len(free) >= max(1, REPLACE_AT * len(self.owners)) or not occupied:
                self._replace(free[: len(self.queue)])
        elif occupied and occupied <= COMPACT_AT * len(self.owners):
            self._keep([row for row, owner in enumerate(self.owners) if owner is not None])

    def _replace(self, rows: list[int]) -> None:
        """Start the next requests in these rows."""
        requests = [self.queue[index] for index in range(len(rows))]
        logits_bv = self.decoder.replace(rows, [request.prompt for request in requests])
        if logits_bv is None:
            self.can_replace = False
            return
        for row, request in zip(rows, requests, strict=True):
            self.owners[row] = request
            self.queue.popleft()
        self._start(torch.tensor(rows, device=self.tokens_bt.device), requests, logits_bv)

    def _keep(self, rows: list[int]) -> None:
        """Drop all other rows."""
        if not self.decoder.keep(rows):
            return
        index = torch.tensor(rows, device=self.tokens_bt.device)
        self.owners = [self.owners[row] for row in rows]
        self.uniforms_bt, self.tokens_bt = self.uniforms_bt[index], self.tokens_bt[index]
        self.logprobs_bt, self.drawn_b = self.logprobs_bt[index], self.drawn_b[index]
        self.lengths_b, self.latest_b = self.lengths_b[index], self.latest_b[index]
        self.limits_b = self.limits_b[index]
        self.growing_b, self.all_rows_b = self.growing_b[index], self.all_rows_b[: len(rows)]

    def _start(self, rows_b: Tensor, requests: Sequence[Request], logits_bv: Tensor) -> None:
        """Draw the uniform random numbers and the first tokens of new responses."""
        if self.sampling.temperature > 0:
            longest = self.sampling.max_new_tokens
            uniforms = [np.random.Generator(np.random.Philox(key=r.seed)).random(longest) for r in requests]
            self.uniforms_bt[rows_b, :longest] = torch.from_numpy(np.stack(uniforms)).to(rows_b.device)
        limits = [self.sampling.max_new_tokens if r.limit is None else r.limit for r in requests]
        self.limits_b[rows_b] = torch.tensor(limits, device=rows_b.device)
        self.drawn_b[rows_b] = 0
        self.lengths_b[rows_b] = 0
        self.growing_b[rows_b] = True
        self._append(rows_b, logits_bv)

    def _append(self, rows_b: Tensor, logits_bv: Tensor) -> None:
        """Draw the next token of these rows from their logits."""
        drawn_b = self.drawn_b[rows_b]
        token_b, logprob_b = draw(logits_bv, self.uniforms_bt[rows_b, drawn_b], self.sampling)
        self.tokens_bt[rows_b, drawn_b] = token_b
        self.logprobs_bt[rows_b, drawn_b] = logprob_b
        self.latest_b[rows_b] = token_b
        growing_b = self.growing_b[rows_b]
        self.lengths_b[rows_b] += growing_b
        self.drawn_b[rows_b] = (drawn_b + 1).clamp(max=self.sampling.max_new_tokens)
        ended_b = torch.isin(token_b, self.stops) | (drawn_b + 1 >= self.limits_b[rows_b])
        self.growing_b[rows_b] = growing_b & ~ended_b
