"""The sentences and tables of a report, which all formats share."""

from __future__ import annotations

from rlx.benchmarks.summary import FEW
from rlx.compare.report.cells import (
    EMPTY,
    PLUS_MINUS,
    Grid,
    Text,
    benchmark_name,
    column_name,
    level,
    p_clause,
    p_text,
    percent,
    plural,
    points,
    row_name,
    score_text,
)
from rlx.compare.statistics.comparison import MEAN_OVER_CONDITIONS, SEEDS_FOR_METHODS, Column, Comparison, Pair
from rlx.compare.statistics.significance import SIGN_FLIP_MAX_PROBLEMS

TOO_FEW = 6
"""With fewer problems a bootstrap interval is too narrow to be reliable, and Student's is too wide to be useful."""
UNLEARNING_METRICS = (
    "Forgetting: 1 - probability of the forgotten answers. 1 - extraction: 1 - extraction strength. Withstands: 1 - "
    "share of the lost knowledge that the attack recovers; above 100 the attacked model recalls less than the "
    "reference level (the retain model under the same attack or, if there is none, the unlearned model without the "
    "attack). These metrics are measured on the final half of the forget set, which is not used to select "
    "checkpoints. Utility: harmonic mean over the sets that must be kept (retain, real authors, world facts), with a "
    "linearised error. Each run is shown at the checkpoint that forgets most within the utility budget on the "
    "validation half. On the Pareto front: no other method is declared better in forgetting or utility and is no "
    "worse in the other."
)
"""Explanation of the metrics of `rlx unlearn`, part of the caption."""


def scores_grid(comparison: Comparison) -> Grid:
    """The score of every method on every benchmark, with published scores in grey."""
    with_published = [c for c in comparison.columns if any(comparison.published(c, m) for m in comparison.methods)]
    header: list[str] = ["method", "seeds"]
    for column in comparison.columns:
        header += [_score_header(comparison, column), *(["paper"] if column in with_published else [])]
    rows = []
    for method in comparison.methods:
        row = [Text(row_name(comparison, method)), Text(_seed_count(comparison, method))]
        for column in comparison.columns:
            row.append(score_text(comparison, comparison.cell(column, method)))
            if column in with_published:
                published = comparison.published(column, method)
                row.append(Text(percent(published.value) if published else EMPTY, grey=True))
        rows.append(tuple(row))
    title = "Score, %" if any(cell.linearised for cell in comparison.cells) else "Mean score, %"
    return Grid(title, tuple(header), tuple(rows))


def pairs_grids(comparison: Comparison) -> list[Grid]:
    """One table per condition, with their mean first; one table for a study without conditions."""
    names = list(dict.fromkeys(pair.column.condition for pair in comparison.pairs))
    names.sort(key=lambda name: name != MEAN_OVER_CONDITIONS)
    return [pairs_grid(comparison, name) for name in names]


def pairs_grid(comparison: Comparison, condition: str = "") -> Grid:
    """Every method against the baseline: difference, interval, tests, problems won, and the detectable difference."""
    header = (
        f"against {comparison.study.baseline}",
        _benchmark_header(comparison),
        "difference",
        f"{level(comparison)} interval",
        "p (Holm)",
        "verdict",
        "detectable",
        "won/lost/tied",
        "p",
        "p (Welch)",
    )
    rows = [
        (
            Text(row_name(comparison, pair.method)),
            Text(benchmark_name(comparison, pair.column)),
            Text(points(pair.difference.mean), bold=pair.verdict != "not distinguishable"),
            Text(f"[{points(pair.difference.low)}, {points(pair.difference.high)}]"),
            Text(p_text(pair.p_holm)),
            Text(pair.verdict, bold=pair.verdict != "not distinguishable"),
            Text(_detectable(pair.detectable)),
            Text(EMPTY if pair.won is None else "/".join(map(str, pair.won))),
            Text(p_text(pair.p)),
            Text(EMPTY if pair.p_welch is None else p_text(pair.p_welch)),
        )
        for pair in comparison.pairs
        if pair.column.condition == condition
    ]
    at = f" of the {condition}" if condition == MEAN_OVER_CONDITIONS else f" at {condition}" if condition else ""
    return Grid(f"Differences{at}, percentage points", header, tuple(rows))


