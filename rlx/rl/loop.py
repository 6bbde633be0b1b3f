"""The reinforcement-learning loop: sample, grade, compute advantages, update, evaluate, log, checkpoint."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from torch.profiler import record_function

from rlx.data.prompts import draw_prompts
from rlx.engine.checkpoint import save_checkpoint
from rlx.errors import UserError
from rlx.rewards.reward_set import RewardError
from rlx.rl.accuracy import accuracy
from rlx.rl.components import TrainComponents
from rlx.rl.metrics import Rollout, step_metrics
from rlx.rl.profiling import PHASE
from rlx.rl.rollouts import (
    Graded,
    grade,
    group_advantages,
    refuse_non_finite,
    rollout_seeds,
    sample_groups,
    select_with_signal,
)
from rlx.rl.samples import sample_rows
from rlx.rl.update import subtract_kl, update_policy
from rlx.rollout.sync_check import check_sync
from rlx.runs.checkpoint_files import Position
from rlx.runs.samples import Row, write_samples
from rlx.runs.stop import Interrupted


def train(components: TrainComponents) -> bool:
    """Train until the last step, starting from the newest checkpoint if there is one.

    sample prompts -> responses -> rewards -> group advantages -> optimiser updates -> evaluate -> log -> checkpoint

    Returns:
        True if the run is complete, False if a stop was requested; a checkpoint is written in both cases.
    """
    spec, engine = components.resolved.spec, components.engine
    train_state = _start(components)
    start_step = train_state.position.step
    if start_step == 0:
        components.recorder.write({"step": 0, **_evaluate_if_due(components, 0, train_state)})
    while train_state.position.step < spec.steps and not engine.agree(components.stop.requested):
        step = train_state.position.step + 1
        clock = Clock()
        try:
            with components.stop.interruptible(alone=engine.world == 1):
                rollout = _rollout(components, train_state.position.drawn, clock)
                sync_metrics = _check_sampler(components, rollout, step, start_step, clock)
        except Interrupted:
            break
        except UserError as error:
            _save_finished_steps(components, train_state, error)
            raise
        _report_failures(components, train_state)
        refuse_non_finite(rollout.sampled.responses, step)
        with clock.measure("update"):
            adv_b = group_advantages(rollout.graded, spec, engine)
            updates = update_policy(rollout.graded, adv_b, components)
        record = {"step": step, **step_metrics(rollout, updates, engine), **sync_metrics}
        train_state.pending_samples += sample_rows(rollout.graded, adv_b, step, spec.tracker.sample_prompts)
        train_state.position = replace(
            train_state.position, step=step, updates=engine.updates, skipped=engine.skipped, drawn=rollout.drawn
        )
        try:
            record |= _evaluate_if_due(components, step, train_state)
        except RewardError as error:
            components.recorder.write(record | clock.record(tokens=record["train/tokens"]))
            _save_finished_steps(components, train_state, error)
            raise
        record |= clock.record(tokens=record["train/tokens"], evaluation=record.get("time/eval", 0.0))
        components.recorder.write(record)
        if step % spec.checkpoint.every == 0 or step in (train_state.position.best_step, spec.steps):
            _checkpoint(components, train_state)
    if train_state.saved_step < train_state.position.step:
        _checkpoint(components, train_state)
    return train_state.position.step == spec.steps


@dataclass(slots=True)
class _TrainState:
    """The position in the run, and the sample rows that have not been written yet."""

    position: Position
    saved_step: int
    pending_samples: list[Row] = field(default_factory=list)
    failed_rewards: set[str] = field(default_factory=set)
    """Rewards whose failures were reported."""


@dataclass(slots=True)
class Clock:
    """Seconds of each phase of a step, reported under ``time/``."""

    start: float = field(default_factory=time.perf_counter)
    phases: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measure(self, phase: str) -> Iterator[None]:
        """Add the seconds of this context to ``phase``, and mark it for the profiler."""
        start = time.perf_counter()
        with record_function(PHASE + phase):
            yield
        self.phases[phase] = self.phases.get(phase, 0.0) + time.perf_counter() - start

    def record(self, tokens: float, evaluation: float = 0.0) -> dict[str, float]:
        """Seconds of each phase and of the step, and response tokens per second of the step and of the rollout.

        Args:
            tokens: response tokens of the step.
            evaluation: seconds of the step's evaluation, which do not count for its tokens per second.
        """
        total = time.perf_counter() - self.start
        phases = {f"time/{phase}": round(seconds, 4) for phase, seconds in self.phases.items()}
        training = max(total - evaluation, 1e-9)
        rates = {"time/tokens_per_s": tokens / training, "perf/rollout_tokens_per_s": tokens / self.phases["rollout"]}
        return phases | {"time/step": round(total, 4)} | {name: round(rate, 1) for name, rate in rates.items()}


def _start(components: TrainComponents) -> _TrainState:
    """The state of the newest intact checkpoint, or that of step 0."""
    position = components.recovery.restore(components.engine, components.recorder)
    if position is None:
        return _TrainState(Position(step=0, updates=0, skipped=0, metrics_bytes=0), saved_step=0)
    newest = components.run.checkpoint(position.step)
    components.recorder.note(f"continuing from step {position.step} of {components.resolved.spec.steps} ({newest})")
    return _TrainState(position, saved_step=position.step)


def _rollout(components: TrainComponents, prompts_drawn: int, clock: Clock) -> Rollout:
    """Sample and grade the prompts of one step; with dynamic sampling, until enough groups have unequal rewards."""
    spec = components.resolved.spec
    target = spec.batch.prompts
    with clock.measure("sync"):
        components.sampler.load_from(components.engine)
    sampled = _sample_and_grade(components, prompts_drawn, 0, clock)
    if not spec.rollout.dynamic_sampling:
        return Rollout(sampled, sampled, prompts_drawn + target, tries=1)
    selected, signals = select_with_signal(sampled, spec, components.engine)
    tries = 1
    while signals < target and tries < spec.rollout.dynamic_tries:
        sampled = sampled.joined(_sample_and_grade(components, prompts_drawn + tries * target, tries * target, clock))
        selected, signals = select_with_signal(sampled, spec, components.engine)
        tries += 1
    return Rollout(selected, sampled, prompts_drawn + tries * target, tries)


def _check_sampler(
    components: TrainComponents, rollout: Rollout, step: int, start_step: int, clock: Clock
) -> dict[str, float]:
    """Free the sampler's memory, and compare its log-probs with the trainer's if that is due at this step."""
    components.sampler.sleep()
    if components.sync_check is None or not components.sync_check.due(step, start_step):
        return {}
    with clock.measure("sync"):
        temperature = components.resolved.spec.rollout.temperature
        sequences, responses = rollout.sampled.sequences, rollout.sampled.responses
        return check_sync(sequences, responses, components.engine, temperature, components.sync_check.tolerance)


def _sample_and_grade(components: TrainComponents, prompts_drawn: int, first: int, clock: Clock) -> Graded:
    """This process's graded groups of the next prompts; their indices in the rollout start at ``first``."""
    spec = components.resolved.spec
    count = spec.batch.prompts
    prompts = draw_prompts(components.prompts, spec.data.weights(), spec.seed, prompts_drawn, count)
    with clock.measure("rollout"):
        seeds = rollout_seeds(spec.seed, prompts_drawn, count, spec.rollout.samples_per_prompt)
        prompt_ids, groups = sample_groups(components.sampler, prompts, components.engine, components.sampling, seeds)
    with clock.measure("reward"):
        graded = grade(prompts, prompt_ids, groups, components.grader)
        if spec.algorithm.kl_in == "reward" and spec.algorithm.kl_coef > 0:
            graded = subtract_kl(graded, components)
    return graded.select(range(len(prompt_ids)), [first + index for index in prompt_ids])


