"""The objects that the reinforcement-learning loop works with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rlx.data.prompts import Prompt
from rlx.engine.model import ReadableModel
from rlx.engine.recovery import Recovery
from rlx.engine.step import Engine
from rlx.registry import Method
from rlx.rl.rollouts import Grader
from rlx.rollout.sampler import Sampler, Sampling
from rlx.rollout.sync_check import SyncSchedule
from rlx.runs.folder import RunDir
from rlx.runs.recorder import Recorder
from rlx.runs.stop import Stop
from rlx.specs.train import Resolved


@dataclass(frozen=True, slots=True)
class TrainComponents:
    """The objects of one training run."""

    resolved: Resolved
    run: RunDir
    engine: Engine
    sampler: Sampler
    sync_check: SyncSchedule | None
    """When the sampler's copy of the weights is compared with the trainer's; None if it has no copy."""
    tokenizer: Any
    method: Method
    grader: Grader
    sampling: Sampling
    prompts: list[Prompt]
    held_out: list[Prompt]
    reference: ReadableModel | None
    recorder: Recorder
    recovery: Recovery
    stop: Stop
