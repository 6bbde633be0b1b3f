"""Every report format against its golden file, and against the programs that read it."""

from __future__ import annotations

import csv
import html
import io
import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from rlx.compare.report.tables import caption, conclusions, question, scores_grid
from rlx.compare.report.text import latex, markdown, terminal, tidy_csv
from rlx.compare.report.write import RENDERERS, write_report
from rlx.compare.statistics.analysis import analyse

GOLDEN = Path(__file__).parents[1] / "golden_reports"


FIXTURES = {"study": ".", "unlearning_study": "unlearning"}
"""Studies and the folders of their golden files."""


@pytest.fixture(params=FIXTURES)
def study_and_golden(request):
    """A study of each kind, and the folder of its golden files."""
    return request.getfixturevalue(request.param), GOLDEN / FIXTURES[request.param]


def printed(comparison):
    out = io.StringIO()
    Console(file=out, width=150, force_terminal=True, color_system="standard", _environ={}).print(terminal(comparison))
    return out.getvalue()


@pytest.mark.parametrize("name", [*RENDERERS, "terminal.txt"])
def test_every_rendering_is_its_golden_file(study_and_golden, name):
    study, folder = study_and_golden
    render = {**RENDERERS, "terminal.txt": printed}[name]
    text = render(analyse(study))
    file = folder / name
    if os.environ.get("RLX_WRITE_GOLDEN"):  # after an intended change: RLX_WRITE_GOLDEN=1 pytest, then read the diff
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


def test_every_format_has_the_same_scores(study):
    comparison = analyse(study)
    scores = [cell.text for row in scores_grid(comparison).rows for cell in row if "\u00b1" in cell.text]
    assert len(scores) == 6
    page = RENDERERS["report.html"](comparison)
    for score in scores:
        assert score in printed(comparison) and score in markdown(comparison) and score in page
        assert score.replace("\u00b1", r"$\pm$") in latex(comparison)
    rows = list(csv.DictReader(io.StringIO(tidy_csv(comparison))))
    means = [r["value"] for r in rows if r["kind"] == "score" and r["name"] == "mean" and not r["seed"]]
    assert [f"{100 * float(mean):.1f}" for mean in means] == [
        f"{100 * cell['score']['mean']:.1f}" for cell in json.loads(RENDERERS["report.json"](comparison))["cells"]
    ]


def test_the_caption_names_test_correction_level_and_what_plus_minus_means(study):
    text = caption(analyse(study))
    for words in (
        "Student's t",
        "Holm's correction over 4 comparisons with grpo",
        "level 0.05",
        "bootstrap interval",
        "\u00b1",
    ):
        assert words in text


def test_one_seed_is_never_reported_in_the_words_of_methods(study):
    single = analyse(replace(study, runs=tuple(run for run in study.runs if run.seed == 0)))
    assert question(single).startswith("This compares checkpoints, not methods")
    for text in conclusions(single):
        assert text.startswith("the checkpoint") and "is better" not in text and "(seed 0)" in text
    assert "is better than grpo" in " ".join(conclusions(analyse(study)))


def test_runs_compared_by_force_carry_the_differing_fields_in_every_rendering(study):
    forced = analyse(replace(study, mismatched=("temperature", "grader")))
    for render in (*RENDERERS.values(), printed):
        assert "PROTOCOLS DIFFER in temperature, grader" in render(forced).replace("\n", " ")
    assert "\x1b[1;31mPROTOCOLS" in printed(forced)


def test_only_a_published_score_is_grey_and_it_comes_with_its_source(study):
    grid = scores_grid(analyse(study))
    assert [cell.text for row in grid.rows for cell in row if cell.grey] == ["28.1", "31.1", "-"]
    assert "arXiv 2603.14389, table 1; not tested" in caption(analyse(study))


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed (Debian: texlive-latex-base)")
def test_the_latex_compiles(study_and_golden, tmp_path):
    write_report(analyse(study_and_golden[0]), tmp_path)
    head = r"\documentclass{article}\usepackage{booktabs,xcolor}\begin{document}"
    (tmp_path / "paper.tex").write_text(head + r"\input{report.tex}\end{document}")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "paper.pdf").stat().st_size > 10_000


BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")


@pytest.mark.skipif(not BROWSER, reason="no chromium is installed (Debian: chromium)")
def test_a_browser_shows_the_page_without_a_word_in_its_console(study_and_golden, tmp_path):
    comparison = analyse(study_and_golden[0])
    write_report(comparison, tmp_path)
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    flags += " --disable-component-update --disable-sync --enable-logging=stderr --window-size=390,2000 --dump-dom"
    command = [BROWSER, *flags.split(), f"--user-data-dir={tmp_path / 'profile'}", str(tmp_path / "report.html")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "CONSOLE" not in done.stderr
    assert done.stdout.count("<svg") > 10
    assert html.escape(conclusions(comparison)[0]) in done.stdout


def test_the_page_fetches_nothing_and_runs_no_script(study):
    text = RENDERERS["report.html"](analyse(study))
    assert "<script" not in text and not re.search(r"""(src|href)=["']?(https?:)?//""", text)
    assert "url(" not in text and "@import" not in text