def _evaluate_if_due(components: TrainComponents, step: int, train_state: _TrainState) -> dict[str, float]:
    """Accuracy if an evaluation is due at this step; also records the best step so far."""
    spec = components.resolved.spec
    interval = spec.evaluation.every
    if not interval or (step % interval and step != spec.steps):
        return {}
    start = time.perf_counter()
    with record_function(f"{PHASE}eval"):
        result = accuracy(components)
        components.sampler.sleep()
    score = result.get("eval/sampled_accuracy", -1.0)
    if step and score > train_state.position.best_score:
        train_state.position = replace(train_state.position, best_step=step, best_score=score)
    return result | {"time/eval": round(time.perf_counter() - start, 4)}


def _report_failures(components: TrainComponents, train_state: _TrainState) -> None:
    """Print a sentence about each reward whose calls failed for the first time and were given the score 0."""
    for label, sentence in components.grader.rewards.replaced.items():
        if label not in train_state.failed_rewards:
            components.recorder.note(f"warning: {sentence}")
            train_state.failed_rewards.add(label)


def _save_finished_steps(components: TrainComponents, train_state: _TrainState, error: UserError) -> None:
    """Write a checkpoint before an error ends the run, unless other processes may not have this error."""
    on_all = components.engine.world == 1 or isinstance(error, RewardError)
    if on_all and train_state.saved_step < train_state.position.step:
        _checkpoint(components, train_state)


@record_function(f"{PHASE}checkpoint")
def _checkpoint(components: TrainComponents, train_state: _TrainState) -> None:
    """Write the pending samples, then the checkpoint, whose position counts them as written."""
    if components.engine.rank == 0:
        write_samples(train_state.pending_samples, components.run.sample_part(train_state.position.step))
    train_state.pending_samples = []
    train_state.position = replace(train_state.position, metrics_bytes=components.recorder.offset)
    run, keep, position = components.run, components.resolved.spec.checkpoint.keep, train_state.position
    save_checkpoint(run.checkpoint(position.step), components.engine, position, keep, run)
    train_state.saved_step = train_state.position.step
