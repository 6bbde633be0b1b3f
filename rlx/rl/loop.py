"""The reinforcement-learning loop: sample, grade, compute advantages, update, evaluate, log, checkpoint."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from torch.profiler import record_function

from rlx.data.prompts import prompt_indices
from rlx.engine.checkpoint import Position, latest_checkpoint, load_checkpoint, save_checkpoint
from rlx.engine.lora import causal_lm
from rlx.engine.profiling import PHASE
from rlx.errors import UserError
from rlx.numerics.advantages import ADVANTAGES
from rlx.rl.accuracy import accuracy
from rlx.rl.components import TrainComponents
from rlx.rl.metrics import Rollout, step_metrics
from rlx.rl.rollouts import (
    Graded,
    grade,
    group_advantages,
    refuse_broken,
    rollout_seeds,
    sample_groups,
    with_signal,
)
from rlx.rl.samples import sample_rows
from rlx.rl.update import subtract_kl, update_policy
from rlx.rollout.sync_check import check_sync
from rlx.runs.samples import Row, write_samples
from rlx.runs.stop import Interrupted


def train(parts: TrainComponents) -> bool:
    """Train until the last step; goes on from the newest checkpoint.

    sample prompts -> responses -> rewards -> group advantages -> optimiser updates -> evaluate -> log -> checkpoint

    Returns:
        True when the run is complete, False when it was asked to stop and has written a checkpoint.
    """
    spec, engine = parts.resolved.spec, parts.engine
    train_state = _start(parts)
    began = train_state.position.step
    if began == 0:
        parts.recorder.write({"step": 0, **_evaluated(parts, 0, train_state)})
    while train_state.position.step < spec.steps and not engine.agree(parts.stop.requested):
        step = train_state.position.step + 1
        clock = Clock()
        try:
            with parts.stop.interruptible(alone=engine.world == 1):
                rollout = _rollout(parts, train_state.position.drawn, clock)
                synced = _synced(parts, rollout, step, began, clock)
        except Interrupted:
            break
        except UserError:
            _saved_at_least(parts, train_state)
            raise
        refuse_broken(rollout.sampled.responses, step)
        with clock.measure("update"):
            adv_b = group_advantages(rollout.graded, ADVANTAGES[spec.advantage.name], engine)
            updates = update_policy(rollout.graded, adv_b, parts)
        record = {"step": step, **step_metrics(rollout, updates, engine), **synced}
        train_state.rows += sample_rows(rollout.graded, adv_b, step, spec.tracker.sample_prompts)
        train_state.position = replace(
            train_state.position, step=step, updates=engine.updates, skipped=engine.skipped, drawn=rollout.drawn
        )
        record |= _evaluated(parts, step, train_state)
        record |= clock.record(tokens=record["train/tokens"])
        parts.recorder.write(record)
        if step % spec.checkpoint.every == 0 or step in (train_state.position.best_step, spec.steps):
            _checkpoint(parts, train_state)
    if train_state.saved_step < train_state.position.step:
        _checkpoint(parts, train_state)
    return train_state.position.step == spec.steps


@dataclass(slots=True)
class _TrainState:
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
        """Add this context's seconds to ``phase``, and show it to a profiler."""
        start = time.perf_counter()
        with record_function(PHASE + phase):
            yield
        self.phases[phase] = self.phases.get(phase, 0.0) + time.perf_counter() - start

    def record(self, tokens: float) -> dict[str, float]:
        """Seconds by phase and of the whole step, and response tokens a second."""
        whole = time.perf_counter() - self.began
        phases = {f"time/{phase}": round(seconds, 4) for phase, seconds in self.phases.items()}
        return phases | {"time/step": round(whole, 4), "time/tokens_per_s": round(tokens / whole, 1)}


def _start(parts: TrainComponents) -> _TrainState:
    """The newest checkpoint's state, or the beginning's."""
    newest = latest_checkpoint(parts.run.checkpoints)
    if newest is None:
        parts.recorder.rewind(0)
        return _TrainState(Position(step=0, updates=0, skipped=0, metrics_bytes=0), saved_step=0)
    position = load_checkpoint(newest, parts.engine)
    parts.recorder.rewind(position.metrics_bytes)
    parts.recorder.note(f"going on from step {position.step} of {parts.resolved.spec.steps} ({newest})")
    return _TrainState(position, saved_step=position.step)


