"""A comparison in words and in cells of text: the same ones in every rendering."""

from __future__ import annotations

from dataclasses import dataclass

from rlx.benchmarks.summary import FEW
from rlx.compare.statistics.analysis import SEEDS_FOR_METHODS
from rlx.compare.statistics.comparison import Cell, Column, Comparison, Pair
from rlx.compare.statistics.significance import SIGN_FLIPS_UP_TO, Interval

PLUS_MINUS = "\u00b1"
NOTHING = "-"
TOO_FEW = 6
"""Below so many problems a bootstrap's interval is too narrow to be believed, and Student's too wide to be of use."""
UNLEARNING = (
    "Forgetting: 1 - probability of the forgotten answers. 1 - extraction: 1 - extraction strength. Withstands: 1 - "
    "share of the lost knowledge that the attack brings back; over 100 the model says less than its yardstick under "
    "the same attack. These are measured on the final half of the forget set, by which no checkpoint was chosen. "
    "Utility: harmonic mean over the kept sets, its error linearised. Each run shows the checkpoint that forgot most "
    "within the utility budget on the validation half. On the front: no other method is declared better in forgetting "
    "or utility and is no worse in the other."
)


@dataclass(frozen=True, slots=True)
class Text:
    """One cell of a table.

    Example:
        ``Text("41.2 \u00b1 3.1", bold=True)``
    """

    text: str
    bold: bool = False
    grey: bool = False
    """A published value, shown and not tested."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A table of text; the first column is left-aligned, the others right-aligned."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Text, ...], ...]


def scores_grid(comparison: Comparison) -> Grid:
    """Methods against benchmarks, with published values in grey."""
    printed = [c for c in comparison.columns if any(comparison.published(c, m) for m in comparison.methods)]
    header: list[str] = ["method", "seeds"]
    for column in comparison.columns:
        header += [column_name(comparison, column), *(["paper"] if column in printed else [])]
    rows = []
    for method in comparison.methods:
        row = [Text(row_name(comparison, method)), Text(_seeds(comparison, method))]
        for column in comparison.columns:
            row.append(score_text(comparison, comparison.cell(column, method)))
            if column in printed:
                published = comparison.published(column, method)
                row.append(Text(percent(published.value) if published else NOTHING, grey=True))
        rows.append(tuple(row))
    title = "Score, %" if any(cell.linearised for cell in comparison.cells) else "Mean score, %"
    return Grid(title, tuple(header), tuple(rows))


def pairs_grid(comparison: Comparison) -> Grid:
    """Every method against the baseline: difference, interval, tests, problems won, and what could have been found."""
    header = (
        f"against {comparison.study.baseline}",
        _column_header(comparison),
        "difference",
        f"{_level(comparison)} interval",
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
            Text(column_name(comparison, pair.column)),
            Text(points(pair.difference.mean), bold=pair.verdict != "not distinguishable"),
            Text(f"[{points(pair.difference.low)}, {points(pair.difference.high)}]"),
            Text(p_text(pair.p_holm)),
            Text(pair.verdict, bold=pair.verdict != "not distinguishable"),
            Text(_detectable(pair.detectable)),
            Text(NOTHING if pair.won is None else "/".join(map(str, pair.won))),
            Text(p_text(pair.p)),
            Text(NOTHING if pair.p_welch is None else p_text(pair.p_welch)),
        )
        for pair in comparison.pairs
    ]
    return Grid("Differences, percentage points", header, tuple(rows))


def _detectable(difference: float) -> str:
    if difference > 1:
        return "> 100"
    return percent(difference) if difference else NOTHING


def flips_grid(comparison: Comparison) -> Grid:
    """The problems on which each pair differs most."""
    unit = comparison.study.unit
    header = (unit[:-1], _column_header(comparison), "method", "its score", comparison.study.baseline)
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
    """Which question the data answer: about these checkpoints, or about these methods."""
    kinds = {pair.question for pair in comparison.pairs}
    fewest = min((len(cell.seeds) for cell in comparison.cells), default=0)
    if kinds == {"methods"}:
        return f"This compares methods: every one was trained with {fewest} seeds or more."
    if kinds == {"methods", "checkpoints"}:
        return (
            f"Rows with {SEEDS_FOR_METHODS} seeds or more on both sides compare methods; the others compare these "
            "checkpoints only and say nothing about training again."
        )
    return (
        f"This compares checkpoints, not methods: with fewer than {SEEDS_FOR_METHODS} training seeds "
        f"(here {fewest}) nobody knows what training again would give."
    )


def conclusions(comparison: Comparison) -> tuple[str, ...]:
    """One sentence a pair, saying no more than its test does."""
    return tuple(_conclusion(comparison, pair) for pair in comparison.pairs)


def _conclusion(comparison: Comparison, pair: Pair) -> str:
    names = [row_name(comparison, name) for name in (pair.method, pair.baseline)]
    if pair.question == "checkpoints":
        names = [f"the checkpoint{'s' if '(2 seeds)' in name else ''} {name}" for name in names]
    where = f"on {column_name(comparison, pair.column)}"
    spread = f"[{points(pair.difference.low)}, {points(pair.difference.high)}]"
    if pair.verdict == "not distinguishable" and pair.detectable == 0.0:
        unit = comparison.study.unit[:-1]
        return f"{names[0]} and {names[1]} are not distinguishable {where}: they agree on every {unit}."
    if pair.verdict == "not distinguishable":
        least = f"a difference of {percent(pair.detectable)} points would have been found four times in five"
        if pair.detectable > 1:
            least = "there is too little to find even a difference of 100 points four times in five"
        return (
            f"{names[0]} and {names[1]} are not distinguishable {where}: {points(pair.difference.mean)} points "
            f"{spread}, {_p_clause(pair.p_holm)} after Holm; {least}."
        )
    beats = "scores higher than" if pair.verdict == "better" else "scores lower than"
    if pair.question == "methods":
        beats = "is better than" if pair.verdict == "better" else "is worse than"
    return (
        f"{names[0]} {beats} {names[1]} {where}: {points(pair.difference.mean)} points {spread}, "
        f"{_p_clause(pair.p_holm)} after Holm."
    )


def caption(comparison: Comparison) -> str:
    """Test, correction, level, and what +- means."""
    level, unit = _level(comparison), comparison.study.unit
    many = any(len(cell.seeds) > 1 for cell in comparison.cells)
    one = any(len(cell.seeds) == 1 for cell in comparison.cells)
    spreads = []
    if many:
        spreads.append(f"with several seeds a {level} two-level bootstrap interval (training seeds, then {unit})")
    if one:
        spreads.append(f"with one seed Student's {level} interval over {unit}")
    tests = {
        "seeds and problems": f"Student's t with Welch's error over seed means and the {unit}' own variance "
        "(Satterthwaite's degrees of freedom)",
        "sign flips": f"sign flips of the differences by {unit[:-1]} (up to {SIGN_FLIPS_UP_TO} {unit})",
        "paired t": f"the paired t test over {unit}",
    }
    used = [text for name, text in tests.items() if any(pair.test == name for pair in comparison.pairs)]
    parts = [
        f"{PLUS_MINUS} is half of: {'; '.join(spreads)}.",
        f"Differences are tested by {'; '.join(used)}; two-sided, Holm's correction over "
        f"{_counted(len(comparison.pairs), 'comparison')} with {comparison.study.baseline}, level "
        f"{comparison.study.alpha:g}."
        if used
        else "Nothing is tested: there is only one method.",
        "Bold: not distinguishable from the column's best, neither by these comparisons nor by the same tests of "
        f"{_counted(comparison.ranked, 'pair')} (Holm); several bold cells are a tie."
        if len(comparison.methods) > 1
        else "",
        "Detectable: the smallest difference found with 80 % power at Holm's strictest step." if used else "",
        "Welch's p is the test over seed means alone." if any(p.p_welch is not None for p in comparison.pairs) else "",
        UNLEARNING if unit == "authors" else "",
        *(f"Grey: {source}; not tested." for source in _sources(comparison)),
    ]
    return " ".join(part for part in parts if part)


def cautions(comparison: Comparison) -> tuple[str, ...]:
    """What a reader must know before believing the table."""
    sentences = []
    if comparison.study.mismatched:
        fields = ", ".join(comparison.study.mismatched)
        sentences.append(f"PROTOCOLS DIFFER in {fields}: these scores were not measured alike (--force).")
    sentences += [f"missing: {run} ({why})." for run, why in sorted(comparison.study.missing.items())]
    sentences += [
        f"{run.run_id}: no checkpoint kept {run.unlearned.budget:.0%} of the original's utility; its last one is shown."
        for run in comparison.study.runs
        if run.unlearned and not run.unlearned.within_budget
    ]
    small: dict[int, list[str]] = {}
    for column, ids in comparison.problem_ids.items():
        if len(ids) < FEW:
            small.setdefault(len(ids), []).append(column_name(comparison, column))
    sentences += [
        f"{', '.join(names)} {'has' if len(names) == 1 else 'have'} only {size} {comparison.study.unit}: "
        + ("intervals are wide." if size >= TOO_FEW else "no interval over so few can be trusted.")
        for size, names in small.items()
    ]
    return tuple(sentences)


def _column_header(comparison: Comparison) -> str:
    return "figure" if comparison.study.unit == "authors" else "benchmark"


def row_name(comparison: Comparison, method: str) -> str:
    """The method's name, with its seeds where there are too few to speak of a method."""
    seeds = sorted({cell.seeds for cell in comparison.cells if cell.method == method}, key=len)
    if not seeds or len(seeds[0]) >= SEEDS_FOR_METHODS:
        return method
    return f"{method} (seed {seeds[0][0]})" if len(seeds[0]) == 1 else f"{method} ({len(seeds[0])} seeds)"


