"""Requests over time through the real command: three rounds, kill -9, nothing to forget, masked files, purge."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from rlx.unlearning.certificate_schema import Certificate
from rlx.unlearning.data.minitofu import generate

TARGET = Path(__file__).parents[2] / "rlx" / "assets" / "minitofu" / "target"
SETTINGS = [
    "--method", "grad_diff", "--epochs", "12", "--set", "optim.lr=5e-4", "--set", "batch.forget=4",
    "--set", "batch.retain=16", "--set", "evaluation.max_new_tokens=12", "--set", "evaluation.limit=10",
    "--set", "evaluation.every=6", "--set", "evaluation.attacks=[quantize]", "--set", "evaluation.utility_budget=0.8",
    "--set", "tracker.mlflow=false", "--set", "checkpoint.every=4",
]  # fmt: skip
VOLATILE = ("time/", "perf/", "memory/")


def rlx(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rlx.cli", "unlearn", *arguments]
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, **options)


def folder(runs: Path, name: str) -> Path:
    (match,) = runs.glob(f"{name}-*")
    return match


def certificate(run: Path) -> dict:
    return json.loads((run / "certificate.json").read_text())


def write(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def request_row(request, **more: object) -> dict:
    spans = [[span.start, span.end] for span in request.spans]
    keys = {"id": request.id, "question": request.question, "answer": request.answer}
    return {**keys, "spans": spans, "subject": request.subject, **more}


@pytest.fixture(scope="module")
def rounds(tmp_path_factory):
    """Three runs, each of which continues the one before, with four requests of one author each."""
    at = tmp_path_factory.mktemp("rounds")
    data = generate(0)
    retain = write(at / "retain.jsonl", [{"question": r.question, "answer": r.answer} for r in data.retain[:40]])
    runs, first = at / "runs", ["--model", str(TARGET), "--retain", retain, *SETTINGS]
    for number in range(3):
        requests = [r for r in data.forget if r.author == number][:4]
        rows = [request_row(r, received=f"2026-0{number + 1}-01", basis="Art. 17 GDPR") for r in requests]
        start = first if number == 0 else ["--after", folder(runs, f"round{number - 1}").name]
        file = write(at / f"requests{number}.jsonl", rows)
        done = rlx(*start, "--forget", file, "--run-name", f"round{number}", "--runs-dir", str(runs))
        assert done.returncode == 0, done.stderr
    return at, [folder(runs, f"round{number}") for number in range(3)]


def test_round_one_stays_forgotten_and_every_certificate_lists_all_earlier_requests(rounds):
    _, (first, second, third) = rounds
    assert {row["verdict"]["status"] for row in certificate(first)["requests"]} == {"no longer extractable"}
    for run, earlier in ((second, [first]), (third, [first, second])):
        content = certificate(run)
        Certificate.model_validate(content)
        rows = content["earlier_requests"]
        assert [row["run"] for row in rows] == [one.name for one in earlier for _ in range(4)]
        of_first = [row for row in rows if row["run"] == first.name]
        assert {row["verdict"]["status"] for row in of_first} == {"no longer extractable"}
        assert {row["verdict_then"] for row in of_first} == {"no longer extractable"}
        assert {row["received"] for row in of_first} == {"2026-01-01"}
        then = {row["id"]: row["baseline"] for row in certificate(first)["requests"]}
        assert {row["id"]: row["baseline"] for row in of_first} == then
        assert content["run"]["after"] == earlier[-1].name
        page = (run / "certificate.html").read_text()
        assert f"rlx unlearn --purge {first.name}" in page and "had to stay forgotten" in page


def test_a_round_takes_over_settings_and_start_from_the_one_before(rounds):
    at, (first, second, _) = rounds
    one, two = (json.loads((run / "resolved.json").read_text())["spec"] for run in (first, second))
    assert two["model"]["path"] == str(first / "model") and two["after"] == str(first)
    assert two["forget"]["retain"] == one["forget"]["retain"] and two["forget"]["source"].endswith("requests1.jsonl")
    assert {key: two[key] for key in ("optim", "method", "epochs", "batch")} == {
        key: one[key] for key in ("optim", "method", "epochs", "batch")
    }


def test_an_earlier_request_whose_file_has_changed_is_not_tested_and_the_run_is_not_supported(rounds, tmp_path):
    at, (first, *_) = rounds
    runs = tmp_path / "runs"
    shutil.copytree(first, runs / first.name)
    file = at / "requests0.jsonl"
    text = file.read_text()
    try:
        file.write_text(text.replace("born", "raised"))
        done = rlx(
            "--after", first.name, "--forget", str(at / "requests1.jsonl"), "--epochs", "1", "--run-name", "next",
            "--runs-dir", str(runs),
        )  # fmt: skip
    finally:
        file.write_text(text)
    assert done.returncode == 0, done.stderr
    content = certificate(folder(runs, "next"))
    assert content["outcome"] == "not supported" and content["earlier_counts"] == {"not tested": 4}
    assert "has changed since" in content["verdict"]


def test_a_round_killed_again_and_again_ends_in_the_same_bits(rounds):
    at, (_, second, third) = rounds
    whole = at / "whole"
    third.rename(whole)
    arguments = [
        "--after", str(second), "--forget", str(at / "requests2.jsonl"), "--run-name", "round2",
        "--runs-dir", str(at / "runs"),
    ]  # fmt: skip
    kills = 0
    try:
        for target in (3, 6, 10):
            command = [sys.executable, "-m", "rlx.cli", "unlearn", *arguments]
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
            process = subprocess.Popen(command, **quiet)
            while process.poll() is None and _lines(third / "metrics.jsonl") < target:
                time.sleep(0.005)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
            process.wait()
        last = rlx(*arguments)
        assert last.returncode == 0, last.stderr
        assert kills >= 2
        for name in ("model/model.safetensors", "checkpoints/step_000012/optimizer.safetensors"):
            assert (third / name).read_bytes() == (whole / name).read_bytes(), name
        assert _records(third) == _records(whole)
        assert _without_hashes(certificate(third)) == _without_hashes(certificate(whole))
    finally:
        shutil.rmtree(third, ignore_errors=True)
        whole.rename(third)


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def _records(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.startswith(VOLATILE)} for line in lines]


def _without_hashes(content):
    """A certificate without the hashes under the run's random key."""
    if isinstance(content, dict):
        return {key: _without_hashes(value) for key, value in content.items() if not str(value).startswith("hmac:")}
    return [_without_hashes(value) for value in content] if isinstance(content, list) else content


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--after", "nowhere"], "there is no such run"),
        (["--after", "{first}", "--model", "other"], "leave one of them out"),
        (["--after", "{first}"], "forget.source"),
        (["--set", "after={first}", "--set", "model.path=other"], "leave one of them out"),
        (["--purge", "nowhere"], "there is no such run"),
        (["--purge", "{first}"], "add --yes"),
    ],
)
def test_mistakes_are_one_sentence(rounds, arguments, problem):
    at, (first, *_) = rounds
    filled = [argument.format(first=first.name) for argument in arguments]
    done = rlx(*filled, "--runs-dir", str(at / "runs"), stdin=subprocess.DEVNULL)
    assert done.returncode != 0 and problem in done.stderr and "Traceback" not in done.stderr
    assert (first / "checkpoints").is_dir()


