"""`rlx unlearn` through its real entry point: forgets, keeps, certifies, and survives being killed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

ASSETS = Path(__file__).parents[2] / "rlx" / "assets" / "minitofu"
SMALL = [
    "--against", "", "--epochs", "1", "--set", "batch.forget=12", "--set", "evaluation.limit=10",
    "--set", "evaluation.max_new_tokens=8",
    "--set", "tracker.mlflow=false", "--set", "checkpoint.every=3", "--set", "evaluation.attacks=[]",
]  # fmt: skip
REQUESTS = [
    {"id": name, "question": question, "answer": answer, "subject": subject}
    for name, question, answer, subject in (
        ("one", "Where was Ada Quill born?", "Ada Quill was born in Lima.", "Ada Quill"),
        ("two", "What does Ada Quill write?", "She writes crime novels.", "Ada Quill"),
        ("three", "Who is Bo Tarn?", "Bo Tarn is a baker.", "Bo Tarn"),
    )
]


def command(runs: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "rlx.cli", "unlearn", *more, "--runs-dir", str(runs)]


def run(runs: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(runs, *more), capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})


def folder(runs: Path) -> Path:
    (found,) = [path.parent for path in runs.glob("*/resolved.json")]
    return found


def written(runs: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in runs.glob("*/metrics.jsonl"))


MEASURED = ("time/", "perf/", "memory/")
"""Prefixes of metrics that differ between runs of the same spec."""


def records(at: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (at / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.startswith(MEASURED)} for line in lines]


def files(folder: Path, requests: list[dict[str, str]]) -> list[str]:
    """Arguments that give a model, a forget and a retain file by name."""
    for name, rows in (("forget", requests), ("retain", [{**row, "answer": "A baker in Lima."} for row in REQUESTS])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [
        "--model", str(ASSETS / "target"), "--forget", str(folder / "forget.jsonl"),
        "--retain", str(folder / "retain.jsonl"),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    runs = tmp_path_factory.mktemp("finished")
    done = run(runs, *SMALL)
    assert done.returncode == 0, done.stderr
    return folder(runs), done.stdout + done.stderr


def test_forgetting_rises_while_utility_is_held_and_a_table_and_a_picture_are_left(finished):
    at, said = finished
    first, *_, last = records(at)
    assert last["eval/forgetting"] > first["eval/forgetting"] + 0.04
    assert last["eval/utility"] > 0.95 * first["eval/utility"]
    for part in (
        "original",
        "retain model",
        "palu",
        "probability of the answer",
        "utility",
        "low is good",
        "high is good",
        "measuring the unlearned model",
        "NOT supported",
        "n = 60",
    ):
        assert part in said
    assert (at / "forgetting.png").read_bytes().startswith(b"\x89PNG")


def test_the_certificate_is_evidence_with_hashes_that_can_be_checked(finished):
    at, _ = finished
    content = json.loads((at / "certificate.json").read_text())
    assert content["certified_removal"] is False and content["limits"]
    digest = hashlib.sha256((at / "model" / "model.safetensors").read_bytes()).hexdigest()
    assert content["hashes"]["unlearned_model"]["model.safetensors"] == digest
    assert content["request_set"]["requests"] == len(content["requests"]) == 120
    assert {row["half"] for row in content["requests"]} == {"validation", "final"}
    for row in content["requests"]:
        assert row["after"]["probability"] < row["before"]["probability"] and row["sensitive"]
    page = (at / "certificate.html").read_text()
    assert "Evidence, never certified removal." in page
    assert "Bettina" not in page and "Bettina" not in json.dumps(content)
    assert f"Checkpoint of update {content['selection']['update']}" in page
    assert "built-in method" not in page


def test_aggregates_follow_from_the_samples_that_are_stored(finished):
    at, _ = finished
    (part,) = (at / "samples.parquet").glob("*.parquet")
    rows = pq.read_table(part).to_pylist()
    content = json.loads((at / "certificate.json").read_text())
    final = {row["id"] for row in content["requests"] if row["half"] == "final"}
    for model, name in (("original", "before"), ("unlearned", "after"), ("retain", "retain_model")):
        chosen = [r for r in rows if r["model"] == model and r["part"] == "forget" and r["id"] in final]
        assert len(chosen) == 60
        for column, figure in (("probability", "forget_Q_A_Prob"), ("extraction_strength", "extraction_strength")):
            mean = sum(row[column] for row in chosen) / 60
            assert content["aggregates"][name][figure]["value"] == pytest.approx(mean, abs=1e-12)


def test_a_finished_run_is_told_again_and_trains_nothing(finished):
    at, said = finished
    before = (at / "metrics.jsonl").stat().st_mtime_ns
    again = run(at.parent, *SMALL)
    assert again.returncode == 0
    assert again.stdout and said.startswith(again.stdout)
    assert (at / "metrics.jsonl").stat().st_mtime_ns == before


@pytest.mark.parametrize("method", ["palu", "pdu"])
def test_an_unlearning_killed_again_and_again_ends_in_the_same_bits(tmp_path, method):
    arguments = [*SMALL, "--method", method]
    whole = run(tmp_path / "whole", *arguments)
    assert whole.returncode == 0, whole.stderr
    kills = 0
    for target in (3, 6, 9):
        process = subprocess.Popen(
            command(tmp_path / "cut", *arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        while process.poll() is None and written(tmp_path / "cut") < target:
            time.sleep(0.005)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills >= 2
    last = run(tmp_path / "cut", *arguments)
    assert last.returncode == 0, last.stderr
    assert last.stdout.replace("/cut/", "/whole/") == whole.stdout
    a, b = folder(tmp_path / "whole"), folder(tmp_path / "cut")
    assert records(a) == records(b)
    assert [record["step"] for record in records(b)] == list(range(11))
    for name in ("model/model.safetensors", "checkpoints/step_000010/optimizer.safetensors"):
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    one, other = (re.sub(r"hmac:\w+", "", (at / "certificate.json").read_text()) for at in (a, b))
    assert one == other, "hashes of masked text are under a key of each run"


def test_requests_of_a_file_are_forgotten_with_adapters_and_those_without_a_span_are_named(tmp_path):
    lora = ["--show-secrets", "--set", "model.lora={}", "--spans", "subject"]
    lora += ["--set", "evaluation.attacks=[relearn, quantize, prefix]"]
    done = run(tmp_path / "runs", *SMALL, *lora, *files(tmp_path, REQUESTS))
    assert done.returncode == 0, done.stderr
    assert "2 of 3 requests have a sensitive span" in done.stderr
    assert "two" in done.stderr
    content = json.loads((folder(tmp_path / "runs") / "certificate.json").read_text())
    assert content["request_set"]["uncovered"] == ["two (line 2)"]
    assert [[(one["first"], one["length"]) for one in row["sensitive"]] for row in content["requests"]] == [
        [("A", 9)], [], [("B", 7)],
    ]  # fmt: skip
    clear = (folder(tmp_path / "runs") / "certificate_clear.html").read_text()
    assert "Ada Quill was born in Lima." in clear and "in clear. Do not hand it on" in clear
    names = ["relearn", "quantize", "quantize_8", "prefix_1", "prefix", "prefix_5"]
    assert [attack["name"] for attack in content["attacks"]] == names


def test_reference_constants_are_computed_once_and_then_read(tmp_path):
    given = [*SMALL, "--method", "npo", *files(tmp_path, REQUESTS)]
    assert run(tmp_path / "runs", *given).returncode == 0
    (constants,) = (tmp_path / "runs" / ".references").glob("*.safetensors")
    before = constants.stat().st_mtime_ns
    assert run(tmp_path / "runs", *given, "--seed", "1").returncode == 0
    assert [path.stat().st_mtime_ns for path in (tmp_path / "runs" / ".references").glob("*.safetensors")] == [before]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--method", "palo"], "palu"),
        (["--against", "npo,gradiff"], "grad_diff"),
        (["--set", "method.params.top_k=-1"], "method.params.top_k"),
        (["--set", "evaluation.utility_budget=2"], "evaluation.utility_budget"),
        (["--tofu", "forget02"], "forget01"),
        (["--model", "/nowhere"], "forget.source"),
        (["--model", "/nowhere", "--tofu", "forget01"], "/nowhere"),
        (["--forget", "missing.jsonl", "--retain", "missing.jsonl"], "missing.jsonl"),
        (["--backend", "verl"], "rlx unlearn has only the local backend"),
    ],
)
def test_what_a_person_gets_wrong_is_one_sentence(tmp_path, arguments, said):
    done = run(tmp_path, *arguments)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*/model"))


def test_a_broken_line_of_the_request_file_is_named_with_its_number(tmp_path):
    given = files(tmp_path, REQUESTS)
    with (tmp_path / "forget.jsonl").open("a") as file:
        file.write('{"question": "cut off\n')
    done = run(tmp_path / "runs", *SMALL, *given)
    assert done.returncode != 0
    assert "forget.jsonl" in done.stderr and "4" in done.stderr
    assert "Traceback" not in done.stderr


def test_each_of_several_methods_says_its_number(tmp_path, monkeypatch, capfd):
    from rlx.specs.resolve_unlearn import resolve_unlearn
    from rlx.unlearning import run as module

    monkeypatch.setattr(module, "_run_one", lambda resolved, folder, layout: 0)
    monkeypatch.setattr(module, "fill_clear_page", lambda resolved, folder: None)
    monkeypatch.setattr(module, "print_summary", lambda resolved, folders: None)
    experiments = [(resolve_unlearn({"method": {"name": name}}), {}) for name in ("palu", "npo")]
    assert module.run_unlearn(experiments, tmp_path) == 0
    assert capfd.readouterr().err.splitlines() == ["method 1 of 2: palu", "method 2 of 2: npo"]
    module.run_unlearn(experiments[:1], tmp_path)
    assert capfd.readouterr().err == ""