def column_name(comparison: Comparison, column: Column) -> str:
    """The benchmark, with the model where there are several."""
    several = len({other.model for other in comparison.columns}) > 1
    return f"{column.model} {column.benchmark}" if several else column.benchmark


def score_text(comparison: Comparison, cell: Cell | None) -> Text:
    """A score with half its interval, bold among the best when there is a choice."""
    if cell is None:
        return Text(NOTHING)
    return Text(_with_half(cell.score), bold=cell.best and len(comparison.methods) > 1)


def percent(value: float) -> str:
    """A fraction in per cent, one decimal."""
    return f"{100 * value:.1f}"


def points(value: float) -> str:
    """A difference of fractions in percentage points, signed; no minus before a zero."""
    text = f"{100 * value:+.1f}"
    return "+0.0" if text == "-0.0" else text


def p_text(p: float) -> str:
    """A p-value with three decimals, or a bound."""
    return "< .001" if p < 0.001 else f"{p:.3f}".replace("0.", ".", 1)


def _p_clause(p: float) -> str:
    return f"p {p_text(p)}" if p < 0.001 else f"p = {p_text(p)}"


def _with_half(score: Interval) -> str:
    return f"{percent(score.mean)} {PLUS_MINUS} {percent(score.half)}"


def _seeds(comparison: Comparison, method: str) -> str:
    counts = sorted({len(cell.seeds) for cell in comparison.cells if cell.method == method})
    return "-".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))


def _level(comparison: Comparison) -> str:
    return f"{100 * (1 - comparison.study.alpha):g} %"


def _sources(comparison: Comparison) -> list[str]:
    shown = {(column.benchmark, method) for column in comparison.columns for method in comparison.methods}
    return sorted({entry.source for entry in comparison.study.published if (entry.benchmark, entry.method) in shown})


def _counted(number: int, name: str) -> str:
    return f"{number} {name}" if number == 1 else f"{number} {name}s"
