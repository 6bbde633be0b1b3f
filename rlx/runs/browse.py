"""Selections from the stored samples of a run: the worst, the best, and prompts whose reward changed between steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rlx.errors import UserError
from rlx.runs.folder import RunDir
from rlx.runs.integrity import Damaged
from rlx.runs.samples import Row, read_samples


@dataclass(frozen=True, slots=True)
class Change:
    """The samples of one prompt at two times.

    Example:
        ``Change("47+85=", before=[row, row], after=[row, row], difference=0.5)``
    """

    prompt: str
    before: list[Row]
    after: list[Row]
    difference: float
    """Mean value of the later samples minus that of the earlier ones."""


@dataclass(frozen=True, slots=True)
class SampleColumns:
    """The columns of samples.parquet that are shown; training and unlearning have different ones.

    Example:
        ``SampleColumns(value="reward", prompt="prompt", text="response", time="step")``
    """

    value: str
    """What samples are ordered by."""
    prompt: str
    text: str
    time: str


TRAIN = SampleColumns("reward", "prompt", "response", "step")
UNLEARN = SampleColumns("rouge_l_recall", "id", "generation", "model")


def stored_samples(run: RunDir) -> tuple[list[Row], SampleColumns]:
    """The samples of a run in the order of their steps, and their columns.

    Raises:
        UserError: when there are none, or a part file is damaged.
    """
    rows: list[Row] = []
    try:
        for part in run.sample_parts():
            rows += read_samples(part)
    except Damaged as damage:
        raise UserError(f"samples of {run.run_id}: {damage}", fix=f"see rlx runs check {run.run_id}") from None
    if not rows:
        raise UserError(
            f"run {run.run_id} has no stored samples yet",
            fix="training writes them with each checkpoint, for tracker.sample_prompts prompts a step (0 turns it off)",
        )
    columns = TRAIN if TRAIN.value in rows[0] else UNLEARN
    if columns is UNLEARN:
        rows = [row for row in rows if row["part"] == "forget" and row["model"] != "retain"]
    return rows, columns


def extremes(rows: Sequence[Row], columns: SampleColumns, count: int) -> tuple[list[Row], list[Row]]:
    """The samples with the lowest and with the highest values, of each prompt at most one, newer ones first."""
    value = _value(columns)
    newest = list(reversed(rows))
    lowest = _one_a_prompt(sorted(newest, key=value), columns)
    highest = _one_a_prompt(sorted(newest, key=value, reverse=True), columns)
    return lowest[:count], highest[:count]


def changes(rows: Sequence[Row], columns: SampleColumns, count: int) -> list[Change]:
    """Prompts that were sampled at several times, the largest change of the mean value between first and last first."""
    value = _value(columns)
    by_prompt: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        times = by_prompt.setdefault(str(row[columns.prompt]), {})
        times.setdefault(str(row[columns.time]), []).append(row)
    result = []
    for prompt, times in by_prompt.items():
        before, *_, after = times.values() if len(times) > 1 else ([], [])
        if before and after:
            means = [sum(value(row) for row in part) / len(part) for part in (before, after)]
            result.append(Change(prompt, before, after, means[1] - means[0]))
    changed = [change for change in result if change.difference]
    return sorted(changed, key=lambda change: -abs(change.difference))[:count]


def _value(columns: SampleColumns) -> Callable[[Row], float]:
    return lambda row: float(row[columns.value] or 0)


def _one_a_prompt(rows: Sequence[Row], columns: SampleColumns) -> list[Row]:
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(str(row[columns.prompt]), row)
    return list(first.values())
