"""Reinforcement learning with verifiable rewards: the whole story, top to bottom."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from rlx.data.prompts import prompt_indices
from rlx.engine.checkpoint import Position, latest_checkpoint, load_checkpoint, save_checkpoint
from rlx.loops.evaluate import accuracy
from rlx.loops.parts import Parts
from rlx.loops.policy_step import update_policy
from rlx.loops.rl_metrics import step_metrics
from rlx.loops.rollouts import Graded, grade, rollout_seeds, sample_groups
from rlx.loops.samples import Row, sample_rows, write_samples
from rlx.loops.stop import Interrupted
from rlx.numerics.advantages import ADVANTAGES


def train(parts: Parts) -> bool:
    """Train until the last step; goes on from the newest checkpoint.

    sample prompts -> responses -> rewards -> group advantages -> optimiser updates -> evaluate -> log -> checkpoint

    Returns:
        True when the run is complete, False when it was asked to stop and has written a checkpoint.
    """
    spec, engine = parts.resolved.spec, parts.engine
    story = _start(parts)
    if story.position.step == 0:
        parts.recorder.write({"step": 0, **_evaluated(parts, 0, story)})
    while story.position.step < spec.steps and not engine.agree(parts.stop.requested):
        step = story.position.step + 1
        clock = Clock()
        try:
            with parts.stop.interruptible(alone=engine.world == 1):
                graded = _rollout(parts, step, clock)
        except Interrupted:
            break
        with clock.measure("update"):
            updates = update_policy(graded, parts.method, spec, engine, parts.reference)
        record = {"step": step, **step_metrics(graded, updates, spec, engine)}
        story.rows += sample_rows(graded, step, spec.tracker.sample_prompts)
        story.position = replace(story.position, step=step, updates=engine.updates, skipped=engine.skipped)
        record |= _evaluated(parts, step, story)
        record |= clock.record(tokens=record["train/tokens"])
        parts.recorder.write(record)
        if step % spec.checkpoint.every == 0 or step in (story.position.best_step, spec.steps):
            _checkpoint(parts, story)
    if story.saved_step < story.position.step:
        _checkpoint(parts, story)
    return story.position.step == spec.steps


@dataclass(slots=True)
class _Story:
    """Where the run stands and what has not been written yet."""

    position: Position
    saved_step: int
    rows: list[Row] = field(default_factory=list)


@dataclass(slots=True)
class Clock:
    """Seconds of each phase of a step, under ``time/``."""

    began: float = field(default_factory=time.perf_counter)
    phases: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measure(self, phase: str) -> Iterator[None]:
        """Add this context's seconds to ``phase``."""
        start = time.perf_counter()
        yield
        self.phases[phase] = self.phases.get(phase, 0.0) + time.perf_counter() - start

    def record(self, tokens: float) -> dict[str, float]:
        """Seconds by phase and of the whole step, and response tokens a second."""
        whole = time.perf_counter() - self.began
        phases = {f"time/{phase}": round(seconds, 4) for phase, seconds in self.phases.items()}
        return phases | {"time/step": round(whole, 4), "time/tokens_per_s": round(tokens / whole, 1)}


def _start(parts: Parts) -> _Story:
    """The newest checkpoint's state, or the beginning's."""
    newest = latest_checkpoint(parts.run.checkpoints)
    if newest is None:
        parts.recorder.rewind(0)
        return _Story(Position(step=0, updates=0, skipped=0, metrics_bytes=0), saved_step=0)
    position = load_checkpoint(newest, parts.engine)
    parts.recorder.rewind(position.metrics_bytes)
    parts.recorder.note(f"going on from step {position.step} of {parts.resolved.spec.steps} ({newest})")
    return _Story(position, saved_step=position.step)


def _rollout(parts: Parts, step: int, clock: Clock) -> Graded:
    """Sample and grade the prompts of one step."""
    spec, engine = parts.resolved.spec, parts.engine
    prompts = [parts.prompts[i] for i in prompt_indices(len(parts.prompts), spec.seed, step, spec.batch.prompts)]
    with clock.measure("rollout"):
        labels = rollout_seeds(spec.seed, step, prompts, spec.rollout.samples_per_prompt)
        parts.sampler.load_weights(engine.lm)
        sampled = sample_groups(parts.sampler, prompts, engine, parts.sampling, labels)
    with clock.measure("reward"):
        return grade(sampled, parts.reward, parts.decode, ADVANTAGES[spec.advantage.name], engine)


def _evaluated(parts: Parts, step: int, story: _Story) -> dict[str, float]:
    """Accuracy when it is due, and the best so far."""
    spec = parts.resolved.spec
    every = spec.evaluation.every
    if not every or (step % every and step != spec.steps):
        return {}
    start = time.perf_counter()
    result = accuracy(parts)
    score = result.get("eval/sampled_accuracy", -1.0)
    if step and score > story.position.best_score:
        story.position = replace(story.position, best_step=step, best_score=score)
    return result | {"time/eval": round(time.perf_counter() - start, 4)}


def _checkpoint(parts: Parts, story: _Story) -> None:
    """Samples first, then the checkpoint that counts them as written."""
    if parts.engine.rank == 0:
        write_samples(story.rows, parts.run.sample_part(story.position.step))
    story.rows = []
    story.position = replace(story.position, metrics_bytes=parts.recorder.offset)
    keep = parts.resolved.spec.checkpoint.keep
    save_checkpoint(parts.run.checkpoint(story.position.step), parts.engine, story.position, keep)
    story.saved_step = story.position.step
