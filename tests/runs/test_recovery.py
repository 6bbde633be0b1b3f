"""Damaged files of a run: named in a sentence, set aside, and the same command finishes to the same bits."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
import torch
from command import rlx
from conftest import TRAIN, records
from faults import BEFORE, BEFORE_IT, DAMAGES, FAULTS, NEWEST

from rlx.engine.recovery import NO_INTACT_CHECKPOINT
from rlx.runs.folder import RunDir
from rlx.runs.integrity import hash_file
from rlx.runs.samples import read_samples
from rlx.unlearning.reference import load_constants, save_constants

TARGET = Path(__file__).parents[2] / "rlx" / "assets" / "minitofu" / "target"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.file} {fault.damage}")
def test_the_same_command_finishes_a_damaged_run_to_the_same_bits(fault, reference, tmp_path):
    run = reference.interrupted(tmp_path)
    DAMAGES[fault.damage](run / fault.file)
    code, output = rlx(*TRAIN, "--runs-dir", str(tmp_path))
    assert code == 0, output
    flat = " ".join(output.split())
    assert fault.sentence in flat, output
    assert output.count("damaged (") <= 1 and "Traceback" not in output
    start = BEFORE if fault.outcome == BEFORE_IT else NEWEST
    assert f"continuing from step {int(start[5:])} of 6" in flat
    reference.assert_same(run)
    aside = run / "checkpoints" / f"_{NEWEST}.damaged"
    assert aside.is_dir() == ("it was renamed to" in flat)
    code, output = rlx("runs", "check", run.name, "--runs-dir", str(tmp_path))
    assert code == 0, output


def test_without_an_intact_checkpoint_the_run_ends_with_an_exit_code_of_its_own_each_time(reference, tmp_path):
    run = reference.interrupted(tmp_path)
    for file in run.glob("checkpoints/step_*/optimizer.safetensors"):
        DAMAGES["one byte flipped"](file)
    before = sorted(path.name for path in (run / "checkpoints").iterdir())
    for _ in range(2):
        code, output = rlx(*TRAIN, "--runs-dir", str(tmp_path))
        assert code == NO_INTACT_CHECKPOINT
        assert f"has no intact checkpoint ({NEWEST}: optimizer.safetensors does not have the SHA-256" in output
        assert output.count("rlx: ") == 1 and "Traceback" not in output
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == before
    for file in run.glob("checkpoints/step_*"):
        DAMAGES["removed"](file)
    assert rlx(*TRAIN, "--runs-dir", str(tmp_path))[0] == NO_INTACT_CHECKPOINT


def test_a_checkpoint_of_an_earlier_version_without_hashes_is_loaded_with_a_notice(reference, tmp_path):
    run = reference.interrupted(tmp_path)
    for folder in run.glob("checkpoints/step_*"):
        (folder / "rlx_manifest.json").unlink()
        (folder / "metrics.jsonl").unlink()
        state = json.loads((folder / "state.json").read_text())
        (folder / "state.json").write_text(json.dumps({key: state[key] for key in ("position", "random")}))
    (run / "checkpoints" / "newest.json").unlink()
    code, output = rlx(*TRAIN, "--runs-dir", str(tmp_path))
    assert code == 0, output
    assert f"checkpoint {NEWEST} has no hashes" in output
    reference.assert_same(run)


def test_a_lost_sample_part_before_all_checkpoints_is_named_and_training_goes_on(reference, tmp_path):
    run = reference.interrupted(tmp_path)
    DAMAGES["removed"](run / "checkpoints" / "step_000002")
    DAMAGES["removed"](run / "samples.parquet" / "part_000002.parquet")
    code, output = rlx(*TRAIN, "--runs-dir", str(tmp_path))
    assert code == 0, output
    assert "part_000002.parquet is missing; no checkpoint before it is left" in " ".join(output.split())


def test_a_run_goes_on_after_the_clock_has_jumped_back_and_its_folder_has_moved(reference, tmp_path, monkeypatch):
    run = reference.interrupted(tmp_path / "moved")
    DAMAGES["removed"](run / "checkpoints" / NEWEST)
    for path in run.rglob("*"):
        os.utime(path, (4e9, 4e9))
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 86400 * 400)
    code, output = rlx(*TRAIN, "--runs-dir", str(tmp_path / "moved"))
    assert code == 0, output
    reference.assert_same(run)


@pytest.mark.parametrize(
    ("file", "damage", "line"),
    [
        ("model/model.safetensors", "one byte flipped", "model: model.safetensors does not have the SHA-256"),
        ("model", "removed", "model: the folder is missing, although the run is complete"),
        ("metrics.jsonl", "truncated", "metrics.jsonl: it differs from the copy in step_000006"),
        ("samples.parquet/part_000002.parquet", "removed", "samples.parquet: part_000002.parquet is missing"),
        (f"checkpoints/{NEWEST}", "removed", "step_000006: the checkpoint that was written last is missing"),
        ("checkpoints/step_000002/state.json", "one byte flipped", "checkpoints/step_000002: state.json does not have"),
        ("summary.json", "truncated", "summary.json: it is no JSON"),
    ],
)
def test_the_check_of_a_run_names_what_is_damaged_and_changes_nothing(file, damage, line, reference, tmp_path):
    run = reference.interrupted(tmp_path)
    (run / "summary.json").write_bytes((reference.run / "summary.json").read_bytes())
    assert rlx("runs", "check", "--runs-dir", str(tmp_path))[0] == 0
    DAMAGES[damage](run / file)
    before = sorted(run.rglob("*"))
    code, output = rlx("runs", "check", str(run), "--runs-dir", str(tmp_path))
    assert code == 1
    assert line in output and "1 damaged or missing" in output
    assert sorted(run.rglob("*")) == before


def test_the_check_of_an_unknown_run_names_the_choices(reference):
    code, output = rlx("runs", "check", "nosuch", "--runs-dir", str(reference.run.parent))
    assert code == 2 and reference.run.name in output


def test_a_damaged_part_of_an_evaluation_is_set_aside_and_only_its_samples_are_drawn_again(reference, tmp_path):
    run = reference.interrupted(tmp_path)
    arguments = ["eval", run.name, "--bench", "arithmetic", "--limit", "6", "--n", "2", "--set", "batch=4"]
    arguments += ["--set", "mlflow=false", "--runs-dir", str(tmp_path), "--format", "csv"]
    code, expected = rlx(*arguments)
    assert code == 0, expected
    (folder,) = RunDir(run).evaluations()
    for damage in ("truncated", "emptied", "one byte flipped", "removed"):
        part, *others = folder.parts()
        assert others
        DAMAGES[damage](part)
        code, output = rlx("runs", "check", run.name, "--runs-dir", str(tmp_path))
        assert code == 1 and "samples.parquet: " in output
        code, output = rlx(*arguments)
        assert code == 0, output
        assert output.splitlines()[-1] == expected.splitlines()[-1]
        assert (f"_{part.name}.damaged" in output) == (damage != "removed")
        rows = [row for stored in folder.parts() for row in read_samples(stored)]
        assert len({(row["problem_id"], row["sample"]) for row in rows}) == len(rows) == 12
        assert rlx("runs", "check", run.name, "--runs-dir", str(tmp_path))[0] == 0


def test_damaged_reference_constants_are_computed_again(tmp_path, capsys):
    constants = [{"ref_nll": torch.rand(1)}, {"ref_nll": torch.rand(1)}]
    file = tmp_path / "digest.safetensors"
    for damage in ("truncated", "emptied", "one byte flipped", "removed"):
        save_constants(tmp_path, "digest", constants)
        loaded = load_constants(tmp_path, "digest", 2)
        assert loaded is not None and torch.equal(loaded[1]["ref_nll"], constants[1]["ref_nll"])
        DAMAGES[damage](file)
        assert load_constants(tmp_path, "digest", 2) is None
        assert ("are damaged" in capsys.readouterr().err) == (damage != "removed")
    save_constants(tmp_path, "digest", constants)
    hash_file(file).unlink()
    assert load_constants(tmp_path, "digest", 2) is not None


@pytest.mark.slow
def test_an_unlearning_run_whose_best_checkpoint_is_damaged_goes_on_from_before_it_to_the_same_bits(tmp_path):
    arguments = [
        "unlearn", "--against", "", "--method", "grad_diff", "--epochs", "2", "--set", "evaluation.limit=6",
        "--set", "evaluation.max_new_tokens=4", "--set", "evaluation.attacks=[]", "--set", "tracker.mlflow=false",
        "--set", "batch.forget=24", "--set", "checkpoint.every=4", "--set", "checkpoint.keep=9",
        "--set", "optim.lr=2e-3", "--runs-dir", str(tmp_path),
    ]  # fmt: skip
    code, output = rlx(*arguments)
    assert code == 0, output
    (run,) = [path.parent for path in tmp_path.glob("*/summary.json")]
    model, before = (run / "model" / "model.safetensors").read_bytes(), records(run)
    assert json.loads((run / "summary.json").read_text())["selected_step"] == 5
    (run / "summary.json").unlink()
    DAMAGES["one byte flipped"](run / "checkpoints" / "step_000005" / "model.safetensors")
    code, output = rlx(*arguments)
    flat = " ".join(output.split())
    assert code == 0, output
    assert "step_000010 is damaged (the best checkpoint step_000005 is damaged: model.safetensors does not have" in flat
    assert "and 2 more were set aside; the run goes on from step_000004" in flat
    assert (run / "model" / "model.safetensors").read_bytes() == model
    assert records(run) == before
