"""FSDP2 on two CPU processes: the same steps as one process takes, and checkpoints that go from any number to any."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rlx.engine.processes import ProcessLayout
from rlx.errors import UserError

SMALL = [
    "--steps", "5", "--set", "batch.prompts=8", "--set", "batch.updates_per_rollout=2",
    "--set", "rollout.samples_per_prompt=4", "--set", "evaluation.limit=6", "--set", "evaluation.every=5",
    "--set", "checkpoint.every=3", "--set", "checkpoint.keep=9", "--set", "tracker.mlflow=false",
    "--set", "batch.max_tokens=256",
]  # fmt: skip
SHARDED = ["--processes", "2", "--set", "sharding.mode=fsdp2"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def command(runs: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "rlx.cli", "train", *SMALL, "--runs-dir", str(runs), *more]


def train(runs: Path, *more: str, expect: int = 0) -> Path:
    done = subprocess.run(command(runs, *more), capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == expect, done.stderr
    return folder(runs)


def folder(runs: Path) -> Path:
    (found,) = [path.parent for path in runs.glob("*/resolved.json")]
    return found


def checkpoint(run: Path, step: int, part: str = "model") -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"step_{step:06d}" / f"{part}.safetensors")


def furthest(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    assert ours.keys() == theirs.keys()
    return max(float((ours[name].float() - theirs[name].float()).abs().max()) for name in ours)


def figures(run: Path) -> list[dict[str, float]]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    keys = ("step", "train/reward", "train/tokens", "policy/tokens", "eval/sampled_accuracy", "eval/greedy_accuracy")
    return [{key: record[key] for key in keys if key in record} for record in records]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return train(tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    return train(tmp_path_factory.mktemp("sharded"), *SHARDED)


def test_two_sharded_processes_take_the_same_steps_as_one(alone, sharded):
    assert furthest(checkpoint(alone, 5), checkpoint(sharded, 5)) < 1e-5
    assert furthest(checkpoint(alone, 5, "optimizer"), checkpoint(sharded, 5, "optimizer")) < 1e-5
    assert figures(alone) == figures(sharded)
    assert not torch.equal(checkpoint(alone, 5)["model.norm.weight"], checkpoint(alone, 3)["model.norm.weight"])


def test_a_large_vocabularys_log_probs_take_the_same_steps_sharded(alone, tmp_path, monkeypatch):
    """The embedded vocabulary is small; here its logits are treated as many, in every process."""
    (tmp_path / "sitecustomize.py").write_text("import rlx.numerics.output_layer.logprobs as l\nl.KEPT_ELEMENTS = 0\n")
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", str(tmp_path))
    run = train(tmp_path / "runs", *SHARDED)
    assert furthest(checkpoint(alone, 5), checkpoint(run, 5)) < 1e-5
    assert figures(alone) == figures(run)


def test_the_saved_model_of_sharded_processes_is_whole(sharded):
    saved, last = load_file(sharded / "model" / "model.safetensors"), checkpoint(sharded, 5)
    assert furthest({name: saved[name] for name in last}, last) == 0


def test_a_checkpoint_of_two_sharded_processes_resumes_on_one_with_the_same_result(alone, sharded, tmp_path):
    copied = tmp_path / sharded.name
    cut_back(sharded, copied)
    resumed = train(tmp_path)
    assert furthest(checkpoint(resumed, 5), checkpoint(sharded, 5)) < 1e-5
    assert furthest(checkpoint(resumed, 5, "optimizer"), checkpoint(sharded, 5, "optimizer")) < 1e-5
    assert figures(resumed) == figures(alone)


def test_a_checkpoint_of_one_process_resumes_on_two_sharded_ones(alone, tmp_path):
    cut_back(alone, tmp_path / alone.name)
    resumed = train(tmp_path, *SHARDED)
    assert json.loads((resumed / "resolved.json").read_text())["spec"]["sharding"]["mode"] == "fsdp2"
    assert furthest(checkpoint(resumed, 5), checkpoint(alone, 5)) < 1e-5
    assert figures(resumed) == figures(alone)


def cut_back(run: Path, copy: Path) -> None:
    """The run as a kill right after its third step would have left it."""
    (copy / "checkpoints").mkdir(parents=True)
    for name in ("spec.yaml", "resolved.json", "metrics.jsonl"):
        (copy / name).write_bytes((run / name).read_bytes())
    shutil.copytree(run / "checkpoints" / "step_000003", copy / "checkpoints" / "step_000003")


@pytest.mark.slow
def test_adapters_recomputed_activations_offload_and_whole_batch_statistics_shard_too(tmp_path):
    more = [
        "--steps", "2", "--algo", "kl_cov", "--set", "algorithm.params.kl_cov_ratio=0.05",
        "--set", "algorithm.kl_coef=0.05", "--set", "model.lora={rank: 4}",
        "--set", "model.gradient_checkpointing=true",
    ]  # fmt: skip
    one = train(tmp_path / "one", *more)
    two = train(tmp_path / "two", *more, *SHARDED, "--set", "sharding.offload=true")
    assert furthest(checkpoint(one, 2), checkpoint(two, 2)) < 1e-5
    assert all("lora_" in name for name in checkpoint(two, 2))
    merged = [load_file(run / "model" / "model.safetensors") for run in (one, two)]
    assert furthest(*merged) < 1e-5


@pytest.mark.slow
def test_unlearning_on_two_sharded_processes_ends_where_one_process_does(tmp_path):
    small = [
        "--method", "palu", "--against=", "--epochs", "1", "--set", "evaluation.attacks=[relearn]",
        "--set", "evaluation.relearn_updates=2", "--set", "evaluation.limit=4", "--set", "batch.forget=24",
        "--set", "evaluation.max_new_tokens=4", "--set", "tracker.mlflow=false",
    ]  # fmt: skip
    ends = []
    for name, more in (("one", []), ("two", SHARDED)):
        line = [sys.executable, "-m", "rlx.cli", "unlearn", *small, *more, "--runs-dir", str(tmp_path / name)]
        done = subprocess.run(line, capture_output=True, text=True, env=ENVIRONMENT)
        assert done.returncode == 0, done.stderr
        run = folder(tmp_path / name)
        ends.append((checkpoint(run, 5), json.loads((run / "summary.json").read_text())))
    (one, first), (two, second) = ends
    assert furthest(one, two) < 1e-5
    assert first["verdict"] == second["verdict"]
    for name, figure in first["aggregates"]["after"].items():
        assert figure["value"] == pytest.approx(second["aggregates"]["after"][name]["value"], abs=1e-3), name


def test_two_nodes_that_find_each_other_are_one_run(alone, tmp_path):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    nodes = [
        subprocess.Popen(
            command(tmp_path, "--nodes", "2", "--node-rank", str(number), "--master", f"localhost:{port}"),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT,
        )
        for number in (0, 1)
    ]  # fmt: skip
    said = [node.communicate(timeout=120)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    assert furthest(checkpoint(folder(tmp_path), 5), checkpoint(alone, 5)) < 1e-5


@pytest.mark.slow
def test_processes_that_torchrun_starts_are_one_run(alone, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    done = subprocess.run([*torchrun, *command(tmp_path)[2:]], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert furthest(checkpoint(folder(tmp_path), 5), checkpoint(alone, 5)) < 1e-5


@pytest.mark.parametrize(
    ("team", "words"),
    [
        (ProcessLayout(2, 2, 2, "a:1"), "--node-rank is 2, but there are 2 nodes"),
        (ProcessLayout(2, 2, 0, "elsewhere"), "give node 0's address and a free port"),
    ],
)
def test_nodes_that_do_not_fit_are_refused_in_one_sentence(team, words):
    with pytest.raises(UserError, match=words):
        team.check()


def test_a_port_that_is_taken_is_told_in_one_sentence(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        master = f"127.0.0.1:{taken.getsockname()[1]}"
        node = command(tmp_path, "--nodes", "2", "--node-rank", "0", "--master", master)
        done = subprocess.run(node, capture_output=True, text=True, env=ENVIRONMENT, timeout=120)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"the processes cannot connect at {master}" in done.stderr.replace("\n", " ")
    assert "a port there that is free" in done.stderr.replace("\n", " ")


def test_processes_that_cannot_share_a_copy_of_vllms_weights_are_refused(tmp_path):
    asked = ["--set", "rollout.engine=vllm", "--set", "cluster.tensor_parallel=2"]
    done = subprocess.run(command(tmp_path, *asked), capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 2
    assert "cluster.tensor_parallel is 2" in done.stderr
    assert not list(tmp_path.glob("*/resolved.json"))
