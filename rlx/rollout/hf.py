"""Sampling with transformers, from the trainer's own weights or a copy of them in the compute type."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from rlx.engine.device import decoding_optimizations, memory_bytes
from rlx.engine.lora import causal_lm
from rlx.engine.step import Engine
from rlx.rollout.decode_loop import DecodeLoop, Request
from rlx.rollout.decoders import Decoder, choose_decoder
from rlx.rollout.sampler import Finished, Sampler, Sampling
from rlx.rollout.shared_prefill import SharedPrefillDecoder, bytes_per_token
from rlx.rollout.weights_copy import cast_to, copy_in

ROWS = {"cpu": 256, "cuda": 512}
"""Largest number of sequences that are decoded at once, by device type."""
CACHE_SHARE = 0.4
"""Fraction of the device's memory for keys and values. Columns that no row needs any more take up to a third more."""


@dataclass(slots=True)
class HFSampler(Sampler):
    """A ``Sampler`` over a transformers causal language model.

    Tokens are drawn by inverting the cumulative distribution at a uniform random number that depends on the sample's
    seed and the position alone. Rows whose response is finished take the next prompt. How the forward passes are
    computed depends on the model's cache (``choose_decoder``).

    Example:
        ``HFSampler(lm).sample([[7, 10, 8, 14]], seeds=[[1, 2]], sampling=Sampling(1.0, 24, stop_ids=(2,)))``
    """

    lm: nn.Module | None = None
    autocast: Callable[[], AbstractContextManager[None]] = nullcontext
    dtype: torch.dtype | None = None
    """Type of a copy of the weights, made by ``load_weights``; None samples from the trainer's weights themselves."""
    batch_size: int | None = None
    """Sequences decoded at once; by default as many as ``ROWS`` and ``CACHE_SHARE`` allow."""
    _decoder: type[Decoder] | None = None

    def load_weights(self, model: nn.Module) -> None:
        """Keep a reference to the model, or a copy in ``dtype``, adapters merged."""
        self._decoder = choose_decoder(model)
        self.lm = model if self.dtype is None else copy_in(self.dtype, model)

    def load_from(self, engine: Engine) -> None:
        """See ``Sampler.load_from``; sharded weights are gathered, each cast to ``dtype`` at once."""
        cast = None if self.dtype is None else cast_to(self.dtype, causal_lm(engine.raw))
        self.load_weights(causal_lm(engine.gathered_model(cast)))

    def sleep(self) -> None:
        """Drop the reference to the model or its copy so that its memory can be freed."""
        self.lm = None

    def stream(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[Sequence[int]], sampling: Sampling
    ) -> Generator[Finished, None, None]:
        """See ``Sampler.stream``."""
        if self.lm is None:
            raise ValueError("load_weights comes before stream")
        lm, was_training = self.lm, self.lm.training
        lm.eval()
        try:
            decoder = self._decoder or choose_decoder(lm)
            queue = _queue(prompts, seeds, sampling)
            longest = max(map(len, prompts), default=0) + sampling.max_new_tokens
            rows = self.batch_size or self._rows(lm, decoder, longest)
            while queue:
                batch = _first_batch(queue, rows, decoder.needs_equal_lengths)
                loop: DecodeLoop | None = None
                while loop is None or loop.running():
                    # A generator that yields inside these contexts would leave its caller in them.
                    with torch.no_grad(), self.autocast(), decoding_optimizations(lm, next(lm.parameters()).device):
                        loop = loop or DecodeLoop(lm, decoder(), batch, queue, sampling)
                        finished = loop.advance()
                    yield from finished
        finally:
            lm.train(was_training)

    def _rows(self, lm: nn.Module, decoder: type[Decoder], longest: int) -> int:
        """Number of sequences of ``longest`` tokens that are decoded at once."""
        device = next(lm.parameters()).device
        rows = ROWS.get(device.type, ROWS["cpu"])
        if not issubclass(decoder, SharedPrefillDecoder):
            return rows
        with self.autocast():
            one = bytes_per_token(lm) * longest
        return max(1, min(rows, int(CACHE_SHARE * memory_bytes(device) / one)))


def _queue(prompts: Sequence[Sequence[int]], seeds: Sequence[Sequence[int]], sampling: Sampling) -> deque[Request]:
    """All requests, those of the longest prompts first; the samples of a prompt are neighbours."""
    order = sorted(range(len(prompts)), key=lambda q: (len(prompts[q]), q), reverse=True)
    return deque(Request(prompts[q], seed, (q, g), sampling.limit(q)) for q in order for g, seed in enumerate(seeds[q]))


def _first_batch(queue: deque[Request], rows: int, equal_lengths: bool) -> list[Request]:
    """The first requests of the queue, which are taken from it."""
    length = len(queue[0].prompt)
    batch: list[Request] = []
    while queue and len(batch) < rows and (len(queue[0].prompt) == length or not equal_lengths):
        batch.append(queue.popleft())
    return batch
