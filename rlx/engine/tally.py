"""The scalars of an optimiser update, read from the device in one transfer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor


@dataclass(slots=True)
class Tally:
    """Totals over micro-batches, then over processes."""

    loss: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)
    vectors: dict[str, list[float]] = field(default_factory=dict)

    def add(self, loss: float, sums: Mapping[str, float], peaks: Mapping[str, float]) -> None:
        """Add the scalars of one micro-batch or one process."""
        self.loss += loss
        for name, value in sums.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        for name, value in peaks.items():
            self.peaks[name] = max(self.peaks.get(name, -math.inf), value)

    def add_vectors(self, vectors: Mapping[str, list[float]]) -> None:
        """Add the vectors of one process, element by element."""
        for name, values in vectors.items():
            previous = self.vectors.get(name, [0.0] * len(values))
            self.vectors[name] = [a + b for a, b in zip(previous, values, strict=True)]

    @staticmethod
    def merged(tallies: Sequence[Tally]) -> Tally:
        """The totals of all processes together."""
        merged = Tally()
        for tally in tallies:
            merged.add(tally.loss, tally.sums, tally.peaks)
            merged.add_vectors(tally.vectors)
        return merged


class DeviceScalars:
    """Losses and statistics of the micro-batches of one update, which stay on the device until ``read``.

    Reading a scalar makes the CPU wait for everything that the device has queued, so all are read together.
    """

    def __init__(self) -> None:
        self._scalars: list[Tensor] = []
        self._names: list[tuple[list[str], list[str]]] = []
        self._vectors: dict[str, Tensor] = {}

    def add(
        self,
        loss: Tensor,
        sums: Mapping[str, Tensor],
        peaks: Mapping[str, Tensor],
        vectors: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Add the scalars and vectors of one micro-batch, all on one device."""
        for name, vector in (vectors or {}).items():
            so_far = self._vectors.get(name)
            self._vectors[name] = vector.detach().double() if so_far is None else so_far + vector.detach()
        values = [loss.detach(), *sums.values(), *peaks.values()]
        self._scalars.append(torch.stack([value.detach().double() for value in values]))
        self._names.append((list(sums), list(peaks)))

    def read(self, norm: Tensor) -> tuple[Tally, float]:
        """The totals of this process's micro-batches, and the gradient norm: one transfer."""
        vectors = self._vectors
        numbers = iter(torch.cat([norm.detach().double().reshape(1), *self._scalars, *vectors.values()]).tolist())
        tally, norm_value = Tally(), next(numbers)
        for sums, peaks in self._names:
            tally.add(next(numbers), {name: next(numbers) for name in sums}, {name: next(numbers) for name in peaks})
        tally.add_vectors({name: list(islice(numbers, len(vector))) for name, vector in vectors.items()})
        return tally, norm_value
