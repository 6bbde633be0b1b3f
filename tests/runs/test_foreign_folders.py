"""A run folder that somebody else wrote: its code is not executed without --trust, and nothing outside is written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from command import rlx
from conftest import TRAIN

from rlx.cli.app import app
from rlx.runs.folder import RunDir
from rlx.runs.purge import remainders

EMBEDDED = Path(__file__).parents[2] / "rlx" / "assets"
CANARY = """from pathlib import Path
Path({marker!r}).write_text("executed")
from rlx.registry import register
@register("policy")
def mine(logprobs_bt, batch, hp): return logprobs_bt
@register("unlearn")
def forget(forget, retain, hp): return []
def reward(response, answer): return 1.0
"""
REMOTE = {"AutoConfig": "canary.C", "AutoModelForCausalLM": "canary.M", "AutoTokenizer": ["canary.T", None]}


@pytest.fixture
def foreign(reference, tmp_path):
    """A finished run, changed by a stranger: its spec, protocols and model name a canary; and the canary's marker."""
    runs, marker = tmp_path / "runs", tmp_path / "marker"
    shutil.copytree(reference.run, runs / reference.run.name)
    run = runs / reference.run.name
    code = tmp_path / "canary.py"
    code.write_text(CANARY.format(marker=str(marker)))
    _name_canary(run, code)
    (run / "model" / "canary.py").write_text(code.read_text())
    for name in ("config.json", "tokenizer_config.json"):
        file = run / "model" / name
        file.write_text(json.dumps(json.loads(file.read_text()) | {"auto_map": REMOTE}))
    (run / "model" / "rlx_manifest.json").unlink()
    return run, marker


def _name_canary(run: Path, code: Path) -> None:
    resolved = json.loads((run / "resolved.json").read_text())
    spec = yaml.safe_load((run / "spec.yaml").read_text()) or {}
    for content in (resolved["spec"], spec):
        content["algorithm"] = {**content.get("algorithm", {}), "name": f"{code}:mine"}
        content["reward"] = {**content.get("reward", {}), "name": f"{code}:reward"}
        content["model"] = {**content.get("model", {}), "trust_remote_code": True}
    (run / "resolved.json").write_text(json.dumps(resolved))
    (run / "spec.yaml").write_text(yaml.safe_dump(spec))


def unlearning_run(foreign_run: Path) -> Path:
    """The folder of a finished unlearning run that names the canary as its method."""
    from rlx.specs.resolve_unlearn import resolve_unlearn

    run = foreign_run.parent / "unlearned"
    shutil.copytree(foreign_run / "model", run / "model")
    resolved = json.loads(resolve_unlearn({}).model_dump_json())
    resolved["spec"]["method"]["name"] = f"{foreign_run.parents[1] / 'canary.py'}:forget"
    resolved["spec"]["model"]["trust_remote_code"] = True
    (run / "resolved.json").write_text(json.dumps(resolved))
    (run / "spec.yaml").write_text(yaml.safe_dump({"method": {"name": resolved["spec"]["method"]["name"]}}))
    (run / "summary.json").write_text("{}")
    return run


EVAL = ["--bench", "arithmetic", "--n", "1", "--limit", "2", "--set", "mlflow=false"]
COMMANDS = {
    "eval": [
        ["eval", "RUN", *EVAL], ["eval", "RUN", *EVAL, "--checkpoint", "6"], ["eval", "RUN", *EVAL, "--preview"],
        ["eval", "RUN", *EVAL, "--regrade"], ["eval", "RUN/model", *EVAL],
    ],
    "compare": [["compare", "RUN"], ["compare", "RUN", "--regrade"], ["compare", "UNLEARNED"]],
    "sample": [
        ["sample", "RUN", "1+1=", "-n", "1"], ["sample", "RUN", "1+1=", "-n", "1", "--answer", "2"],
        ["sample", "RUN/model", "1+1=", "-n", "1"], ["sample", "RUN", "--browse"],
    ],
    "runs check": [["runs", "check"], ["runs", "check", "RUN"]],
    "runs show": [["runs"], ["runs", "--json"], ["runs", "show", "RUN"], ["runs", "show", "UNLEARNED"]],
    "runs diff": [["runs", "diff", "RUN", "UNLEARNED"]],
    "runs prune": [["runs", "prune", "--yes"]],
    "runs rm": [["runs", "rm", "RUN", "--yes"]],
    "unlearn": [
        ["unlearn", "--after", "UNLEARNED"], ["unlearn", "--after", "UNLEARNED", "--preview"],
        ["unlearn", "--purge", "UNLEARNED", "--yes"], ["unlearn", "UNLEARNED/spec.yaml"],
        ["unlearn", "UNLEARNED/spec.yaml", "--dry-run"], ["unlearn", "--after", "RUN"],
    ],
    "train": [TRAIN, ["train", "RUN/spec.yaml"], ["train", "RUN/spec.yaml", "--preview"]],
}  # fmt: skip
WITHOUT_FOLDERS = {"methods", "doctor", "init"}
"""Commands that open no run folder."""