def _rollout(parts: TrainComponents, drawn: int, clock: Clock) -> Rollout:
    """Sample and grade the prompts of one step; with dynamic sampling, until enough groups carry a signal."""
    spec = parts.resolved.spec
    wanted = spec.batch.prompts
    with clock.measure("sync"):
        parts.sampler.load_weights(causal_lm(parts.engine.gathered_model()))
    every = _groups(parts, drawn, 0, clock)
    if not spec.rollout.dynamic_sampling:
        return Rollout(every, every, drawn + wanted, tries=1)
    kept, signals = with_signal(every, wanted, parts.engine)
    tries = 1
    while signals < wanted and tries < spec.rollout.dynamic_tries:
        every = every.joined(_groups(parts, drawn + tries * wanted, tries * wanted, clock))
        kept, signals = with_signal(every, wanted, parts.engine)
        tries += 1
    return Rollout(kept, every, drawn + tries * wanted, tries)


def _synced(parts: TrainComponents, rollout: Rollout, step: int, began: int, clock: Clock) -> dict[str, float]:
    """Let the sampler rest, and compare its log-probs with the trainer's when that is due."""
    parts.sampler.sleep()
    if parts.watch is None or not parts.watch.due(step, began):
        return {}
    with clock.measure("sync"):
        temperature = parts.resolved.spec.rollout.temperature
        sequences, responses = rollout.sampled.sequences, rollout.sampled.responses
        return check_sync(sequences, responses, parts.engine, temperature, parts.watch.tolerance)


def _groups(parts: TrainComponents, drawn: int, first: int, clock: Clock) -> Graded:
    """This process's graded groups of the prompts drawn next, numbered from ``first``."""
    spec = parts.resolved.spec
    wanted = spec.batch.prompts
    prompts = [parts.prompts[i] for i in prompt_indices(len(parts.prompts), spec.seed, drawn, wanted)]
    with clock.measure("rollout"):
        seeds = rollout_seeds(spec.seed, drawn, wanted, spec.rollout.samples_per_prompt)
        numbers, groups = sample_groups(parts.sampler, prompts, parts.engine, parts.sampling, seeds)
    with clock.measure("reward"):
        graded = grade(prompts, numbers, groups, parts.reward, parts.decode, spec)
        if spec.algorithm.kl_in == "reward" and spec.algorithm.kl_coef > 0:
            graded = subtract_kl(graded, parts)
    return graded.chosen(range(len(numbers)), [first + number for number in numbers])


def _evaluated(parts: TrainComponents, step: int, train_state: _TrainState) -> dict[str, float]:
    """Accuracy when it is due, and the best so far."""
    spec = parts.resolved.spec
    every = spec.evaluation.every
    if not every or (step % every and step != spec.steps):
        return {}
    start = time.perf_counter()
    with record_function(f"{PHASE}eval"):
        result = accuracy(parts)
        parts.sampler.sleep()
    score = result.get("eval/sampled_accuracy", -1.0)
    if step and score > train_state.position.best_score:
        train_state.position = replace(train_state.position, best_step=step, best_score=score)
    return result | {"time/eval": round(time.perf_counter() - start, 4)}


def _saved_at_least(parts: TrainComponents, train_state: _TrainState) -> None:
    """Before a failed rollout ends the run: keep the steps done. Several processes may not all have failed."""
    if parts.engine.world == 1 and train_state.saved_step < train_state.position.step:
        _checkpoint(parts, train_state)


@record_function(f"{PHASE}checkpoint")
def _checkpoint(parts: TrainComponents, train_state: _TrainState) -> None:
    """Samples first, then the checkpoint that counts them as written."""
    if parts.engine.rank == 0:
        write_samples(train_state.rows, parts.run.sample_part(train_state.position.step))
    train_state.rows = []
    train_state.position = replace(train_state.position, metrics_bytes=parts.recorder.offset)
    keep = parts.resolved.spec.checkpoint.keep
    save_checkpoint(parts.run.checkpoint(train_state.position.step), parts.engine, train_state.position, keep)
    train_state.saved_step = train_state.position.step
