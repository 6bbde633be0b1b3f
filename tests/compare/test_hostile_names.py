"""A report about runs with hostile names acts in no format."""

from __future__ import annotations

import csv
import html.parser
import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from rlx.compare.load.results import RunResult, Study
from rlx.compare.report.text import latex, markdown, terminal, tidy_csv
from rlx.compare.report.write import RENDERERS
from rlx.compare.statistics.analysis import analyse

ACTIVE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Characters that a terminal acts on, except line ends and tabs."""


class _Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.found.add(tag)
        self.attributes |= {name for name, _ in attrs}


def hostile_study(study: Study, text: str) -> Study:
    """The study in which models, methods, benchmarks, problems, runs and reasons have hostile names."""

    def renamed(run: RunResult) -> RunResult:
        scores = tuple(
            replace(
                score,
                benchmark=f"{text}{score.benchmark}",
                problem_ids=tuple(f"{text}{name}" for name in score.problem_ids),
            )
            for score in run.scores
        )
        return replace(
            run, method=f"{text}{run.method}", model=text, run_id=f"{text}{run.run_id}", scores=scores,
            protocol={f"{text}{key}": text for key in run.protocol},
        )  # fmt: skip

    published = tuple(replace(p, method=f"{text}{p.method}", source=text) for p in study.published)
    return replace(
        study, name=text, baseline=f"{text}{study.baseline}", runs=tuple(map(renamed, study.runs)),
        missing={f"{text}{run}": text for run in study.missing}, published=published, mismatched=(f"{text}key",),
    )  # fmt: skip


@pytest.mark.parametrize("text", ["\x1b[2J[bold]<script>x</script><a href=x>|`*", "=HYPERLINK(1)\\input{x}$y$%", "@-"])
def test_a_report_about_hostile_names_acts_in_no_format(text, study):
    comparison = analyse(hostile_study(study, text))
    out = io.StringIO()
    Console(file=out, width=150, force_terminal=False).print(terminal(comparison), markup=False)
    assert not ACTIVE.search(out.getvalue())
    for row in csv.reader(io.StringIO(tidy_csv(comparison))):
        assert not any(cell.startswith(("=", "@", "\t")) for cell in row)
        assert not any(re.match(r"[-+](?![\d.]|inf|nan)", cell) for cell in row)
    page, ordinary = _Tags(), _Tags()
    page.feed(RENDERERS["report.html"](comparison))
    ordinary.feed(RENDERERS["report.html"](analyse(study)))
    assert page.found == ordinary.found and page.attributes == ordinary.attributes
    tags = re.findall(r"<(/?[A-Za-z!][^>]*)>", markdown(comparison))
    assert set(tags) <= {"sub", "/sub"}
    assert "\\input" not in latex(comparison).replace("\\textbackslash{}input", "")