def _detectable(difference: float) -> str:
    if difference > 1:
        return "> 100"
    return percent(difference) if difference else EMPTY


def flips_grid(comparison: Comparison) -> Grid:
    """The problems on which the methods of each pair differ most."""
    unit = comparison.study.unit
    header = (unit[:-1], _benchmark_header(comparison), "method", "its score", comparison.study.baseline)
    rows = [
        (
            Text(flip.problem_id),
            Text(column_name(comparison, pair.column)),
            Text(row_name(comparison, pair.method)),
            Text(percent(flip.method)),
            Text(percent(flip.baseline)),
        )
        for pair in comparison.pairs
        for flip in pair.flipped
    ]
    return Grid(f"{unit.capitalize()} that differ most, %", header, tuple(rows))


def question(comparison: Comparison) -> str:
    """Sentence that says whether the data compare these checkpoints or these methods."""
    questions = {pair.question for pair in comparison.pairs}
    fewest = min((len(cell.seeds) for cell in comparison.cells), default=0)
    if questions == {"methods"}:
        return f"This compares methods: each was trained with {fewest} seeds or more."
    if questions == {"methods", "checkpoints"}:
        return (
            f"Rows with {SEEDS_FOR_METHODS} seeds or more on both sides compare methods; the others compare these "
            "checkpoints only, and another training run may give another result."
        )
    return (
        f"This compares checkpoints, not methods: with fewer than {SEEDS_FOR_METHODS} training seeds "
        f"(here {fewest}) the variation between training runs is unknown."
    )


def conclusions(comparison: Comparison) -> tuple[str, ...]:
    """One sentence per pair, which claims no more than its test shows.

    In a study with conditions: the pairs of the means over conditions, the declared pairs of single conditions, and the
    number of the others.
    """
    single = [pair for pair in comparison.pairs if pair.column.condition not in ("", MEAN_OVER_CONDITIONS)]
    undeclared = [pair for pair in single if pair.verdict == "not distinguishable"]
    left_out = {id(pair) for pair in undeclared}
    sentences = [_conclusion(comparison, pair) for pair in comparison.pairs if id(pair) not in left_out]
    if undeclared:
        sentences.append(
            f"Under single conditions {len(undeclared)} of {plural(len(single), 'comparison')} are not "
            "distinguishable; their intervals and detectable differences are in the tables."
        )
    return tuple(sentences)


def _conclusion(comparison: Comparison, pair: Pair) -> str:
    names = [row_name(comparison, name) for name in (pair.method, pair.baseline)]
    if pair.question == "checkpoints":
        names = [f"the checkpoint{'s' if '(2 seeds)' in name else ''} {name}" for name in names]
    on_benchmark = f"on {column_name(comparison, pair.column)}"
    interval = f"[{points(pair.difference.low)}, {points(pair.difference.high)}]"
    if pair.verdict == "not distinguishable" and pair.detectable == 0.0:
        unit = comparison.study.unit[:-1]
        return f"{names[0]} and {names[1]} are not distinguishable {on_benchmark}: they agree on every {unit}."
    if pair.verdict == "not distinguishable":
        detectable = f"a difference of {percent(pair.detectable)} points would have been detected four times in five"
        if pair.detectable > 1:
            detectable = "even a difference of 100 points would not have been detected four times in five"
        return (
            f"{names[0]} and {names[1]} are not distinguishable {on_benchmark}: {points(pair.difference.mean)} points "
            f"{interval}, {p_clause(pair.p_holm)} after Holm; {detectable}."
        )
    relation = "scores higher than" if pair.verdict == "better" else "scores lower than"
    if pair.question == "methods":
        relation = "is better than" if pair.verdict == "better" else "is worse than"
    return (
        f"{names[0]} {relation} {names[1]} {on_benchmark}: {points(pair.difference.mean)} points {interval}, "
        f"{p_clause(pair.p_holm)} after Holm."
    )


