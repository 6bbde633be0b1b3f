"""Every experiment that the project ships resolves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from rlx.compare.study.runner import plan_runs, read_study
from rlx.specs.reading import read_spec
from rlx.specs.resolve_train import resolve
from rlx.specs.resolve_unlearn import resolve_unlearn

FOLDER = Path(__file__).parents[2] / "experiments"
SPECS = sorted(path for path in FOLDER.glob("*.yaml") if "method" not in yaml.safe_load(path.read_text()))
UNLEARN = sorted(set(FOLDER.glob("*.yaml")) - set(SPECS))
PAPER = [path for path in SPECS if path.stem.endswith("_dapo-math-17k")]


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_the_spec_resolves_and_is_named_after_what_it_runs(path):
    resolved = resolve(read_spec(path))
    method, _, rest = path.stem.partition("_r1-") if "_r1-" in path.stem else path.stem.partition("_smollm2")
    assert resolved.spec.algorithm.name == method
    assert rest


@pytest.mark.parametrize("path", UNLEARN, ids=lambda path: path.stem)
def test_an_unlearning_spec_resolves_and_says_what_is_stated_and_what_is_guessed(path):
    text, spec = path.read_text(), resolve_unlearn(read_spec(path)).spec
    assert "# Stated" in text and "# Our guess" in text and "never a reproduction" in text
    assert path.stem.startswith(spec.method.name.partition("@")[0])
    assert (spec.epochs, spec.batch.forget, spec.optim.weight_decay) == (10, 32, 0.01)
    assert spec.optim.warmup_updates == -(-200 // spec.batch.forget)
    assert spec.method.params["kl_direction"] == "theta_ref" and not spec.method.train_lm_head


def test_both_models_of_the_palu_paper_are_there():
    assert [path.stem for path in UNLEARN] == ["palu_llama-2-7b_tofu-forget05", "palu_llama-3.1-8b_tofu-forget05"]


@pytest.mark.parametrize("path", sorted((FOLDER / "studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_run_of_a_study_resolves_and_its_report_has_its_name(path, tmp_path):
    study = read_study(read_spec(path))
    assert len(plan_runs(study, tmp_path)) >= 9
    assert study.name == path.stem and (path.with_suffix("") / "report.html").is_file()


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_a_paper_setting_says_what_is_stated_and_what_is_guessed(path):
    text = path.read_text()
    resolved = resolve(read_spec(path)).spec
    assert "# Stated" in text and "# Our guess" in text and "never a reproduction" in text
    assert (resolved.batch.prompts, resolved.batch.updates_per_rollout) == (512, 16)
    assert ("7b" in path.stem) == resolved.model.path.endswith("7B")


def test_both_sizes_of_every_method_of_the_papers_are_there():
    methods = [
        "grpo",
        "dgpo",
        "maspo",
        "ce_gppo",
        "gppo",
        "cispo",
        "aspo",
        "clip_higher",
        "dac",
        "entropy_adv",
        "bapo",
        "sapo",
    ]
    wanted = {f"{m}_r1-distill-qwen-{s}_dapo-math-17k" for m in methods for s in ("1.5b", "7b")}
    assert wanted == {path.stem for path in PAPER}


RUN_IDS = json.loads((FOLDER.parent / "tests" / "golden" / "paper_run_ids.json").read_text())
"""Run ids of the papers' settings when each was a spec file of its own, by that file's stem. They were written, in the
commit 0e2f3da, by printing ``path.stem`` and ``(resolve_unlearn if "method" in content else resolve)(content).run_id``
for each ``experiments/*.yaml`` without "smollm2" in its name, with ``content = read_spec(path)``."""


def test_the_papers_settings_have_the_run_ids_that_they_always_had():
    found = {
        path.stem: (resolve_unlearn if path in UNLEARN else resolve)(read_spec(path)).run_id
        for path in [*PAPER, *UNLEARN]
    }
    assert found == RUN_IDS
