"""Speed and memory of training: the metrics ``perf/`` and ``memory/`` of a step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from rlx.engine.batch import MicroBatch
from rlx.engine.flops import device_peak, model_flops
from rlx.engine.lora import LM, causal_lm
from rlx.engine.memory import GIB, peak_bytes, reset_peak
from rlx.numerics.collate import TokenSequence


@dataclass(frozen=True, slots=True)
class ProcessUsage:
    """What one process has used since the last report.

    Example:
        ``ProcessUsage(seconds=1.8, tokens=12_000, flops=7.2e12, peak=3 << 30, max_tokens=16384)``
    """

    seconds: float
    """Time of the updates."""
    tokens: int
    """Tokens that passed the model in updates, without padding."""
    flops: float
    """The model's operations for them (``ModelFlops.of_row``)."""
    peak: int
    """Largest memory use (bytes)."""
    max_tokens: int
    """Token budget of a micro-batch."""


class Usage:
    """Counts the updates of this process and reports a step's speed and memory.

    Args:
        model: the model, adapters inside or not, before it is sharded.
        device: where it computes.
        bfloat16: whether matrix products are computed in bfloat16.
        estimate: bytes that training was estimated to need; None without an estimate.
    """

    def __init__(self, model: LM, device: torch.device, bfloat16: bool, estimate: int | None) -> None:
        self._model_flops = model_flops(causal_lm(model))
        self._device, self._estimate = device, estimate
        self._device_peak = device_peak(device, bfloat16)
        self._start()

    def _start(self) -> None:
        self._seconds, self._tokens, self._flops = 0.0, 0, 0.0
        reset_peak(self._device)

    @contextmanager
    def measure(self) -> Iterator[None]:
        """Add the seconds of this context to those of the updates."""
        start = time.perf_counter()
        yield
        self._seconds += time.perf_counter() - start

    def add(self, sequences: Sequence[TokenSequence], plan: Sequence[MicroBatch]) -> None:
        """Count the tokens and operations of an update.

        Args:
            sequences: the update's sequences.
            plan: its micro-batches; the sequences of a row share their prompt.
        """
        for row in (row for rows in plan for row in rows):
            prompt = len(sequences[row[0]].prompt)
            self._tokens += prompt + sum(len(sequences[i].tail) for i in row)
            self._flops += self._model_flops.of_row(prompt, [len(sequences[i].response) for i in row])

    def report(self, gather: Callable[[list[ProcessUsage]], list[ProcessUsage]], max_tokens: int) -> dict[str, float]:
        """The metrics of all processes since the last report; a new measurement starts.

        ``perf/train_tokens_per_s``: tokens of the updates per second of them, all processes together. ``perf/mfu``: the
        model's operations per second as a fraction of the devices' peak; left out where that is unknown.
        ``memory/peak_gib``: largest of all processes. ``memory/estimate_gib``: estimate for one process.
        ``memory/max_tokens``: smallest token budget of a micro-batch, which is lowered when memory runs out.

        Args:
            gather: returns the items of all processes.
            max_tokens: this process's token budget.
        """
        own = ProcessUsage(self._seconds, self._tokens, self._flops, peak_bytes(self._device), max_tokens)
        usages = gather([own])
        self._start()
        metrics = {
            "memory/peak_gib": round(max(usage.peak for usage in usages) / GIB, 3),
            "memory/max_tokens": min(usage.max_tokens for usage in usages),
        }
        if self._estimate is not None:
            metrics["memory/estimate_gib"] = round(self._estimate / GIB, 3)
        seconds = max(usage.seconds for usage in usages)
        if seconds > 0:
            metrics["perf/train_tokens_per_s"] = round(sum(usage.tokens for usage in usages) / seconds, 1)
            if self._device_peak is not None:
                rate = sum(usage.flops for usage in usages) / seconds
                metrics["perf/mfu"] = round(rate / (self._device_peak * len(usages)), 5)
        return metrics
