"""Every experiment that the project ships resolves, the papers' runs keep their ids, and every file is listed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rlx.compare.study.runner import plan_runs, read_study
from rlx.specs.reading import read_spec
from rlx.specs.resolve_train import resolve

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "experiments"
ALL = {path: read_spec(path) for path in sorted(FOLDER.rglob("*.yaml"))}
STUDIES = {path: content for path, content in ALL.items() if "axes" in content}
PAPERS = {path.stem: path for path in STUDIES if path.parent.name == "papers"}
RUN_IDS = json.loads((ROOT / "tests" / "golden" / "paper_run_ids.json").read_text())
"""Run ids of the papers' settings when each was a spec file of its own, by that file's stem. They were written, in the
commit 0e2f3da, by printing ``path.stem`` and ``(resolve_unlearn if "method" in content else resolve)(content).run_id``
for each ``experiments/*.yaml`` without "smollm2" in its name, with ``content = read_spec(path)``."""
METHODS = [
    *("grpo", "cispo", "gppo", "ce_gppo", "aspo", "clip_higher", "dac", "entropy_adv", "bapo", "sapo", "maspo", "dgpo")
]


def planned(stem, runs=Path("runs")):
    return plan_runs(read_study(read_spec(PAPERS[stem])), runs)


@pytest.mark.parametrize("path", sorted((FOLDER / "quickstart").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_spec_resolves_and_is_named_after_what_it_runs(path):
    assert path.stem.startswith(f"{resolve(ALL[path]).spec.algorithm.name}_smollm2")


NOT_RUN = {"staleness_ladder", "palu_prefix_and_topk", "palu_survival"}
"""Studies whose report is not committed because they have not been run yet."""


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_run_of_a_study_resolves_and_its_report_has_its_name(path, tmp_path):
    study = read_study(STUDIES[path])
    assert study.name == path.stem
    assert len(plan_runs(study, tmp_path)) >= 9
    is_run = path.parent.name == "studies" and path.stem not in NOT_RUN
    assert (path.with_suffix("") / "report.html").is_file() == is_run


def test_the_staleness_ladder_has_every_method_at_every_learning_rate_with_eight_seeds(tmp_path):
    study = read_study(read_spec(FOLDER / "studies" / "staleness_ladder.yaml"))
    runs = plan_runs(study, tmp_path)
    methods = {run.method for run in runs}
    assert study.conditions == ["optim.lr"] and len(runs) == len(methods) * 5 * 8
    assert {"grpo", "grpo without dual clip", "dgpo n=1", "dgpo n=2", "is_pg"} <= methods
    specs = [run.resolved.spec for run in runs]
    assert {(s.steps, s.batch.prompts, s.batch.updates_per_rollout, s.rollout.samples_per_prompt) for s in specs} == {
        (30, 64, 16, 8)
    }


def test_the_papers_settings_have_the_run_ids_that_they_had_as_single_files():
    runs = {run.folder.run_id for stem in PAPERS for run in planned(stem)}
    assert len(RUN_IDS) == len(set(RUN_IDS.values())) == 26
    assert not set(RUN_IDS.values()) - runs


def test_each_file_of_before_is_the_run_with_its_method_and_size():
    by_id = {run.folder.run_id: run.resolved.spec for stem in PAPERS for run in planned(stem)}
    for stem, run_id in RUN_IDS.items():
        spec = by_id[run_id]
        if stem.startswith("palu"):
            assert spec.method.name == "palu@official" and stem.split("_")[1] in spec.model.path.lower()
        else:
            assert (stem.partition("_r1-")[0], stem.split("_")[-2].rpartition("-")[2]) == (
                spec.algorithm.name,
                spec.model.path.lower().rpartition("-")[2],
            )


def test_the_table_of_each_rl_paper_has_all_methods_at_two_sizes_and_the_newest_at_the_third():
    for stem, methods in (("maspo_2602.17550", METHODS[:-1]), ("dgpo_2603.14389", METHODS)):
        cells = {(run.resolved.spec.model.path[-4:], run.resolved.spec.algorithm.name) for run in planned(stem)}
        newest = {("-14B", name) for name in ("grpo", "maspo", "dgpo") if name in methods}
        assert cells == {(size, name) for size in ("1.5B", "n-7B") for name in methods} | newest
    spec = next(run.resolved.spec for run in planned("dgpo_2603.14389"))
    assert (spec.batch.prompts, spec.batch.updates_per_rollout) == (512, 16)


def test_palus_table_has_every_method_with_each_model_and_its_retain_model():
    runs = planned("palu_2601.03190_tofu")
    for spec in (run.resolved.spec for run in runs):
        assert (spec.epochs, spec.batch.forget, spec.optim.weight_decay) == (10, 32, 0.01)
        assert spec.optim.warmup_updates == -(-200 // spec.batch.forget)
        assert spec.evaluation.retain_model == spec.model.path.replace("_full", "_retain95")
    palu = [run.resolved.spec.method for run in runs if run.resolved.spec.method.name == "palu@official"]
    assert len(palu) == len({run.resolved.spec.model.path for run in runs}) == 2
    assert all(method.params["kl_direction"] == "theta_ref" and not method.train_lm_head for method in palu)


@pytest.mark.parametrize("path", sorted((FOLDER / "papers").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_paper_setting_says_what_is_stated_and_what_is_guessed(path):
    text = path.read_text()
    assert "# Stated" in text and "# Our guess" in text and "never a reproduction" in text


@pytest.mark.parametrize(("command", "stem"), [("train", "dgpo_2603.14389"), ("unlearn", "palu_2601.03190_tofu")])
def test_the_command_prints_the_plan_of_a_table_and_starts_nothing(command, stem, tmp_path):
    arguments = [command, str(PAPERS[stem]), "--plan", "--runs-dir", str(tmp_path / "runs")]
    command_line, wide = [sys.executable, "-m", "rlx.cli", *arguments], {**os.environ, "COLUMNS": "120"}
    done = subprocess.run(command_line, capture_output=True, text=True, cwd=tmp_path, env=wide)
    assert done.returncode == 0, done.stderr
    runs = planned(stem)
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row for row in rows if "missing" in row] == [[run.folder.run_id, "missing", "0%"] for run in runs]
    assert f"{len(runs)} of {len(runs)} runs to go" in done.stderr and not list(tmp_path.iterdir())


@pytest.mark.parametrize("folder", ["papers", "studies", "perf", "gpu", "reliability", "quickstart"])
def test_every_file_of_a_folder_has_a_line_in_its_readme(folder):
    lines = (FOLDER / folder / "README.md").read_text().splitlines()
    listed = [
        name for line in lines if line.startswith("| ") for name in re.findall(r"\]\(([^)]+)\)", line.split("|")[1])
    ]
    present = {path.name for path in (FOLDER / folder).iterdir() if path.name not in ("README.md", "__pycache__")}
    assert set(listed) == present
    assert len(listed) == len(set(listed))


def test_experiments_has_only_these_folders_and_a_readme_that_lists_them():
    names = {path.name for path in FOLDER.iterdir() if path.name != "__pycache__"}
    assert names == {"README.md", "papers", "studies", "perf", "gpu", "reliability", "quickstart"}
    text = (FOLDER / "README.md").read_text()
    assert all(f"]({name}/README.md)" in text for name in names - {"README.md"})