def caption(comparison: Comparison) -> str:
    """Explanation of the numbers: the tests, the correction, the significance level, and the meaning of +-."""
    coverage, unit = level(comparison), comparison.study.unit
    intervals = []
    if any(len(cell.seeds) > 1 for cell in comparison.cells):
        intervals.append(f"with several seeds a {coverage} two-level bootstrap interval (training seeds, then {unit})")
    if any(len(cell.seeds) == 1 for cell in comparison.cells):
        intervals.append(f"with one seed Student's {coverage} interval over {unit}")
    tests = {
        "seeds and problems": f"Student's t with Welch's error over seed means and the {unit}' own variance "
        "(Satterthwaite's degrees of freedom)",
        "sign flips": f"sign flips of the differences by {unit[:-1]} (up to {SIGN_FLIP_MAX_PROBLEMS} {unit})",
        "paired t": f"the paired t test over {unit}",
    }
    used = [text for name, text in tests.items() if any(pair.test == name for pair in comparison.pairs)]
    parts = [
        f"{PLUS_MINUS} is half the width of the interval: {'; '.join(intervals)}.",
        f"Differences are tested by {'; '.join(used)}; two-sided, Holm's correction over {_family(comparison)}, level "
        f"{comparison.study.alpha:g}."
        if used
        else "Nothing is tested: there is only one method.",
        "Bold: not distinguishable from the column's best, neither by these comparisons nor by the same tests of "
        f"{plural(comparison.ranking_tests, 'pair')} (Holm); several bold cells are a tie."
        if len(comparison.methods) > 1
        else "",
        "Detectable: the smallest difference that is detected with 80 % power at Holm's strictest step."
        if used
        else "",
        "Welch's p is the test over seed means alone." if any(p.p_welch is not None for p in comparison.pairs) else "",
        UNLEARNING_METRICS if unit == "authors" else "",
        *(f"Grey: {source}; not tested." for source in _sources(comparison)),
    ]
    return " ".join(part for part in parts if part)


def _family(comparison: Comparison) -> str:
    """The tests that Holm's correction covers."""
    against = f"{plural(len(comparison.pairs), 'comparison')} with {comparison.study.baseline}"
    if not comparison.study.conditions:
        return against
    total = plural(len(comparison.pairs) + comparison.summary_tests, "test")
    return f"{total}: {against} (all conditions and their mean) and {comparison.summary_tests} of areas and collapses"


def cautions(comparison: Comparison) -> tuple[str, ...]:
    """Warnings: differing protocols, missing runs, runs outside the utility budget, too few problems."""
    warnings = []
    if comparison.study.mismatched:
        fields = ", ".join(comparison.study.mismatched)
        warnings.append(f"PROTOCOLS DIFFER in {fields}: these scores were measured with different protocols (--force).")
    failed = {run.run_id for run in comparison.study.runs if run.failed}
    warnings += [
        f"failed: {run} ({why}); it counts as collapsed, with the score 0."
        if run in failed
        else f"missing: {run} ({why})."
        for run, why in sorted(comparison.study.missing.items())
    ]
    warnings += [
        f"{run.run_id}: no checkpoint kept {run.unlearned.budget:.0%} of the original's utility; the last one is shown."
        for run in comparison.study.runs
        if run.unlearned and not run.unlearned.within_budget
    ]
    small: dict[int, list[str]] = {}
    for column, ids in comparison.problem_ids.items():
        if len(ids) < FEW:
            names = small.setdefault(len(ids), [])
            names += [name for name in [benchmark_name(comparison, column)] if name not in names]
    warnings += [
        f"{', '.join(names)} {'has' if len(names) == 1 else 'have'} only {size} {comparison.study.unit}: "
        + ("intervals are wide." if size >= TOO_FEW else "no interval over so few can be trusted.")
        for size, names in small.items()
    ]
    return tuple(warnings)


def _score_header(comparison: Comparison, column: Column) -> str:
    """The condition alone if all columns have the same benchmark and model, else the complete name."""
    single = len({(other.model, other.benchmark) for other in comparison.columns}) == 1
    return column.condition if column.condition and single else column_name(comparison, column)


def _seed_count(comparison: Comparison, method: str) -> str:
    counts = sorted({len(cell.seeds) for cell in comparison.cells if cell.method == method})
    return "-".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))


def _sources(comparison: Comparison) -> list[str]:
    shown = {(column.benchmark, method) for column in comparison.columns for method in comparison.methods}
    return sorted({score.source for score in comparison.study.published if (score.benchmark, score.method) in shown})


def _benchmark_header(comparison: Comparison) -> str:
    return "metric" if comparison.study.unit == "authors" else "benchmark"
