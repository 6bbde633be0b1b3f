"""What a training loop is handed: every name resolved to the thing it names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from rlx.data.prompts import Prompt
from rlx.engine.model import ReadableModel
from rlx.engine.step import Engine
from rlx.loops.rollouts import Decode, Reward
from rlx.loops.stop import Stop
from rlx.loops.sync import Watch
from rlx.registry import Method
from rlx.rollout.sampler import Sampler, Sampling
from rlx.rundir import RunDir
from rlx.spec import Resolved


class Recorder(Protocol):
    """Where a loop's records go; on all but the first process, nowhere."""

    def write(self, record: Mapping[str, float | int]) -> None:
        """Take one line of metrics."""
        ...

    @property
    def offset(self) -> int:
        """Bytes of metrics written so far."""
        ...

    def rewind(self, offset: int) -> None:
        """Drop what was written behind ``offset``: it will come again."""
        ...

    def note(self, text: str) -> None:
        """Tell the person something."""
        ...


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything a run is made of."""

    resolved: Resolved
    run: RunDir
    engine: Engine
    sampler: Sampler
    watch: Watch | None
    """How the sampler's copy of the weights is watched; None where it has none."""
    tokenizer: Any
    method: Method
    reward: Reward
    decode: Decode
    sampling: Sampling
    prompts: list[Prompt]
    held_out: list[Prompt]
    reference: ReadableModel | None
    recorder: Recorder
    stop: Stop
