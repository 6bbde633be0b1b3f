"""metrics.jsonl is the source of truth; MLflow beside it may fail without harm."""

from __future__ import annotations

import json
import math
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command import rlx
from conftest import TRAIN
from mlflow.tracking import MlflowClient

from rlx.errors import UserError
from rlx.runs.mlflow_settings import flattened, public_uri
from rlx.runs.tracking import JsonlLog, MlflowSink, legal_name, read_metrics, tracking_uri


def sink(tmp_path, warnings, uri=None):
    return MlflowSink(
        uri=uri or f"sqlite:///{tmp_path / 'mlflow.db'}",
        experiment="tests",
        name="one",
        id_file=tmp_path / "mlflow.json",
        warn=warnings.append,
    )


def stored(tmp_path):
    """The client, and the run that mlflow.json names."""
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    return client, client.get_run(json.loads((tmp_path / "mlflow.json").read_text())["run_id"])


def test_lines_survive_as_written_and_half_a_line_is_left_out(tmp_path):
    warnings: list[str] = []
    path = tmp_path / "metrics.jsonl"
    log = JsonlLog(path, warnings.append)
    log.write({"step": 0, "b": 0.1 + 0.2, "a": 5e-324})
    for step in (1, 2):
        log.write({"step": step, "b": float("nan"), "c": float("-inf")})
    assert log.offset == path.stat().st_size
    log.close()
    with path.open("a") as file:
        file.write('{"step": 3, "b')
    assert path.read_text().splitlines()[:2] == [
        '{"step": 0, "b": 0.30000000000000004, "a": 5e-324}',
        '{"step": 1, "b": null, "c": null}',
    ]
    first, second, third = read_metrics(path)
    assert first == {"step": 0, "b": 0.1 + 0.2, "a": 5e-324}
    assert math.isnan(second["b"]) and math.isnan(third["c"])
    assert warnings == [f"not finite at step 1, null in {path}: b, c"]
    assert read_metrics(tmp_path / "no.jsonl") == []


