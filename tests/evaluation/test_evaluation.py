"""Evaluation end to end on the embedded model: figures, resumption, regrading and what a person may get wrong."""

from __future__ import annotations

import csv
import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from rlx.errors import UserError
from rlx.evaluation.processes import sample_in_processes
from rlx.evaluation.report import as_record, markdown, print_report
from rlx.evaluation.run import run_eval, stored_results
from rlx.rl.run import run as train_run
from rlx.rollout.hf import HFSampler
from rlx.runs.folder import EvalDir, RunDir
from rlx.runs.locate import locator
from rlx.specs.evaluate import Protocol
from rlx.specs.resolve_evaluate import resolve_eval
from rlx.specs.resolve_train import resolve

SMALL = {"model": "embedded", "n": 2, "limit": 12, "batch": 8, "mlflow": False}
BENCH = Path("../shared/data/bench")


def evaluated(runs, **keys):
    return run_eval(resolve_eval({**SMALL, **keys}, locator(runs)))


def rows_of(folder: EvalDir):
    return [row for part in folder.parts() for row in pq.read_table(part).to_pylist()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    (outcome,) = evaluated(runs)
    return runs, outcome


def test_every_sample_is_stored_once_with_its_verdict_and_the_figures_follow_from_them(finished):
    runs, outcome = finished
    rows = rows_of(outcome.folder)
    assert len({(row["problem_id"], row["sample"]) for row in rows}) == len(rows) == 24
    assert all((row["response"].partition("#")[2] == row["gold"]) == bool(row["score"]) for row in rows)
    mean = sum(row["score"] for row in rows) / 24
    assert outcome.summary.average.value == pytest.approx(mean)
    assert outcome.summary.flat()["pass_at_1"] == pytest.approx(mean) == outcome.summary.flat()["maj_at_1"]
    assert outcome.summary.reasons == {r: sum(row["reason"] == r for row in rows) for r in outcome.summary.reasons}
    assert "12 problems" in outcome.summary.caution
    assert outcome.folder.first_prompt.read_text() == "57+60=" or "+" in outcome.folder.first_prompt.read_text()


def test_the_same_evaluation_again_reads_what_stands_and_samples_nothing(finished):
    runs, outcome = finished
    before = {part: part.stat().st_mtime_ns for part in outcome.folder.parts()}
    (again,) = evaluated(runs)
    assert {part: part.stat().st_mtime_ns for part in again.folder.parts()} == before
    assert again.summary == outcome.summary
    ((protocol, summary, scores),) = stored_results(RunDir(outcome.folder.root.parents[2]))
    assert (protocol, summary, scores) == (outcome.protocol, outcome.summary, outcome.scores)


def test_samples_do_not_depend_on_how_they_were_batched(finished, tmp_path):
    _, outcome = finished
    (other,) = evaluated(tmp_path, batch=5)
    by_sample = {(row["problem_id"], row["sample"]): row["response"] for row in rows_of(outcome.folder)}
    assert {(row["problem_id"], row["sample"]): row["response"] for row in rows_of(other.folder)} == by_sample
    assert other.protocol.digest == outcome.protocol.digest


def test_regrading_changes_verdicts_and_samples_nothing(finished):
    runs, outcome = finished
    (other,) = run_eval(resolve_eval({**SMALL, "grader": "integer"}, locator(runs)), regrade_only=True)
    assert other.protocol.grader == "integer" and other.protocol.same_responses(outcome.protocol)
    assert [row["response"] for row in rows_of(other.folder)] == [row["response"] for row in rows_of(outcome.folder)]
    assert set(other.summary.reasons) <= {"int", "no_answer", "wrong"}
    with pytest.raises(UserError, match="no stored responses of this protocol"):
        run_eval(resolve_eval({**SMALL, "seed": 5}, locator(runs)), regrade_only=True)


def test_the_same_figures_stand_in_every_format(finished, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    runs, outcome = finished
    resolved = resolve_eval(SMALL, locator(runs))
    value = outcome.summary.average.value
    assert f"{value:.1%} [" in markdown([outcome])
    assert as_record(resolved, [outcome])["averages"]["macro"]["value"] == pytest.approx(value)
    print_report(resolved, [outcome], "csv")
    table = {row["metric"]: float(row["value"]) for row in csv.DictReader(io.StringIO(capsys.readouterr().out))}
    assert table["avg_at_2"] == pytest.approx(value, abs=1e-5)
    print_report(resolved, [outcome], "json")
    assert json.loads(capsys.readouterr().out)["benchmarks"][0]["summary"]["average"]["value"] == pytest.approx(value)
    print_report(resolved, [outcome], "table")
    shown = capsys.readouterr().out
    assert f"{value:.1%} [" in shown and "caution: only 12 problems" in shown


def test_a_protocol_is_named_by_everything_but_the_model(finished):
    _, outcome = finished
    protocol = outcome.protocol
    changed = {
        "n": 3,
        "temperature": 1.0,
        "grader": "boxed",
        "prompt": "{problem} ",
        "seed": 1,
        "engine_version": "x",
        "dtype": "bfloat16 autocast",
        "chat_template": "y",
        "data_sha256": "z",
    }
    digests = {protocol.model_copy(update={key: value}).digest for key, value in changed.items()}
    assert len(digests | {protocol.digest}) == len(changed) + 1
    assert Protocol.model_validate_json(protocol.model_dump_json()).digest == protocol.digest


def command(runs, *more):
    keys = ["--n", "16", "--limit", "60", "--set", "batch=8", "--set", "mlflow=false"]
    return [sys.executable, "-m", "rlx.cli", "eval", *keys, "--runs-dir", str(runs), *more]


def test_a_killed_evaluation_goes_on_and_samples_nothing_twice(tmp_path):
    with subprocess.Popen(command(tmp_path), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as first:
        deadline = time.monotonic() + 120
        while len(list(tmp_path.glob("*/evaluations/*/*/samples.parquet/part_*"))) < 3:
            assert first.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        first.send_signal(signal.SIGKILL)
    (folder,) = [EvalDir(path) for path in tmp_path.glob("*/evaluations/*/*")]
    survivors = {part: part.stat().st_mtime_ns for part in folder.parts()}
    assert 3 <= len(survivors) < 120 and not folder.result.exists()
    done = subprocess.run(command(tmp_path, "--format", "json"), capture_output=True, text=True, check=True)
    assert {part: part.stat().st_mtime_ns for part in survivors} == survivors
    rows = rows_of(folder)
    assert len({(row["problem_id"], row["sample"]) for row in rows}) == len(rows) == 960
    (uncut,) = evaluated(tmp_path / "uncut", n=16, limit=60, batch=64)
    stored = json.loads(done.stdout)["benchmarks"][0]["summary"]
    assert stored["average"]["value"] == pytest.approx(uncut.summary.average.value, abs=1e-12)


def test_problems_shared_by_processes_give_the_samples_of_one_and_any_number_goes_on(tmp_path):
    with subprocess.Popen(command(tmp_path, "--processes", "2"), stderr=subprocess.DEVNULL) as first:
        deadline = time.monotonic() + 120
        while len(list(tmp_path.glob("*/evaluations/*/*/samples.parquet/part_*"))) < 4:
            assert first.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        first.send_signal(signal.SIGKILL)
    time.sleep(2.5)  # the processes look once a second whether their launcher still lives
    (folder,) = [EvalDir(path) for path in tmp_path.glob("*/evaluations/*/*")]
    survivors = {part: part.stat().st_mtime_ns for part in folder.parts()}
    assert len(survivors) >= 4 and not folder.result.exists()
    subprocess.run(command(tmp_path, "--processes", "3"), check=True, capture_output=True)
    assert {part: part.stat().st_mtime_ns for part in survivors} == survivors
    (alone,) = evaluated(tmp_path / "alone", n=16, limit=60, batch=1000)
    by_sample = {(row["problem_id"], row["sample"]): row["response"] for row in rows_of(alone.folder)}
    assert len(rows_of(folder)) == 960
    assert {(row["problem_id"], row["sample"]): row["response"] for row in rows_of(folder)} == by_sample
    assert folder.root.name == alone.folder.root.name


def test_ctrl_c_while_the_processes_start_prints_one_sentence(tmp_path):
    line = command(tmp_path, "--processes", "2")
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True, start_new_session=True) as started:
        deadline = time.monotonic() + 120
        while not (
            workers := [p for p in psutil.Process(started.pid).children() if "rlx.engine.worker" in p.cmdline()]
        ):
            assert started.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.5)  # they import torch for longer than that
        os.killpg(started.pid, signal.SIGINT)
        _, shown = started.communicate(timeout=60)
    assert started.returncode == 130
    assert shown.strip() == "stopped; run the same command again to resume"
    psutil.wait_procs(workers, timeout=20)
    assert not [worker for worker in workers if worker.is_running()]


def test_processes_that_cannot_share_vllms_copies_are_refused(tmp_path):
    resolved = resolve_eval({**SMALL, "tensor_parallel": 2}, locator(tmp_path)).model_copy(update={"engine": "vllm"})
    with pytest.raises(UserError, match="tensor_parallel is 2") as told:
        sample_in_processes(resolved, [], 3)
    assert "--processes" in told.value.fix


def test_a_stop_keeps_every_finished_response_and_what_comes_back_is_asked_for_once(tmp_path, monkeypatch):
    asked = []

    class Stopping(HFSampler):
        def stream(self, prompts, seeds, sampling):
            asked.append(sum(map(len, seeds)))
            for count, response in enumerate(super().stream(prompts, seeds, sampling)):
                if count == 10 and len(asked) == 1:
                    os.kill(os.getpid(), signal.SIGINT)
                yield response

    monkeypatch.setattr("rlx.evaluation.build.HFSampler", Stopping)
    assert evaluated(tmp_path, batch=1000) is None
    (folder,) = [EvalDir(path) for path in tmp_path.glob("*/evaluations/*/*")]
    assert len(rows_of(folder)) == 10
    (outcome,) = evaluated(tmp_path, batch=1000)
    assert len(rows_of(folder)) == 24 and outcome.folder == folder
    assert asked == [24, 14], "everything that is missing is given to the sampler in one call"


def test_finished_responses_are_written_after_some_time_however_few(tmp_path, monkeypatch):
    monkeypatch.setattr("rlx.evaluation.loop.WRITE_EVERY", 0.0)
    (outcome,) = evaluated(tmp_path, batch=1000)
    assert [pq.read_metadata(part).num_rows for part in outcome.folder.parts()] == [1] * 24


def _no_room():
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


def test_a_full_disk_is_one_sentence_and_what_was_done_is_kept(tmp_path):
    # A coverage measurement would want room for a file of its own.
    plain = {key: value for key, value in os.environ.items() if not key.startswith("COV")}
    room = subprocess.run(command(tmp_path), capture_output=True, text=True, preexec_fn=_no_room, env=plain)
    assert room.returncode == 1
    assert "cannot be written" in room.stderr and "free some space" in room.stderr
    assert "Traceback" not in room.stderr
    (folder,) = [EvalDir(path) for path in tmp_path.glob("*/evaluations/*/*")]
    survivors = {part: part.stat().st_mtime_ns for part in folder.parts()}
    assert not folder.result.exists()
    assert subprocess.run(command(tmp_path), capture_output=True).returncode == 0
    assert {part: part.stat().st_mtime_ns for part in survivors} == survivors
    rows = rows_of(folder)
    assert len({(row["problem_id"], row["sample"]) for row in rows}) == len(rows) == 960


def test_a_run_is_evaluated_in_its_own_folder_by_checkpoint(tmp_path):
    content = {"steps": 2, "batch": {"prompts": 4, "updates_per_rollout": 1}, "rollout": {"samples_per_prompt": 2}}
    content |= {"evaluation": {"every": 1, "limit": 4}, "tracker": {"mlflow": False}, "checkpoint": {"every": 1}}
    resolved = resolve(content)
    run = RunDir(tmp_path / resolved.run_id)
    assert train_run(resolved, content, run) == 0
    results = {}
    for checkpoint in ("final", "2", "best"):
        (outcome,) = evaluated(tmp_path, model=resolved.run_id, checkpoint=checkpoint)
        assert outcome.folder.root.parents[2] == run.root
        results[checkpoint] = [row["response"] for row in rows_of(outcome.folder)]
    assert results["final"] == results["2"]
    assert {path.name for path in (run.root / "evaluations").iterdir()} <= {"final", "step_000001", "step_000002"}
    with pytest.raises(UserError, match="holds no checkpoint '7'; choices: final, best, 1, 2"):
        evaluated(tmp_path, model=resolved.run_id, checkpoint="7")


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"benchmarks": ["aime42"]}, "benchmark 'aime42' is not a known benchmark; did you mean 'aime"),
        ({"model": "no/such/folder"}, "there is no model 'no/such/folder'"),
        ({"model": ".", "benchmarks": ["gsm8k"]}, "'.' is neither a run folder nor a saved model"),
        ({"grader": "rlxx"}, "grader 'rlxx' is not a known reward; did you mean 'rlx'"),
        ({"data_dir": "nowhere", "benchmarks": ["gsm8k"]}, "'nowhere' is not a folder"),
        ({"preset": "r2"}, "preset is 'r2'"),
        ({"checkpoint": "best"}, "checkpoint is 'best', but 'embedded' is not a run folder"),
        ({"n": 0}, "n is 0"),
        ({"prompt": "solve it"}, "prompt is 'solve it'"),
    ],
)
def test_what_a_person_gets_wrong_is_one_sentence(keys, sentence, tmp_path):
    with pytest.raises(UserError) as error:
        resolve_eval({**SMALL, **keys}, locator(tmp_path))
    assert sentence in str(error.value)


