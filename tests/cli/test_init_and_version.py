"""`rlx init`, `rlx --version`, completion, and the start without torch."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "runs"))

from command import rlx

from rlx.registry import declared, get, names
from rlx.specs.reading import read_spec
from rlx.specs.resolve_train import resolve
from rlx.specs.resolve_unlearn import resolve_unlearn

WITHOUT_TORCH = """
import sys
from rlx.cli.app import app
sys.argv = ["rlx", *sys.argv[1:]]
try:
    app()
finally:
    loaded = {"torch", "transformers", "mlflow", "datasets", "scipy"} & set(sys.modules)
    assert not loaded, loaded
"""


def started(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_TORCH, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


@pytest.mark.parametrize(
    "arguments",
    [
        ["methods"],
        ["methods", "palu", "dgpo"],
        ["train", "--dry-run"],
        ["train", "--algo", "maspo", "--dry-run"],
        ["unlearn", "--dry-run"],
        ["--version"],
        ["runs"],
    ],
)
def test_a_listing_and_a_dry_run_start_without_torch(tmp_path, arguments):
    done = started(*arguments, RLX_RUNS_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr


def test_declarations_without_torch_are_those_of_the_imported_methods(tmp_path):
    program = "import sys, json\nfrom rlx.registry import declared, names\n"
    program += "import rlx.numerics.intervals\n"  # compare imports it first, and it needs no torch
    program += (
        "out = {}\nfor kind in ('policy', 'unlearn'):\n    for name in names(kind):\n        c = declared(kind, name)\n"
    )
    program += "        out[name] = [c.hyper.model_json_schema(), sorted(c.needed(c.hyper())), dict(c.recipe),"
    program += " {k: dict(v) for k, v in c.presets.items()}, c.paper, c.official, c.fn.__doc__]\n"
    program += "assert 'torch' not in sys.modules\nfrom rlx.registry import get\n"
    program += "assert get('policy', 'dgpo').fn.__globals__['torch'].__name__ == 'torch'\n"  # the real one, later
    program += "import torch\nassert torch.tensor([1.0]).sum() == 1\nprint(json.dumps(out))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    without = yaml.safe_load(done.stdout)
    for kind in ("policy", "unlearn"):
        for name in names(kind):
            c = get(kind, name)
            schema, needs, recipe, presets, *texts = without[name]
            assert c.hyper.model_json_schema() == schema
            assert (sorted(c.needed(c.hyper())), dict(c.recipe)) == (needs, recipe)
            assert {k: dict(v) for k, v in c.presets.items()} == presets
            assert texts == [c.paper, c.official, c.fn.__doc__]
            assert declared(kind, name) is c, "with torch there is one component"


def test_the_version_names_the_libraries_and_the_device():
    code, output = rlx("--version")
    assert code == 0
    assert f"torch {version('torch')}" in output and f"transformers {version('transformers')}" in output
    assert "\nvllm " in output and "\ndevice " in output


def test_a_spec_for_training_has_the_columns_of_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("q.csv").write_text("id,Question,level,solution\n1,what is 1+1?,3,2\n")
    code, output = rlx("init", "train", "--data", "q.csv", "--model", "some/model")
    assert code == 0 and "rlx train train.yaml --preview" in output
    spec = read_spec(Path("train.yaml"))
    assert spec["data"] == {"source": "q.csv", "prompt": "Question", "answer": "solution"}
    assert spec["model"] == {"path": "some/model"}
    assert "# columns of q.csv: id, Question, level, solution" in Path("train.yaml").read_text()
    assert "exists" in rlx("init", "train")[1]


def test_every_commented_key_of_a_template_is_a_valid_key_with_its_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("f.jsonl").write_text('{"question": "who?", "answer": "me"}\n')
    for arguments, read in ((["train"], resolve), (["unlearn", "--data", "f.jsonl"], resolve_unlearn)):
        assert rlx("init", *arguments)[0] == 0
        text = Path(f"{arguments[0]}.yaml").read_text()
        read(yaml.safe_load(text))
        keys = [
            line for line in text.splitlines() if line.strip().startswith("# ") and ": " in line or line.endswith(":")
        ]
        assert len(keys) > 5
        uncommented = "\n".join(
            line.replace("# ", "", 1) if line.strip("# ").partition(":")[0].isidentifier() and ":" in line else ""
            for line in text.splitlines()
        )
        read(yaml.safe_load(uncommented))


def test_studies_of_both_commands_can_be_planned(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in ("train", "unlearn"):
        assert rlx("init", "study", "--command", command, "--out", f"{command}.yaml")[0] == 0
        code, output = rlx("compare", f"{command}.yaml", "--plan", "--runs-dir", "runs")
        assert code == 0 and output.count("missing") == 6


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["trian"], "did you mean 'train'?"),
        (["train", "--data", "rows.jsonl"], "add --model"),
        (["unlearn", "--data", "rows.jsonl"], "rename its columns"),
        (["unlearn", "--data", "none.jsonl"], "none.jsonl"),
    ],
)
def test_a_mistake_is_one_sentence_and_writes_nothing(tmp_path, monkeypatch, arguments, part):
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text('{"a": 1}\n')
    code, output = rlx("init", *arguments)
    assert code == 2 and part in output and output.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl"]


@pytest.mark.parametrize(
    ("words", "choice"),
    [
        ("rlx train --algo dg", "dgpo"),
        ("rlx unlearn --method pal", "palu"),
        ("rlx unlearn --against npo,grad_d", "npo,grad_diff"),
        ("rlx eval --bench aime24,math", "aime24,math500"),
        ("rlx train --set optim.l", "optim.lr="),
        ("rlx train --set rollout.engine=h", "rollout.engine=hf"),
        ("rlx unlearn --set forget.sp", "forget.spans="),
        ("rlx runs show one", "one_s0-1"),
        ("rlx sample one", "one_s0-1"),
        ("rlx methods gr", "grpo"),
    ],
)
def test_the_shell_completes_methods_benchmarks_keys_and_runs(tmp_path, words, choice):
    (tmp_path / "one_s0-1").mkdir()
    (tmp_path / "one_s0-1" / "resolved.json").write_text("{}")
    environment = {"_RLX_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    script = Path(sys.executable).with_name("rlx")
    environment |= {**os.environ, "RLX_RUNS_DIR": str(tmp_path), **environment}
    done = subprocess.run([str(script)], capture_output=True, text=True, env=environment)
    assert choice in done.stdout.split(), done.stderr