def test_rewinding_cuts_everything_behind_a_checkpoint_and_goes_on_there(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = JsonlLog(path, print)
    log.write({"step": 0})
    offset = log.offset
    log.write({"step": 1})
    log.close()
    with path.open("a") as file:
        file.write('{"step": 2, "half')
    again = JsonlLog(path, print)
    again.rewind(offset)
    again.write({"step": 1, "again": 1})
    assert read_metrics(path) == [{"step": 0}, {"step": 1, "again": 1}]
    assert again.offset == path.stat().st_size
    with pytest.raises(UserError, match=r"has 36 bytes where the checkpoint counts 99.*--fresh"):
        again.rewind(99)


def test_a_line_that_is_no_record_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for broken in ("{broken}", "7"):
        path.write_text(f'{{"step": 0}}\n{broken}\n{{"step": 2}}\n')
        with pytest.raises(UserError, match=r"metrics.jsonl, line 2 is not a record"):
            read_metrics(path)


def test_a_full_disk_is_one_sentence_and_closing_says_nothing_more():
    log = JsonlLog(Path("/dev/full"), print)
    with pytest.raises(UserError, match=r"/dev/full cannot be written \(No space left on device\)") as caught:
        log.write({"step": 0})
    assert caught.value.exit_code == 1
    log.close()


def test_mlflow_holds_params_finite_metrics_and_files_and_goes_on_after_a_kill(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "spec.yaml").write_text("seed: 1\n")
    warnings: list[str] = []
    params = {"optim": {"lr": 1e-4}, "long": "x" * 9000, "many": {str(i): i for i in range(250)}}
    begun = (params, {"rlx.run_id": "one"}, [tmp_path / "spec.yaml"])
    first = sink(tmp_path, warnings)
    first.start(*begun)
    for step in range(3):
        first.write({"step": step, "train/reward": step / 10, "eval/avg@8": 0.5, "bad": float("nan")})
    first.close("KILLED", timeout=300)
    assert stored(tmp_path)[1].info.status == "KILLED"
    second = sink(tmp_path, warnings)
    second.start(*begun)
    for step in range(5):
        second.write({"step": step, "train/reward": step / 10})
    second.close("FINISHED", timeout=300)
    assert warnings == []
    client, run = stored(tmp_path)
    assert run.info.status == "FINISHED"
    assert run.data.params["optim.lr"] == "0.0001"
    assert len(run.data.params["long"]) == 500
    assert run.data.params["many.249"] == "249"
    assert run.data.tags["rlx.run_id"] == "one"
    assert [m.step for m in client.get_metric_history(run.info.run_id, "train/reward")] == [0, 1, 2, 3, 4]
    assert run.data.metrics["eval/avg_8"] == 0.5
    assert "bad" not in run.data.metrics
    assert [item.path for item in client.list_artifacts(run.info.run_id)] == ["spec.yaml"]
    assert run.info.artifact_uri.startswith((tmp_path / ".mlflow_artifacts").as_uri())
    assert list(Path().iterdir()) == [], "MLflow left something where rlx was started"


def test_a_store_that_was_thrown_away_gets_the_whole_run_anew(tmp_path):
    warnings: list[str] = []
    (tmp_path / "mlflow.json").write_text(json.dumps({"run_id": "0" * 32}))
    lost = sink(tmp_path, warnings)
    lost.start({"seed": 1}, {}, [])
    for step in range(2):
        lost.write({"step": step, "x": step / 2})
    lost.close("FINISHED", timeout=300)
    client, run = stored(tmp_path)
    assert warnings == []
    assert [m.value for m in client.get_metric_history(run.info.run_id, "x")] == [0.0, 0.5]


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
    assert not (tmp_path / "mlflow.json").exists()


def test_a_server_that_never_answers_holds_the_end_up_by_no_more_than_its_bound(tmp_path):
    warnings: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as mute:
        slow = sink(tmp_path, warnings, uri=f"http://127.0.0.1:{mute.getsockname()[1]}")
        slow.start({}, {}, [])
        slow.write({"step": 0, "x": 1.0})
        start = time.perf_counter()
        slow.close("FINISHED", timeout=0.5)
        assert time.perf_counter() - start < 3
    assert "took over 0.5 s" in warnings[0]


def test_two_processes_may_open_a_fresh_store_at_once(tmp_path):
    program = (
        "import sys; from pathlib import Path; from rlx.runs.tracking import MlflowSink\n"
        "folder, name = Path(sys.argv[1]), sys.argv[2]\n"
        "s = MlflowSink(f'sqlite:///{folder}/mlflow.db', 'tests', name, folder / f'{name}.json', print)\n"
        "s.start({}, {}, []); s.write({'step': 0, 'x': 1.0}); s.close('FINISHED', timeout=300)\n"
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
    assert public_uri("https://me:p@ss@host/x") == "https://host/x"
    assert public_uri("no way to postgresql://host/db?password=word now") == "no way to postgresql://host/db now"
    assert public_uri("sqlite:////home/me@work/runs/mlflow.db") == "sqlite:////home/me@work/runs/mlflow.db"


def test_the_store_is_in_the_runs_folder_unless_the_environment_names_another(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert tracking_uri(tmp_path) == "http://host:5000"


def test_a_moved_store_does_not_create_its_former_folder_again(tmp_path):
    (tmp_path / "former").mkdir()
    file = tmp_path / "spec.yaml"
    file.write_text("steps: 1")
    for folder in ("former", "current"):
        if folder == "current":
            (tmp_path / "former").rename(tmp_path / "current")
        warnings: list[str] = []
        log = sink(tmp_path / folder, warnings)
        log.start({"lr": 1}, {}, [file])
        log.write({"step": len(folder), "loss": 0.5})
        log.close("FINISHED")
        assert warnings == []
    client, run = stored(tmp_path / "current")
    assert run.info.status == "FINISHED"
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 2
    assert not (tmp_path / "former").exists()


def settings_sink(tmp_path, warnings, **options):
    log = sink(tmp_path, warnings)
    log.changeable = ("sharding", "tracker", "reward.workers")
    for name, value in options.items():
        setattr(log, name, value)
    return log


def logged_once(log, params, steps, status="FINISHED"):
    log.start(params, {}, [])
    for step in steps:
        log.write({"step": step, "x": step / 2})
    log.close(status, timeout=300)


def test_a_run_that_goes_on_with_other_settings_keeps_them_as_tags(tmp_path):
    warnings: list[str] = []
    settings = {"lr": 1, "sharding": {"mode": "auto"}, "tracker": {"experiment": "rlx"}, "reward": {"workers": 0}}
    logged_once(settings_sink(tmp_path, warnings), settings, [0], "KILLED")
    changed = {**settings, "sharding": {"mode": "fsdp2"}, "reward": {"workers": 4}}
    logged_once(settings_sink(tmp_path, warnings), changed, [0, 1])
    _, run = stored(tmp_path)
    assert warnings == []
    assert run.info.status == "FINISHED" and run.data.metrics["x"] == 0.5
    assert run.data.params == {"lr": "1"}
    assert run.data.tags["sharding.mode"] == "fsdp2" and run.data.tags["reward.workers"] == "4"


def test_a_parameter_of_an_earlier_version_with_another_value_does_not_end_the_logging(tmp_path):
    warnings: list[str] = []
    logged_once(sink(tmp_path, warnings), {"lr": 1, "sharding": {"mode": "auto"}}, [0], "KILLED")
    logged_once(settings_sink(tmp_path, warnings), {"lr": 2, "sharding": {"mode": "none"}}, [0, 1])
    _, run = stored(tmp_path)
    assert warnings == [] and run.info.status == "FINISHED"
    assert run.data.params["sharding.mode"] == "auto" and run.data.tags["sharding.mode"] == "none"
    assert run.data.tags["lr"] == "2"


def test_another_experiment_gets_the_run_with_all_records(tmp_path):
    warnings: list[str] = []
    logged_once(settings_sink(tmp_path, warnings), {}, [0, 1], "KILLED")
    logged_once(settings_sink(tmp_path, warnings, experiment="other"), {}, [0, 1, 2])
    client, run = stored(tmp_path)
    assert client.get_experiment(run.info.experiment_id).name == "other" and run.info.status == "FINISHED"
    assert [m.step for m in client.get_metric_history(run.info.run_id, "x")] == [0, 1, 2]
    assert warnings == []


def test_a_deleted_experiment_is_named_with_the_way_out_and_then_gets_everything(tmp_path):
    warnings: list[str] = []
    logged_once(settings_sink(tmp_path, warnings), {"lr": 1}, [0], "KILLED")
    client, run = stored(tmp_path)
    client.delete_experiment(run.info.experiment_id)
    logged_once(settings_sink(tmp_path, warnings), {"lr": 1}, [0, 1])
    (sentence,) = warnings
    assert "'tests' was deleted" in sentence and "tracker.experiment=NAME" in sentence
    assert f"mlflow experiments restore --experiment-id {run.info.experiment_id}" in sentence
    client.restore_experiment(run.info.experiment_id)
    logged_once(settings_sink(tmp_path, warnings), {"lr": 1}, [0, 1])
    client, run = stored(tmp_path)
    assert run.info.status == "FINISHED" and run.data.metrics["x"] == 0.5 and len(warnings) == 1


def test_what_a_finished_run_did_not_log_is_sent_at_its_next_start(reference, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = tmp_path / reference.run.name
    shutil.copytree(reference.run, run)
    options = [*TRAIN[:-1], "tracker.mlflow=true", "--runs-dir", str(tmp_path)]
    code, output = rlx(*options)
    assert code == 0 and "was already complete" in output and "warning" not in output
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    stored_id = json.loads((run / "mlflow.json").read_text())
    logged = client.get_run(stored_id["run_id"])
    assert logged.info.status == "FINISHED"
    records = read_metrics(run / "metrics.jsonl")
    history = client.get_metric_history(logged.info.run_id, "train/reward")
    assert [m.value for m in history] == [r["train/reward"] for r in records if "train/reward" in r]
    (tmp_path / "mlflow.db").unlink()
    assert rlx(*options)[0] == 0
    assert not (tmp_path / "mlflow.db").exists(), "MLflow has everything: it is not opened again"
