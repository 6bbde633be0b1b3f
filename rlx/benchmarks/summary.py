"""Scores of each problem from graded samples, and a benchmark's metrics with their intervals. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rlx.numerics.intervals import of_average, over_problems, over_samples, wilson
from rlx.numerics.sampled import best_at_k, maj_at_k, pass_at_k, pass_hat_k
from rlx.rewards.by_text import canonical

FEW = 50
"""Number of problems below which an interval over problems is wide and may not hold for other problems."""
NO_ANSWER = ("no_box", "no_answer", "empty", "several_answers")


@dataclass(frozen=True, slots=True)
class Score:
    """The scores of one problem's samples.

    Example:
        ``Score(id="aime24-I-01", n=8, correct=3, majority={1: 0.375, 8: 1.0}, subject="", level="")``
    """

    id: str
    n: int
    correct: float
    majority: Mapping[int, float]
    """maj@k for the powers of two up to n, and n."""
    subject: str = ""
    level: str = ""


@dataclass(frozen=True, slots=True)
class MeanInterval:
    """A mean over problems with its 95 % interval, fractions.

    Example:
        ``MeanInterval(value=0.43, low=0.3, high=0.56)``
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Summary:
    """A benchmark's metrics.

    Example:
        ``Summary(benchmark="aime24", problems=30, n=32, average=MeanInterval(0.43, 0.3, 0.56), ...)``
    """

    benchmark: str
    problems: int
    n: int
    average: MeanInterval
    """avg@n; the interval is over problems: Student's t, or Wilson's for one sample."""
    over_samples: MeanInterval | None
    """avg@n with the interval over other samples of the same problems; None for one sample."""
    pass_at: Mapping[int, MeanInterval]
    """Unbiased pass@k for every k up to n."""
    pass_hat: Mapping[int, float]
    """Probability that all of k samples are right."""
    majority: Mapping[int, float]
    best_at_n: float
    """1-(1-c/n)^n, which some papers print; it is not comparable with pass@n."""
    tokens: float
    """Mean response length."""
    truncated: float
    no_answer: float
    timed_out: float
    reasons: Mapping[str, int]
    caution: str

    def flat(self) -> dict[str, float]:
        """The values by metric name, such as ``avg_at_32``."""
        ks = [k for k in self.pass_at if k in self.majority]
        return {
            f"avg_at_{self.n}": self.average.value,
            f"avg_at_{self.n}_low": self.average.low,
            f"avg_at_{self.n}_high": self.average.high,
            **{f"pass_at_{k}": self.pass_at[k].value for k in ks},
            **{f"pass_hat_{k}": self.pass_hat[k] for k in ks},
            **{f"maj_at_{k}": self.majority[k] for k in ks},
            f"best_at_{self.n}": self.best_at_n,
            "response_tokens": self.tokens,
            "truncated": self.truncated,
            "no_answer": self.no_answer,
            "timed_out": self.timed_out,
        }


def problem_scores(rows: Sequence[Mapping[str, Any]]) -> list[Score]:
    """Each problem's score from rows of samples.parquet, problems in the order of their first row."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["problem_id"], []).append(row)
    scores = []
    for name, group in groups.items():
        group = sorted(group, key=lambda row: int(row["sample"]))
        n = len(group)
        answers = [canonical(row["extracted"]) for row in group]
        right = [float(row["score"]) for row in group]
        majority = {k: maj_at_k(answers, right, k) for k in powers(n)}
        scores.append(Score(name, n, sum(right), majority, group[0]["subject"], group[0]["level"]))
    return scores


def powers(n: int) -> list[int]:
    """1, 2, 4, ... below n, and n."""
    return [2**i for i in range(n.bit_length()) if 2**i < n] + [n]


def summarised(benchmark: str, rows: Sequence[Mapping[str, Any]]) -> Summary:
    """A benchmark's metrics from rows of samples.parquet.

    Args:
        benchmark: its name.
        rows: columns problem_id, sample, score, reason, extracted, tokens, finished, subject, level; at least one.
    """
    scores = problem_scores(rows)
    n = scores[0].n
    correct = [score.correct for score in scores]
    right = _right_samples(rows)
    count, total = len(scores), len(rows)
    reasons = [str(row["reason"]) for row in rows]
    return Summary(
        benchmark=benchmark,
        problems=count,
        n=n,
        average=_over_problems([c / n for c in correct], n),
        over_samples=MeanInterval(sum(correct) / n / count, *over_samples(correct, n)) if n > 1 else None,
        pass_at={k: _over_problems([pass_at_k(n, c, k) for c in right], n) for k in range(1, n + 1)},
        pass_hat={k: sum(pass_hat_k(n, c, k) for c in right) / count for k in range(1, n + 1)},
        majority={k: sum(score.majority[k] for score in scores) / count for k in powers(n)},
        best_at_n=sum(best_at_k(n, c, n) for c in right) / count,
        tokens=sum(int(row["tokens"]) for row in rows) / total,
        truncated=sum(not row["finished"] for row in rows) / total,
        no_answer=sum(reason in NO_ANSWER for reason in reasons) / total,
        timed_out=reasons.count("timeout") / total,
        reasons={reason: reasons.count(reason) for reason in sorted(set(reasons))},
        caution=f"only {count} problems: a few of them decide" if count < FEW else "",
    )


def _right_samples(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Number of each problem's samples with the score 1; a smaller score is no right answer for pass@k."""
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["problem_id"]] = counts.get(row["problem_id"], 0) + (float(row["score"]) == 1)
    return list(counts.values())


def averages(summaries: Sequence[Summary]) -> dict[str, MeanInterval]:
    """Means of avg@n over benchmarks: ``macro`` weights benchmarks equally, ``weighted`` weights problems equally."""
    problems = sum(summary.problems for summary in summaries)
    means = {}
    for name, weights in (
        ("macro", [1 / len(summaries)] * len(summaries)),
        ("weighted", [summary.problems / problems for summary in summaries]),
    ):
        value = sum(w * summary.average.value for w, summary in zip(weights, summaries, strict=True))
        bounds = of_average([(summary.average.low, summary.average.high) for summary in summaries], weights)
        means[name] = MeanInterval(value, *bounds)
    return means


def as_json(summary: Summary, scores: Sequence[Score]) -> dict[str, Any]:
    """The content of result.json."""
    return {**asdict(summary), "scores": [asdict(score) for score in scores]}


def from_json(content: Mapping[str, Any]) -> tuple[Summary, list[Score]]:
    """The summary from the content of result.json."""
    scores = [
        Score(**{**score, "majority": {int(k): v for k, v in score["majority"].items()}}) for score in content["scores"]
    ]
    values = {key: value for key, value in content.items() if key != "scores"}
    for key in ("pass_hat", "majority"):
        values[key] = {int(k): v for k, v in values[key].items()}
    values["pass_at"] = {int(k): MeanInterval(**v) for k, v in values["pass_at"].items()}
    values["average"] = MeanInterval(**values["average"])
    values["over_samples"] = MeanInterval(**values["over_samples"]) if values["over_samples"] else None
    return Summary(**values), scores


def _over_problems(shares: Sequence[float], n: int) -> MeanInterval:
    """The mean of per-problem scores; for one sample per problem they are 0 or 1, and Wilson's interval is used."""
    mean = sum(shares) / len(shares)
    return MeanInterval(mean, *(wilson(mean * len(shares), len(shares)) if n == 1 else over_problems(shares)))