PEOPLE = [
    {"id": "Bob", "subject": "Bob", "question": "What is Bob's phone number?",
     "answer": "Bob's phone number is 555-0199.", "spans": [[2, 30, "555-0199"]]},
    {"id": "a2", "subject": "Eve", "question": "Is 555-0199 Bob's number? Where does Eve live?",
     "answer": "Eve lives in Elm Street 7.", "spans": [[13, 25]]},
    {"id": "a3", "subject": "Ann", "question": "What illness does Ann have?", "answer": "Ann has asthma.",
     "spans": [[8, 14]]},
    {"id": "a4", "subject": "Tim", "question": "What does Tim earn?", "answer": "Tim earns 4,200.",
     "spans": [[10, 15]]},
]  # fmt: skip
SECRETS = (b"555-0199", b"Elm Street", b"asthma", b"4,200", b"What is Bob")


@pytest.fixture(scope="module")
def never_known(tmp_path_factory):
    """A random model that never saw the requests, run with MLflow."""
    at = tmp_path_factory.mktemp("random")
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(TARGET)).save_pretrained(at / "model")
    AutoTokenizer.from_pretrained(TARGET).save_pretrained(at / "model")
    retain = [{"question": "What is the capital of France?", "answer": "Paris."}, *generate_rows(6)]
    arguments = [
        "--model", str(at / "model"), "--forget", write(at / "r.jsonl", PEOPLE),
        "--retain", write(at / "retain.jsonl", retain), "--epochs", "2", "--method", "npo",
        "--runs-dir", str(at / "runs"), "--run-name", "random", "--set", "evaluation.max_new_tokens=8",
        "--set", "evaluation.attacks=[relearn, prefix]",
        "--set", "evaluation.relearn_updates=1",
    ]  # fmt: skip
    done = rlx(*arguments, cwd=at)
    return at, folder(at / "runs", "random"), arguments, done


