"""A newcomer's change by CONTRIBUTING.md alone: one loss file and its golden data, in a copy of the project."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
COPIED = ("rlx", "tests", "docs", "experiments", "README.md", "CONTRIBUTING.md", "pyproject.toml")
NAME = "power_decay"
LOSS = '''"""Power decay: the policy gradient's weight falls with the distance from the old policy."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from rlx.numerics.batch import PolicyBatch, Tokens
from rlx.numerics.ratio import log_ratio
from rlx.registry import Hyper, register


class PowerDecay(Hyper):
    """Parameters of power_decay."""

    power: float = Field(default=1.0, ge=0)
    """Outside r = 1 the weight falls like this power of the distance."""


@register("policy", paper="no paper: an exercise", presets={"steep": {"power": 4.0}})
def power_decay(logprobs_bt: Tensor, batch: PolicyBatch, hp: PowerDecay) -> Tokens:
    """-A r sg[1 / (1 + |log r|)^power].

    Args:
        logprobs_bt: log-probs of the response tokens under the policy (nats).
        batch: old log-probs and advantages.
        hp: the power.
    """
    log_r_bt = log_ratio(logprobs_bt, batch.old_logprobs_bt)
    gate_bt = (1 + log_r_bt.detach().abs()) ** -hp.power
    return Tokens(-batch.adv_bt * log_r_bt.exp() * gate_bt, {"gate": gate_bt})
'''


def golden_case(power):
    """A case whose loss and gradient are calculated from the equation, without rlx."""
    old = torch.tensor([[-1.0, -0.5, -2.0], [-0.3, -0.7, -1.1]], dtype=torch.float64)
    logprobs = old + torch.tensor([[0.4, -0.6, 0.1], [-0.2, 0.9, 0.0]], dtype=torch.float64)
    advantages = torch.tensor([[1.5], [-0.8]], dtype=torch.float64).expand(2, 3)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]], dtype=torch.bool)
    ratios = (logprobs - old).exp()
    weighted = advantages * ratios / (1 + (logprobs - old).abs()) ** power
    values = torch.where(mask, -weighted, 0.0) / 5
    return {
        "algo": NAME,
        "source": "calculated from the equation",
        "params": {"power": power},
        "seed": 0,
        "old_logprobs": old.tolist(),
        "logprobs": logprobs.tolist(),
        "advantages": advantages.tolist(),
        "mask": mask.tolist(),
        "loss": float(values.sum()),
        "grad_logprobs": values.tolist(),  # d(-A r g)/d log pi is the value itself, since r' = r and g is constant
    }


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project with the two new files."""
    copy = tmp_path_factory.mktemp("project")
    ignore = shutil.ignore_patterns("__pycache__")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=ignore)
        else:
            shutil.copy(source, copy / name)
    (copy / "rlx" / "methods" / "policy" / f"{NAME}.py").write_text(LOSS)
    cases = [golden_case(1.0), golden_case(2.5)]
    (copy / "tests" / "golden" / f"policy_losses_{NAME}.json").write_text(json.dumps(cases))
    return copy


def run(project, *arguments):
    environment = {key: value for key, value in os.environ.items() if key not in ("RLX_GOLDEN_DIR", "PYTEST_ADDOPTS")}
    environment |= {"PYTHONPATH": str(project), "COLUMNS": "150"}
    done = subprocess.run([sys.executable, *arguments], cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def test_contributing_names_the_two_files_and_each_command_of_this_test():
    lines = (ROOT / "CONTRIBUTING.md").read_text().splitlines()
    text = "\n".join(lines)
    assert len([line for line in lines if line[:1].isdigit()]) <= 10
    for part in (
        *("rlx/methods/policy/NAME.py", "tests/golden/policy_losses_NAME.json", "python -m pytest tests/methods"),
        *("rlx methods NAME", "--plot", "make docs", "make check", "rlx train --algo NAME"),
    ):
        assert part in text, part


def test_the_method_is_listed_and_shown(project):
    listing = run(project, "-m", "rlx.cli", "methods")
    assert any(line.split()[:1] == [NAME] and "-A r sg[1" in line for line in listing.splitlines())
    shown = run(project, "-m", "rlx.cli", "methods", NAME)
    assert "power" in shown and "number >= 0" in shown and f"{NAME}@steep: power=4" in shown


def test_the_method_is_drawn_with_all_others_and_by_itself(project):
    run(project, "-m", "rlx.cli", "methods", "--plot", "all.svg")
    assert f"<!-- {NAME} -->" in (project / "all.svg").read_text()
    run(project, "-m", "rlx.cli", "methods", NAME, f"{NAME}@steep", "--plot", "own.svg")
    assert f"<!-- {NAME}@steep -->" in (project / "own.svg").read_text()


def test_the_tests_of_all_methods_cover_it(project):
    files = ("test_golden_policy.py", "test_by_hand.py", "test_properties.py")
    tests = [f"tests/methods/policy/{name}" for name in files] + ["tests/cli/test_methods_listing.py"]
    selected = f"{NAME} or registered or every_method or parameter or markdown"
    printed = run(project, "-m", "pytest", "-vv", "-p", "no:cacheprovider", *tests, "-k", selected)
    passed = [line for line in printed.splitlines() if "PASSED" in line and NAME in line]
    golden = [line for line in passed if "test_loss_and_gradient_equal_the_official_codes" in line]
    assert len(golden) == 4, "two cases, each in two types"
    assert len(passed) >= len(golden) + 3, "the properties of every method"


def test_a_wrong_gradient_in_its_golden_data_is_noticed(project, tmp_path):
    wrong = {**golden_case(1.0), "loss": 0.5}
    (tmp_path / "policy_losses_wrong.json").write_text(json.dumps([wrong]))
    command = [sys.executable, "-m", "pytest", "-q", "tests/methods/policy/test_golden_policy.py", "-k", NAME]
    environment = {**os.environ, "PYTHONPATH": str(project), "RLX_GOLDEN_DIR": str(tmp_path)}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED") and f"[{NAME}[" in line]
    assert done.returncode == 1 and len(failed) == 2, "one case in two types"


def test_the_documentation_has_it_after_make_docs_and_no_other_file_changes(project):
    stale = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project)},
        capture_output=True,
        text=True,
    )
    assert stale.returncode == 1 and "make docs" in stale.stderr
    run(project, "docs/generate.py")
    pages = [project / "README.md", *(project / "docs").rglob("*.md")]
    assert any(f"[{NAME}](" in page.read_text() for page in pages)
    run(project, "docs/generate.py", "--check")
    changed = {
        path.relative_to(project).as_posix()
        for name in COPIED
        for path in ([project / name] if (project / name).is_file() else (project / name).rglob("*"))
        if path.is_file() and path.suffix in (".py", ".json", ".toml")
        if not (ROOT / path.relative_to(project)).is_file()
        or path.read_bytes() != (ROOT / path.relative_to(project)).read_bytes()
    }
    assert changed == {f"rlx/methods/policy/{NAME}.py", f"tests/golden/policy_losses_{NAME}.json"}


def test_a_run_with_it_resolves_with_its_parameters(project):
    printed = run(project, "-m", "rlx.cli", "train", "--algo", f"{NAME}@steep", "--dry-run")
    assert "power: 4.0" in printed
