"""The example study of docs/studies.md resolves."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from rlx.compare.study.runner import plan_runs, read_study
from rlx.specs.study import condition_axes

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")


def test_the_example_of_the_page_resolves(tmp_path):
    (text,) = re.findall(r"```yaml\n# ladder\.yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    study = read_study(yaml.safe_load(text))
    runs = plan_runs(study, tmp_path)
    assert len(runs) == 8 * 3 * 3 and {run.method for run in runs} == {"grpo", "dgpo", "is_pg"}
    (axis,) = condition_axes(study)
    assert [float(value) for value in axis.values] == [5e-5, 1e-4, 2e-4]
    assert {run.resolved.spec.optim.lr for run in runs} == {5e-5, 1e-4, 2e-4}


def test_the_readme_links_the_page():
    assert "(docs/studies.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
