"""The unlearning loop: update, log, evaluate, checkpoint."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from rlx.benchmarks.tofu.scores import Sample, aggregates, kept_utility
from rlx.engine.checkpoint import save_checkpoint
from rlx.registry import Hyper, Method
from rlx.runs.checkpoint_files import Position
from rlx.runs.tracking import read_metrics
from rlx.unlearning.components import UnlearnComponents, rows_of
from rlx.unlearning.measures import examine
from rlx.unlearning.update import Outcome, UnlearnStep, plan_of, update_once


@dataclass(slots=True)
class _TrainState:
    """The position in the run, and the method's current parameters."""

    position: Position
    saved_step: int
    hyper: Hyper
    """The method's parameters; a dual variable changes during training."""
    utility: float = 0.0
    """Utility of the original model."""


def unlearn(components: UnlearnComponents) -> bool:
    """Train until the last update, starting from the newest checkpoint if there is one.

    forget and retain rows -> terms -> optimiser update -> (each epoch) evaluate -> log -> checkpoint

    Returns:
        True if training is complete, False if a stop was requested; a checkpoint is written in both cases.
    """
    spec, engine = components.resolved.spec, components.engine
    total, per_epoch = spec.epochs * components.updates_per_epoch, components.updates_per_epoch
    train_state = _start(components)
    if train_state.position.step == 0:
        components.recorder.write({"step": 0, **_evaluate(components, train_state)})
    while train_state.position.step < total and not engine.agree(components.stop.requested):
        start = time.perf_counter()
        outcome = _update(components, train_state)
        step = train_state.position.step + 1
        train_state.position = replace(train_state.position, step=step, updates=engine.updates, skipped=engine.skipped)
        record = {"step": step, **_update_metrics(components, outcome, train_state)}
        due = step % (per_epoch * spec.evaluation.every) == 0 or step == total
        record |= _evaluate(components, train_state) if due else {}
        components.recorder.write(record | {"time/step": round(time.perf_counter() - start, 4)})
        if step % spec.checkpoint.every == 0 or step in (train_state.position.best_step, total):
            _checkpoint(components, train_state)
    if train_state.saved_step < train_state.position.step:
        _checkpoint(components, train_state)
    return train_state.position.step == total


def _start(components: UnlearnComponents) -> _TrainState:
    """The state of the newest intact checkpoint, or that of update 0."""
    position = components.recovery.restore(components.engine, components.recorder, needs_best=True)
    if position is None:
        position = Position(step=0, updates=0, skipped=0, metrics_bytes=0)
        return _TrainState(position, saved_step=0, hyper=components.method.hyper)
    components.recorder.note(f"continuing from update {position.step} ({components.run.checkpoint(position.step)})")
    # Values that the checkpoint does not contain are read from the log, which was cut back to it.
    records = read_metrics(components.run.metrics)
    hyper = components.method.hyper
    if components.method.component.after_update is not None and "unlearn/alpha" in records[-1]:
        hyper = hyper.model_copy(update={"alpha": records[-1]["unlearn/alpha"]})
    return _TrainState(position, saved_step=position.step, hyper=hyper, utility=records[0]["eval/utility"])


def _update(components: UnlearnComponents, train_state: _TrainState) -> Outcome:
    """One optimiser update, after which a dual variable is updated."""
    spec, engine = components.resolved.spec, components.engine
    rows = rows_of(components, train_state.position.step)
    micro = spec.method.microbatch if spec.method.reduction == "microbatch" else 0
    plan = plan_of(rows, "alternate" in components.needs, micro)
    step = UnlearnStep(
        method=Method(components.method.component, train_state.hyper),
        rows=rows,
        needs=components.needs,
        reference_head=components.reference_head,
        mean_row_d=components.mean_row_d,
        hook=components.hook,
        micro_total=sum(engine.gather([0 if plan is None else len(plan(engine.max_tokens))])) if micro else 0,
    )
    outcome = update_once(engine, step, plan)
    after = components.method.component.after_update
    if after is not None:
        train_state.hyper = after(train_state.hyper, outcome.means, train_state.position.step + 1)
    return outcome


def _update_metrics(components: UnlearnComponents, outcome: Outcome, train_state: _TrainState) -> dict[str, float]:
    """The metrics of one update; starts a new measurement of speed and memory."""
    update = outcome.update
    record = {"train/loss": update.loss, "train/grad_norm": update.grad_norm, "train/lr": update.lr}
    record["train/applied"] = float(update.applied)
    record |= {f"unlearn/{name}": mean for name, mean in outcome.means.items()} | dict(update.router)
    if components.method.component.after_update is not None:
        record["unlearn/alpha"] = train_state.hyper.model_dump()["alpha"]
    engine = components.engine
    return record | engine.usage.report(engine.gather, engine.max_tokens)


def _evaluate(components: UnlearnComponents, train_state: _TrainState) -> dict[str, float]:
    """Metrics on the validation half and the kept sets, and whether this is the best checkpoint so far.

    The best checkpoint is the one with the most forgetting among those within the utility budget.
    """
    start = time.perf_counter()
    kept_sets = {part: requests for part, requests in components.measured.items() if part != "holdout"}
    # Answers are decoded only for the utility: forgetting is a probability.
    scored = examine(components.subject, {"forget": components.validation, **kept_sets}, answered=kept_sets)
    metrics = validation_metrics([score.sample for score in scored])
    step, budget = train_state.position.step, components.resolved.spec.evaluation.utility_budget
    if step == 0:
        train_state.utility = metrics["eval/utility"]
    elif (
        metrics["eval/utility"] >= budget * train_state.utility
        and metrics["eval/forgetting"] > train_state.position.best_score
    ):
        train_state.position = replace(train_state.position, best_step=step, best_score=metrics["eval/forgetting"])
    return metrics | {
        "eval/best_step": train_state.position.best_step,
        "time/eval": round(time.perf_counter() - start, 4),
    }


def validation_metrics(samples: list[Sample]) -> dict[str, float]:
    """Aggregates under ``eval/``; ``forgetting`` is 1 - mean probability of the validation half's answers."""
    values: Mapping[str, float] = aggregates(samples)
    metrics = {f"eval/{name}": value for name, value in values.items()}
    metrics["eval/forgetting"] = 1 - values["forget_Q_A_Prob"]
    metrics["eval/utility"] = kept_utility(values)
    return metrics


def _checkpoint(components: UnlearnComponents, train_state: _TrainState) -> None:
    train_state.position = replace(train_state.position, metrics_bytes=components.recorder.offset)
    run, keep, position = components.run, components.resolved.spec.checkpoint.keep, train_state.position
    save_checkpoint(run.checkpoint(position.step), components.engine, position, keep, run)
    train_state.saved_step = train_state.position.step
