"""The unlearning loop: update, log, evaluate, checkpoint."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from rlx.benchmarks.tofu.scores import Sample, aggregates, kept_utility
from rlx.engine.checkpoint import Position, latest_checkpoint, load_checkpoint, save_checkpoint
from rlx.registry import Hyper, Method
from rlx.runs.tracking import read_metrics
from rlx.unlearning.components import UnlearnComponents, rows_of
from rlx.unlearning.measures import examine
from rlx.unlearning.update import Outcome, UnlearnStep, plan_of, update_once


@dataclass(slots=True)
class _TrainState:
    """Where the run stands."""

    position: Position
    saved_step: int
    hyper: Hyper
    """The method's parameters; a dual variable among them moves."""
    utility: float = 0.0
    """The original model's."""


def unlearn(parts: UnlearnComponents) -> bool:
    """Train until the last update; goes on from the newest checkpoint.

    forget and retain rows -> terms -> optimiser update -> (each epoch) evaluate -> log -> checkpoint

    Returns:
        True when training is complete, False when it was asked to stop and has written a checkpoint.
    """
    spec, engine = parts.resolved.spec, parts.engine
    total, an_epoch = spec.epochs * parts.updates_an_epoch, parts.updates_an_epoch
    train_state = _start(parts)
    if train_state.position.step == 0:
        parts.recorder.write({"step": 0, **_evaluated(parts, train_state)})
    while train_state.position.step < total and not engine.agree(parts.stop.requested):
        began = time.perf_counter()
        outcome = _update(parts, train_state)
        step = train_state.position.step + 1
        train_state.position = replace(train_state.position, step=step, updates=engine.updates, skipped=engine.skipped)
        record = {"step": step, **_figures(parts, outcome, train_state)}
        due = step % (an_epoch * spec.evaluation.every) == 0 or step == total
        record |= _evaluated(parts, train_state) if due else {}
        parts.recorder.write(record | {"time/step": round(time.perf_counter() - began, 4)})
        if step % spec.checkpoint.every == 0 or step in (train_state.position.best_step, total):
            _checkpoint(parts, train_state)
    if train_state.saved_step < train_state.position.step:
        _checkpoint(parts, train_state)
    return train_state.position.step == total


def _start(parts: UnlearnComponents) -> _TrainState:
    """The newest checkpoint's state, or the beginning's."""
    newest = latest_checkpoint(parts.run.checkpoints)
    if newest is None:
        parts.recorder.rewind(0)
        position = Position(step=0, updates=0, skipped=0, metrics_bytes=0)
        return _TrainState(position, saved_step=0, hyper=parts.method.hyper)
    position = load_checkpoint(newest, parts.engine)
    parts.recorder.rewind(position.metrics_bytes)
    parts.recorder.note(f"going on from update {position.step} ({newest})")
    # What the checkpoint does not hold follows from the log that it was cut back to.
    records = read_metrics(parts.run.metrics)
    hyper = parts.method.hyper
    if parts.method.component.after_update is not None and "unlearn/alpha" in records[-1]:
        hyper = hyper.model_copy(update={"alpha": records[-1]["unlearn/alpha"]})
    return _TrainState(position, saved_step=position.step, hyper=hyper, utility=records[0]["eval/utility"])


def _update(parts: UnlearnComponents, train_state: _TrainState) -> Outcome:
    """One optimiser update, and what it makes of a dual variable."""
    spec, engine = parts.resolved.spec, parts.engine
    rows = rows_of(parts, train_state.position.step)
    micro = spec.method.microbatch if spec.method.reduction == "microbatch" else 0
    plan = plan_of(rows, spec.batch.max_tokens, "alternate" in parts.needs, micro)
    step = UnlearnStep(
        method=Method(parts.method.component, train_state.hyper),
        rows=rows,
        needs=parts.needs,
        reference_head=parts.reference_head,
        mean_row_d=parts.mean_row_d,
        tap=parts.tap,
        micro_total=sum(engine.gather([len(plan or [])])) if micro else 0,
    )
    outcome = update_once(engine, step, plan)
    after = parts.method.component.after_update
    if after is not None:
        train_state.hyper = after(train_state.hyper, outcome.means, train_state.position.step + 1)
    return outcome


def _figures(parts: UnlearnComponents, outcome: Outcome, train_state: _TrainState) -> dict[str, float]:
    """One update's record."""
    update = outcome.update
    record = {"train/loss": update.loss, "train/grad_norm": update.grad_norm, "train/lr": update.lr}
    record["train/applied"] = float(update.applied)
    record |= {f"unlearn/{name}": mean for name, mean in outcome.means.items()} | dict(update.router)
    if parts.method.component.after_update is not None:
        record["unlearn/alpha"] = train_state.hyper.model_dump()["alpha"]
    return record


def _evaluated(parts: UnlearnComponents, train_state: _TrainState) -> dict[str, float]:
    """Metrics on the validation half and the kept sets, and whether this is the best checkpoint so far.

    The best is the one that has forgotten most among those within the utility budget.
    """
    start = time.perf_counter()
    kept = {part: requests for part, requests in parts.measured.items() if part != "holdout"}
    scored = examine(parts.subject, {"forget": parts.validation, **kept})
    figures = validation_figures([one.sample for one in scored])
    step, budget = train_state.position.step, parts.resolved.spec.evaluation.utility_budget
    if step == 0:
        train_state.utility = figures["eval/utility"]
    elif (
        figures["eval/utility"] >= budget * train_state.utility
        and figures["eval/forgetting"] > train_state.position.best_score
    ):
        train_state.position = replace(train_state.position, best_step=step, best_score=figures["eval/forgetting"])
    return figures | {
        "eval/best_step": train_state.position.best_step,
        "time/eval": round(time.perf_counter() - start, 4),
    }


def validation_figures(samples: list[Sample]) -> dict[str, float]:
    """Aggregates under ``eval/``; ``forgetting`` is 1 - mean probability of the validation half's answers."""
    found: Mapping[str, float] = aggregates(samples)
    figures = {f"eval/{name}": value for name, value in found.items()}
    figures["eval/forgetting"] = 1 - found["forget_Q_A_Prob"]
    figures["eval/utility"] = kept_utility(found)
    return figures


def _checkpoint(parts: UnlearnComponents, train_state: _TrainState) -> None:
    train_state.position = replace(train_state.position, metrics_bytes=parts.recorder.offset)
    keep = parts.resolved.spec.checkpoint.keep
    save_checkpoint(parts.run.checkpoint(train_state.position.step), parts.engine, train_state.position, keep)
    train_state.saved_step = train_state.position.step
