"""metrics.jsonl is the source of truth; MLflow beside it may fail without harm."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from rlx.errors import UserError
from rlx.track import JsonlLog, MlflowSink, flattened, legal_name, public_uri, read_metrics, tracking_uri


def sink(tmp_path, warnings, uri=None, logged_through=-1):
    return MlflowSink(
        uri=uri or f"sqlite:///{tmp_path / 'mlflow.db'}",
        experiment="tests",
        name="one",
        id_file=tmp_path / "mlflow.json",
        warn=warnings.append,
        logged_through=logged_through,
    )


def test_lines_survive_as_written_and_half_a_line_is_left_out(tmp_path):
    log = JsonlLog(tmp_path / "metrics.jsonl")
    log.write({"step": 0, "a/b": 0.1 + 0.2})
    log.write({"step": 1, "a/b": float("nan"), "c": float("inf")})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "a/')
    assert read_metrics(tmp_path / "metrics.jsonl") == [
        {"step": 0, "a/b": 0.1 + 0.2},
        {"step": 1, "a/b": None, "c": None},
    ]
    assert read_metrics(tmp_path / "no.jsonl") == []


def test_rewinding_cuts_the_file_and_tells_what_stood_there(tmp_path):
    log = JsonlLog(tmp_path / "metrics.jsonl")
    log.write({"step": 0})
    offset = log.offset
    for step in (1, 2, 3):
        log.write({"step": step})
    assert log.rewind(offset) == 3
    log.write({"step": 1, "again": 1})
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 0}, {"step": 1, "again": 1}]


def test_a_full_disk_is_one_sentence():
    log = JsonlLog(Path("/dev/full"))
    with pytest.raises(UserError, match=r"/dev/full cannot be written \(No space left on device\)"):
        log.write({"step": 0})


def test_mlflow_holds_params_finite_metrics_and_artifacts_and_goes_on_after_a_kill(tmp_path):
    (tmp_path / "spec.yaml").write_text("seed: 1\n")
    warnings: list[str] = []
    first = sink(tmp_path, warnings)
    first.start({"optim": {"lr": 1e-4}, "long": "x" * 9000}, {"rlx.run_id": "one"}, [tmp_path / "spec.yaml"])
    for step in range(3):
        first.write({"step": step, "train/reward": step / 10, "eval/avg@8": 0.5, "bad": float("nan")})
    first.close("KILLED")
    second = sink(tmp_path, warnings, logged_through=2)
    second.start({}, {}, [])
    for step in range(1, 5):
        second.write({"step": step, "train/reward": step / 10})
    second.close("FINISHED")
    assert warnings == []
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    run = client.get_run(json.loads((tmp_path / "mlflow.json").read_text())["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.params["optim.lr"] == "0.0001"
    assert len(run.data.params["long"]) == 500
    assert run.data.tags["rlx.run_id"] == "one"
    assert [m.step for m in client.get_metric_history(run.info.run_id, "train/reward")] == [0, 1, 2, 3, 4]
    assert run.data.metrics["eval/avg_8"] == 0.5
    assert "bad" not in run.data.metrics
    assert [item.path for item in client.list_artifacts(run.info.run_id)] == ["spec.yaml"]


def test_a_dead_server_costs_one_warning_and_no_waiting_in_training(tmp_path):
    warnings: list[str] = []
    dead = sink(tmp_path, warnings, uri="http://user:secret@127.0.0.1:9")
    start = time.perf_counter()
    dead.start({}, {}, [])
    for step in range(100):
        dead.write({"step": step, "x": 1.0})
    assert time.perf_counter() - start < 1
    dead.close("FINISHED", timeout=60)
    assert len(warnings) == 1
    assert "127.0.0.1:9 is not reachable" in warnings[0]
    assert "secret" not in warnings[0]


def test_two_processes_may_open_a_fresh_store_at_once(tmp_path):
    program = (
        "import sys; from pathlib import Path; from rlx.track import MlflowSink\n"
        "folder, name = Path(sys.argv[1]), sys.argv[2]\n"
        "s = MlflowSink(f'sqlite:///{folder}/mlflow.db', 'tests', name, folder / f'{name}.json', print)\n"
        "s.start({}, {}, []); s.write({'step': 0, 'x': 1.0}); s.close('FINISHED', timeout=120)\n"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path), name], stdout=subprocess.PIPE, text=True)
        for name in ("one", "two")
    ]
    assert [process.communicate()[0] for process in both] == ["", ""]
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("tests").experiment_id])
    assert sorted(run.info.run_name for run in runs) == ["one", "two"]
    assert {run.data.metrics["x"] for run in runs} == {1.0}


def test_names_and_parameters_are_made_legal():
    assert legal_name("eval/avg@32,x=1") == "eval/avg_32_x_1"
    assert flattened({"a": {"b": 1, "c": {}}, "d": None}) == {"a.b": "1", "a.c": "{}", "d": "None"}
    assert public_uri("https://me:word@host/x") == "https://host/x"


def test_the_store_is_in_the_runs_folder_unless_the_environment_names_another(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert tracking_uri(tmp_path) == "http://host:5000"
