"""Sampling with transformers, from the trainer's own weights or a copy of them in the compute type."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from rlx.engine.device import decoding_optimizations, memory_bytes
from rlx.rollout.decode_loop import DecodeLoop, Request
from rlx.rollout.decoders import Decoder, choose_decoder
from rlx.rollout.kv_cache import bytes_per_token
from rlx.rollout.sampler import Finished, Sampler, Sampling
from rlx.rollout.weights_copy import copy_in

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
            queue = _queue(prompts, seeds)
            while queue:
                batch = _first_batch(queue, self._rows(lm, queue, sampling), decoder.needs_equal_lengths)
                loop: DecodeLoop | None = None
                while loop is None or loop.running():
                    # A generator that yields inside these contexts would leave its caller in them.
                    with torch.no_grad(), self.autocast(), decoding_optimizations(lm, next(lm.parameters()).device):
                        loop = loop or DecodeLoop(lm, decoder(), batch, queue, sampling)
                        finished = loop.advance()
                    yield from finished
        finally:
            lm.train(was_training)

    def _rows(self, lm: nn.Module, queue: Sequence[Request], sampling: Sampling) -> int:
        """Number of sequences that are decoded at once; the queue's longest prompt comes first."""
        if self.batch_size is not None:
            return self.batch_size
        weight = next(lm.parameters())
        element = 2 if self.dtype is not None else weight.element_size()
        one = bytes_per_token(lm.config, element) * (len(queue[0].prompt) + sampling.max_new_tokens)
        fitting = int(CACHE_SHARE * memory_bytes(weight.device) / max(one, 1))
        return max(1, min(ROWS.get(weight.device.type, ROWS["cpu"]), fitting))


def hf_options(accelerator: Accelerator) -> dict[str, Any]:
    """Arguments of ``HFSampler`` for the precision of an accelerator."""
    dtype = torch.bfloat16 if accelerator.mixed_precision == "bf16" else None
    return {"autocast": accelerator.autocast, "dtype": dtype}


def _queue(prompts: Sequence[Sequence[int]], seeds: Sequence[Sequence[int]]) -> deque[Request]:
    """All requests, those of the longest prompts first; the samples of a prompt are neighbours."""
    order = sorted(range(len(prompts)), key=lambda q: (len(prompts[q]), q), reverse=True)
    return deque(Request(prompts[q], seed, (q, g)) for q in order for g, seed in enumerate(seeds[q]))


def _first_batch(queue: deque[Request], rows: int, equal_lengths: bool) -> list[Request]:
    """The first requests of the queue, which are taken from it."""
    length = len(queue[0].prompt)
    batch: list[Request] = []
    while queue and len(batch) < rows and (len(queue[0].prompt) == length or not equal_lengths):
        batch.append(queue.popleft())
    return batch
