"""The tables and sentences of a report about a study's conditions."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rlx.compare.report.cells import (
    EMPTY,
    PLUS_MINUS,
    Grid,
    Text,
    level,
    p_clause,
    p_text,
    percent,
    points,
    row_name,
    score_text,
)
from rlx.compare.statistics.comparison import (
    MEAN_OVER_CONDITIONS,
    CollapseCount,
    Column,
    Comparison,
    MethodSummary,
    Survived,
    Tested,
)

DEFINITIONS = (
    "Area: mean height of the learning curve ({metric}) over the steps, averaged over conditions; {plus_minus} is half "
    "the width of Student's {level} interval over seeds, and differences are tested by Welch's t over seeds. A run "
    "collapses if it ends below its start or if its training fails; a failed run has the score 0, and its curve is 0 "
    "after its last evaluation. Shares have Clopper and Pearson's {level} intervals in brackets, in per cent. Numbers "
    "of collapsed runs are tested by exact permutations of seeds, each with its runs under all conditions. A method "
    "survives a condition if at least 7 of 8 of the planned seeds end above their start."
)


def condition_grids(comparison: Comparison) -> list[Grid]:
    """The summary across conditions, the collapsed runs, and the largest conditions survived."""
    if not comparison.summaries:
        return []
    return [_summary_grid(comparison), _collapse_grid(comparison), _survived_grid(comparison)]


def definitions(comparison: Comparison) -> str:
    """Explanation of the tables across conditions; empty in a study without conditions."""
    if not comparison.summaries:
        unmeasured = "No area, collapse or survival: not every finished run has a learning curve (evaluation.every)."
        return unmeasured if comparison.study.conditions else ""
    metric = comparison.summaries[0].metric
    return DEFINITIONS.format(metric=metric, plus_minus=PLUS_MINUS, level=level(comparison))


def _summary_grid(comparison: Comparison) -> Grid:
    benchmarks = list(dict.fromkeys(column.benchmark for column in comparison.columns))
    baseline = comparison.study.baseline
    header = (
        *("method", "complete seeds"),
        *(f"final score, {benchmark}" for benchmark in benchmarks),
        *("area", f"area against {baseline}", "p (Holm)", "collapsed runs"),
    )
    rows = []
    for summary in comparison.summaries:
        test = summary.area_test
        declared = test is not None and test.p_holm < comparison.study.alpha
        runs = sum(count.runs for count in summary.counts)
        rows.append(
            (
                Text(_name(comparison, summary)),
                Text(str(summary.seeds)),
                *(_final_score(comparison, summary, benchmark) for benchmark in benchmarks),
                Text(_area(summary)),
                Text(_difference(test) if test else EMPTY, bold=declared),
                Text(p_text(test.p_holm) if test else EMPTY, bold=declared),
                Text(f"{sum(count.collapsed for count in summary.counts)} of {runs}"),
            )
        )
    return Grid("Summary across conditions, %", header, tuple(rows))


def _final_score(comparison: Comparison, summary: MethodSummary, benchmark: str) -> Text:
    """The mean over conditions, or the score of the only condition."""
    several = len(comparison.study.conditions) > 1
    condition = MEAN_OVER_CONDITIONS if several else comparison.study.conditions[0].name
    return score_text(comparison, comparison.cell(Column(summary.model, benchmark, condition), summary.method))


def _area(summary: MethodSummary) -> str:
    if summary.area is None:
        return EMPTY
    if math.isnan(summary.area.low):
        return percent(summary.area.mean)
    return f"{percent(summary.area.mean)} {PLUS_MINUS} {percent(summary.area.half_width)}"


def _difference(test: Tested) -> str:
    if test.difference is None:
        return EMPTY
    return f"{points(test.difference.mean)} [{points(test.difference.low)}, {points(test.difference.high)}]"


def _collapse_grid(comparison: Comparison) -> Grid:
    names = list(dict.fromkeys(test.comparison for summary in comparison.summaries for test in summary.collapse_tests))
    conditions = [condition.name for condition in comparison.study.conditions]
    header = ("method", *conditions, "seeds with a collapse", *(f"p (Holm) {name}" for name in names))
    rows = []
    for summary in comparison.summaries:
        tests = {test.comparison: test for test in summary.collapse_tests}
        shown = [tests.get(name) for name in names]
        rows.append(
            (
                Text(_name(comparison, summary)),
                *(Text(_collapsed(count)) for count in summary.counts),
                Text(_share(summary.seeds_collapsed, summary.seeds, summary.seeds_interval)),
                *(
                    Text(p_text(test.p_holm), bold=test.p_holm < comparison.study.alpha) if test else Text(EMPTY)
                    for test in shown
                ),
            )
        )
    return Grid("Collapsed runs", header, tuple(rows))


def _collapsed(count: CollapseCount) -> str:
    parts = [_share(count.collapsed, count.runs, count.interval)] if count.runs else []
    parts += [
        f"{number} {name}" for number, name in ((count.failed, "failed"), (count.unfinished, "unfinished")) if number
    ]
    return ", ".join(parts) or EMPTY


def _survived_grid(comparison: Comparison) -> Grid:
    several = any(survived.at for summary in comparison.summaries for survived in summary.survived)
    header = ("method", "axis", *(["at"] if several else []), "largest survived", "above start", "next", "above start")
    rows = [
        (
            Text(_name(comparison, summary)),
            Text(survived.axis),
            *([Text(survived.at)] if several else []),
            Text(_largest(survived), bold=survived.value is not None),
            Text(_above(survived.count)),
            Text(survived.next_value or EMPTY),
            Text(_above(survived.next_count)),
        )
        for summary in comparison.summaries
        for survived in summary.survived
    ]
    return Grid("Largest condition survived", header, tuple(rows))


def _largest(survived: Survived) -> str:
    if survived.value is None:
        return "none"
    return survived.value + (f" (but not {', '.join(survived.failed_below)})" if survived.failed_below else "")


def _above(count: CollapseCount | None) -> str:
    if count is None or not count.runs:
        return EMPTY
    return _share(count.above, count.runs, count.above_interval) + (
        f", {count.unfinished} unfinished" if count.unfinished else ""
    )


def _share(count: int, total: int, interval: tuple[float, float]) -> str:
    """A count with the interval of its share in per cent: ``4/8 [16, 84]``."""
    low, high = (100 * bound for bound in interval)
    return f"{count}/{total} [{low:.0f}, {high:.0f}]" if total else EMPTY


def summary_conclusions(comparison: Comparison) -> tuple[str, ...]:
    """Sentences about declared differences in area and in the number of collapsed runs."""
    return tuple(
        sentence for summary in comparison.summaries for sentence in _summary_conclusions(comparison, summary)
    ) + tuple(_undeclared_collapse(comparison))


def _summary_conclusions(comparison: Comparison, summary: MethodSummary) -> Iterator[str]:
    name, alpha = _name(comparison, summary), comparison.study.alpha
    area = summary.area_test
    if area is not None and area.difference is not None and area.p_holm < alpha:
        size = "a larger" if area.difference.mean > 0 else "a smaller"
        yield (
            f"{name} has {size} area under the learning curve than {comparison.study.baseline}, mean over conditions: "
            f"{_difference(area)} points, {p_clause(area.p_holm)} after Holm."
        )
    for test in summary.collapse_tests:
        if test.p_holm < alpha:
            than = test.comparison.removeprefix("against ")
            than = "all other methods together" if than == "all others" else than
            runs = sum(count.runs for count in summary.counts)
            yield (
                f"{name} collapses {'more' if test.more else 'less'} often than {than}: "
                f"{sum(count.collapsed for count in summary.counts)} of {runs} runs, in "
                f"{_share(summary.seeds_collapsed, summary.seeds, summary.seeds_interval)} % of seeds at least one, "
                f"{p_clause(test.p_holm)} after Holm."
            )


def _undeclared_collapse(comparison: Comparison) -> Iterator[str]:
    tests = [test for summary in comparison.summaries for test in summary.collapse_tests]
    if tests and all(test.p_holm >= comparison.study.alpha for test in tests):
        yield "The methods are not distinguishable in the number of collapsed runs; the table has the intervals."


def summary_values(summary: MethodSummary) -> Iterator[tuple[str, float, str]]:
    """The numbers of a summary: name, value and condition, which is empty for values over all conditions."""
    yield "complete_seeds", summary.seeds, ""
    if summary.area is not None:
        bounds = {"area": summary.area.mean, "area_low": summary.area.low, "area_high": summary.area.high}
        yield from ((name, value, "") for name, value in bounds.items())
    for count in summary.counts:
        numbers: dict[str, float] = {"runs": count.runs, "collapsed": count.collapsed, "failed": count.failed}
        numbers |= {"above": count.above, "unfinished": count.unfinished, "survived": float(count.survived)}
        numbers |= {"collapsed_low": count.interval[0], "collapsed_high": count.interval[1]}
        yield from ((name, value, count.condition) for name, value in numbers.items())
    yield "seeds_collapsed", summary.seeds_collapsed, ""
    if summary.area_test is not None and summary.area_test.difference is not None:
        difference, test = summary.area_test.difference, summary.area_test
        yield from (("area_difference", difference.mean, ""), ("area_difference_low", difference.low, ""))
        yield from (("area_difference_high", difference.high, ""), ("area_p_holm", test.p_holm, ""))
    for test in summary.collapse_tests:
        name = test.comparison.replace(" ", "_")
        yield from ((f"collapse_p_{name}", test.p, ""), (f"collapse_p_holm_{name}", test.p_holm, ""))


def _name(comparison: Comparison, summary: MethodSummary) -> str:
    several = len({other.model for other in comparison.summaries}) > 1
    name = row_name(comparison, summary.method)
    return f"{name} ({summary.model})" if several else name