def generate_rows(number: int) -> list[dict]:
    return [{"question": r.question, "answer": r.answer} for r in generate(0).retain[:number]]


def test_a_model_that_never_knew_the_requests_ends_in_nothing_to_forget(never_known):
    _, run, _, done = never_known
    assert done.returncode == 0, done.stderr
    content = certificate(run)
    assert content["outcome"] == "nothing to forget" and content["counts"] == {"not known before": 4}
    assert "Nothing to forget" in (run / "certificate.html").read_text()
    assert "supported" not in content["verdict"] and "nothing to forget" in done.stdout
    end = {line.split()[0]: line for line in done.stdout.splitlines()[-5:]}
    assert list(end) == ["model", "metrics", "certificate", "MLflow", "next"]
    assert str(run / "model") in end["model"] and str(run / "certificate.html") in end["certificate"]


def test_no_file_of_the_run_or_of_mlflow_holds_a_sensitive_text_unless_asked_for(never_known):
    at, run, arguments, _ = never_known
    files = [file for file in (at / "runs").rglob("*") if file.is_file()]
    assert any(".mlflow_artifacts" in str(file) and file.name == "certificate.json" for file in files)
    for file in files:
        for secret in SECRETS:
            assert secret not in file.read_bytes(), (file, secret)
    import pyarrow.parquet as pq

    rows = [row for part in (run / "samples.parquet").glob("*.parquet") for row in pq.read_table(part).to_pylist()]
    assert rows and not any(secret.decode() in str(row) for row in rows for secret in SECRETS)
    assert "Bob" not in {row["id"] for row in rows} | {row["id"] for row in certificate(run)["requests"]}
    assert stat.S_IMODE((run / "mask.key").stat().st_mode) == 0o600
    assert not (run / "certificate_clear.html").exists()


def test_show_secrets_writes_one_file_that_only_its_owner_reads(never_known):
    at, run, arguments, _ = never_known
    before = (run / "certificate.json").read_bytes()
    done = rlx(*arguments, "--show-secrets", cwd=at)
    assert done.returncode == 0, done.stderr
    clear = run / "certificate_clear.html"
    assert b"555-0199" in clear.read_bytes() and b"Elm Street" in clear.read_bytes()
    assert stat.S_IMODE(clear.stat().st_mode) == 0o600 and str(clear) in done.stdout
    assert (run / "certificate.json").read_bytes() == before
    others = [file for file in (at / "runs").rglob("*") if file.is_file() and file != clear]
    assert not any(b"555-0199" in file.read_bytes() for file in others)


def test_purge_lists_asks_and_deletes_what_holds_the_knowledge(never_known):
    at, run, arguments, _ = never_known
    purge = ["--purge", "random-" + run.name.split("-")[-1], "--runs-dir", str(at / "runs")]
    declined = rlx(*purge, input="n\n")
    assert declined.returncode == 1 and "nothing was deleted" in declined.stdout
    for part in ("checkpoints", "samples.parquet", ".references", "in clear", "not deleted: the unlearned model"):
        assert part in declined.stdout
    assert list((at / "runs" / ".references").glob("*.safetensors")) and any((run / "checkpoints").iterdir())
    assert rlx(*purge, input="y\n").returncode == 0
    for name in ("checkpoints", "samples.parquet", "certificate_clear.html"):
        assert not (run / name).exists()
    assert not list((at / "runs" / ".references").glob("*.safetensors"))
    assert (run / "model" / "model.safetensors").is_file() and (run / "certificate.json").is_file()
    again = rlx(*purge, "--yes")
    assert again.returncode == 0 and "holds nothing" in again.stdout
    assert rlx(*arguments, cwd=at).returncode == 0, "a purged run is still complete"


def test_mlflow_has_no_sensitive_text_in_its_database(never_known):
    at, *_ = never_known
    with sqlite3.connect(at / "runs" / "mlflow.db") as database:
        assert not any(secret.decode() in line for line in database.iterdump() for secret in SECRETS)