def test_the_commands_of_this_test_are_all_that_there_are():
    names = {command.name or command.callback.__name__ for command in app.registered_commands}
    names |= {
        f"{group.name} {command.callback.__name__}"
        for group in app.registered_groups
        for command in group.typer_instance.registered_commands
    }
    assert names == COMMANDS.keys() | WITHOUT_FOLDERS


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_executes_code_that_a_run_folder_names(command, foreign, monkeypatch):
    run, marker = foreign
    monkeypatch.chdir(run.parents[1])
    paths = {"RUN": run, "UNLEARNED": unlearning_run(run)}
    for arguments in COMMANDS[command]:
        filled = [
            next((a.replace(k, str(v)) for k, v in paths.items() if a == k or a.startswith(f"{k}/")), a)
            for a in arguments
        ]
        code, output = rlx(*filled, "--runs-dir", str(run.parent))
        assert not marker.exists(), (arguments, output)
        assert "Traceback" not in output
        sampled = arguments[0] == "sample" and arguments[1] == "RUN" and "--browse" not in arguments
        if "spec.yaml" in str(filled) or arguments[1:] == ["--after", "UNLEARNED"] or sampled:
            assert code == 2 and "whose code would be executed; read that code and add --trust" in output, output


def test_trusted_code_is_executed(foreign, monkeypatch):
    run, marker = foreign
    monkeypatch.chdir(run.parents[1])
    rlx("train", str(run / "spec.yaml"), "--trust", "--dry-run", "--runs-dir", str(run.parent))
    assert marker.exists()
    marker.unlink()
    rlx("unlearn", "--after", str(unlearning_run(run)), "--trust", "--dry-run", "--runs-dir", str(run.parent))
    assert marker.exists()


LINKS = ["metrics.jsonl", "checkpoints", "samples.parquet", "lock", "mlflow.json", "evaluations", "model/config.json"]


@pytest.mark.parametrize("name", LINKS)
def test_no_command_writes_through_a_link_out_of_a_run_folder(name, reference, tmp_path):
    run = reference.interrupted(tmp_path / "runs")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("mine")
    path = run / name
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    target = outside if name in ("checkpoints", "samples.parquet", "evaluations") else outside / "precious"
    path.symlink_to(target)
    commands = [TRAIN, [*TRAIN, "--fresh"], ["eval", run.name, *EVAL], ["compare", run.name, "--regrade"]]
    for arguments in commands:
        code, output = rlx(*arguments, "--runs-dir", str(run.parent))
        assert code == 1 and f"{name} is a link to {target}, which is outside of it" in " ".join(output.split()), output
        assert path.is_symlink() and "Traceback" not in output
    assert [file.name for file in outside.iterdir()] == ["precious"]
    assert (outside / "precious").read_text() == "mine"
    code, output = rlx("runs", "check", run.name, "--runs-dir", str(run.parent))
    assert code == 1 and f"{name} leads out of the run folder" in output, output


def test_a_run_folder_that_is_itself_a_link_and_links_inside_of_it_are_written(reference, tmp_path):
    run = reference.interrupted(tmp_path / "disk")
    (run / "inner").symlink_to(run / "metrics.jsonl")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / run.name).symlink_to(run)
    code, output = rlx(*TRAIN, "--runs-dir", str(tmp_path / "runs"))
    assert code == 0, output
    reference.assert_same(run)


def test_paths_in_files_of_a_run_folder_delete_and_write_nothing_elsewhere(reference, tmp_path):
    run = tmp_path / "runs" / reference.run.name
    shutil.copytree(reference.run, run)
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (run / "references.txt").write_text(f"{precious} ../../precious ../{run.name}")
    assert all(item.path.is_relative_to(run) for item in remainders(RunDir(run)))
    code, output = rlx("eval", run.name, *EVAL, "--runs-dir", str(run.parent))
    assert code == 0, output
    (protocol,) = run.glob("evaluations/*/*/protocol.json")
    content = json.loads(protocol.read_text())
    content |= {"benchmark": "../../../../../outside", "grader_version": "0"}
    protocol.write_text(json.dumps(content))
    code, output = rlx("compare", run.name, "--regrade", "--runs-dir", str(run.parent))
    assert code == 1 and "is not the name of a folder" in output, output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["precious", "runs"]


def test_names_of_files_in_a_checkpoint_lead_nowhere_else(reference, tmp_path):
    run = reference.interrupted(tmp_path)
    state = run / "checkpoints" / "step_000006" / "state.json"
    content = json.loads(state.read_text())
    content["samples"] = {"/dev/zero": "0"}
    state.write_text(json.dumps(content))
    (state.parent / "rlx_manifest.json").unlink()
    code, output = rlx("runs", "check", run.name, "--runs-dir", str(tmp_path))
    assert code == 1, output


def test_an_adapter_that_makes_peft_import_a_module_is_refused(tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": str(EMBEDDED / "arithmetic"), "megatron_config": {"a": 1}})
    )
    code, output = rlx("eval", str(adapter), *EVAL, "--runs-dir", str(tmp_path / "runs"))
    assert code == 1 and "peft would import the module" in output, output