def test_a_missing_file_and_changed_rows_are_refused_before_anything_is_loaded(tmp_path):
    with pytest.raises(UserError, match=r"benchmark aime24: there is no file .*aime24.jsonl"):
        evaluated(tmp_path, benchmarks=["aime24"], data_dir=str(tmp_path))
    (tmp_path / "aime24.jsonl").write_text(json.dumps({"problem": "1+1?", "answer": "2"}) + "\n")
    with pytest.raises(UserError, match="the 1 rows have the hash .* the 30 reviewed rows .*unpinned=true"):
        evaluated(tmp_path, benchmarks=["aime24"], data_dir=str(tmp_path))


def test_a_model_that_does_not_load_is_one_sentence(tmp_path):
    model = tmp_path / "broken"
    model.mkdir()
    (model / "config.json").write_text("{}")
    with pytest.raises(UserError, match="does not load"):
        evaluated(tmp_path, model=str(model), benchmarks=["arithmetic"])


def test_the_command_says_it_in_one_line_and_leaves_no_traceback(tmp_path):
    said = subprocess.run(
        command(tmp_path, "--bench", "arithmetics"), capture_output=True, text=True, env={**os.environ, "COLUMNS": "80"}
    )
    assert said.returncode == 2
    assert said.stderr.startswith("rlx: benchmark 'arithmetics' is not a known benchmark; did you mean 'arithmetic'?")
    assert len(said.stderr.splitlines()) == 1
