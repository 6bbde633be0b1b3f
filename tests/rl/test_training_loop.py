"""The RL loop through its entry point: processes, skipping, shaping, saving, learning."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlx.errors import UserError
from rlx.rl.rollouts import refuse_non_finite
from rlx.rollout.sampler import Response

BASE = [
    "--steps", "5", "--set", "batch.prompts=8", "--set", "batch.updates_per_rollout=2", "--set",
    "rollout.samples_per_prompt=4", "--set", "evaluation.limit=10", "--set", "evaluation.every=5", "--set",
    "checkpoint.every=5", "--set", "tracker.mlflow=false",
]  # fmt: skip


def train(runs: Path, *more: str, expect: int = 0) -> Path:
    command = [sys.executable, "-m", "rlx.cli", "train", *BASE, *more, "--runs-dir", str(runs)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == expect, done.stderr
    (found,) = [path.parent for path in runs.glob("*/resolved.json")]
    return found


def records(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / "step_000005" / "model.safetensors")


def furthest(one: Path, other: Path) -> float:
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return train(tmp_path_factory.mktemp("alone"))


def test_two_processes_take_the_same_steps_as_one(alone, tmp_path):
    both = train(tmp_path, "--processes", "2")
    assert furthest(alone, both) < 1e-5
    for one, two in zip(records(alone), records(both), strict=True):
        for key in ("train/reward", "train/tokens", "policy/tokens", "eval/sampled_accuracy"):
            assert one.get(key) == two.get(key), key


def test_two_processes_agree_with_one_on_a_whole_batch_statistic_and_a_reference(tmp_path):
    more = ["--algo", "kl_cov", "--set", "algorithm.params.kl_cov_ratio=0.05", "--set", "algorithm.kl_coef=0.05"]
    more += ["--set", "algorithm.entropy_coef=0.01", "--set", "algorithm.top_entropy=0.3"]
    one, two = train(tmp_path / "one", *more), train(tmp_path / "two", *more, "--processes", "2")
    assert furthest(one, two) < 1e-5
    assert records(one)[3]["policy/ref_kl"] > 0
    assert records(one)[3]["policy/chosen"] == pytest.approx(0.05, abs=0.01)
    assert records(one)[3]["policy/selected"] == pytest.approx(0.3, abs=0.02)
    trust = [{key: value for key, value in records(run)[2].items() if key.startswith("trust/")} for run in (one, two)]
    assert trust[0] == pytest.approx(trust[1], abs=2e-3)


def test_many_micro_batches_take_the_same_steps_as_few(alone, tmp_path):
    cut = train(tmp_path, "--set", "batch.max_tokens=64")
    assert furthest(alone, cut) < 1e-5


def test_the_saved_model_loads_with_transformers_and_is_the_last_checkpoint(alone):
    model = AutoModelForCausalLM.from_pretrained(alone / "model")
    tokenizer = AutoTokenizer.from_pretrained(alone / "model")
    assert tokenizer("47+85=")["input_ids"]
    loaded = dict(model.named_parameters())
    for name, value in weights(alone).items():
        assert torch.equal(loaded[name], value), name


def test_adapters_are_merged_into_the_saved_model(tmp_path):
    run = train(tmp_path, "--set", "model.lora={rank: 4}", "--set", "optim.lr=0.01", "--set", "algorithm.kl_coef=0.01")
    merged = AutoModelForCausalLM.from_pretrained(run / "model")
    from peft import PeftModel

    from rlx.specs.resolve_train import EMBEDDED_MODEL

    base = AutoModelForCausalLM.from_pretrained(EMBEDDED_MODEL)
    ids = torch.tensor([[7, 10, 13, 11, 8, 16]])
    before = base(ids).logits
    adapted = PeftModel.from_pretrained(base, run / "model" / "adapter")
    assert torch.allclose(merged(ids).logits, adapted(ids).logits, atol=1e-4)
    assert not torch.allclose(merged(ids).logits, before, atol=1e-2)
    assert all("lora_" in name for name in weights(run))


def test_groups_without_a_signal_are_not_scored_but_counted(alone):
    for record in records(alone)[1:]:
        dull = record["train/groups_all_right"] + record["train/groups_all_wrong"]
        assert (record["policy/tokens"] < record["train/tokens"]) == (dull > 0)


def test_the_trainers_and_the_samplers_logprobs_agree(alone):
    for record in records(alone)[1:]:
        assert record["policy/sampler_logprob_diff_max"] < 1e-4
        assert record["policy/ratio_min"] <= 1 <= record["policy/ratio_max"]


def test_every_figure_of_a_step_is_logged(alone):
    wanted = {
        "train/reward", "train/groups_all_right", "train/groups_all_wrong", "train/response_tokens", "train/truncated",
        "policy/entropy", "policy/approx_kl", "policy/clip_low", "policy/clip_high", "policy/ratio_min",
        "policy/ratio_max", "optim/grad_norm", "optim/lr", "policy/sampler_logprob_diff", "time/tokens_per_s",
        "time/rollout", "time/reward", "time/update", "perf/rollout_tokens_per_s", "perf/train_tokens_per_s",
        "memory/peak_gib", "memory/estimate_gib", "memory/max_tokens", "trust/low_neg", "trust/low_pos",
        "trust/high_neg", "trust/high_pos", "trust/weight_inside", "trust/ratio_p99", "trust/kl_old", "trust/ess",
    }  # fmt: skip
    assert wanted <= records(alone)[1].keys()
    assert [record["step"] for record in records(alone)] == [0, 1, 2, 3, 4, 5]


def test_sampled_texts_are_kept_with_their_verdicts(alone):
    table = pq.read_table(alone / "samples.parquet").to_pylist()
    assert len(table) == 5 * 2 * 4
    assert {row["step"] for row in table} == {1, 2, 3, 4, 5}
    for row in table:
        a, b = row["prompt"].rstrip("=").split("+")
        right = row["response"].count("#") == 1 and row["response"].split("#")[1].strip() == str(int(a) + int(b))
        assert row["score"] == float(right)


def test_dynamic_sampling_trains_only_on_groups_with_a_signal(tmp_path):
    run = train(tmp_path, "--algo", "dapo")
    first = records(run)[1]
    spec = json.loads((run / "resolved.json").read_text())["spec"]
    assert spec["rollout"]["dynamic_sampling"] and spec["reward"]["overlong_buffer"] == 0.2
    assert first["train/tries"] >= 2
    assert first["train/shaped_reward"] <= first["train/reward"]


def test_a_kl_in_the_reward_lowers_it_once_the_policy_has_moved(tmp_path):
    run = train(tmp_path, "--set", "algorithm.kl_coef=1.0", "--set", "algorithm.kl_in=reward")
    first, last = records(run)[1], records(run)[5]
    assert first["train/shaped_reward"] == pytest.approx(first["train/reward"], abs=1e-5)
    assert last["train/shaped_reward"] < last["train/reward"]


def test_samples_of_broken_weights_stop_the_run_with_the_step_and_the_way_out():
    sound, broken = Response((5,), (-0.1,), True), Response((5,), (float("nan"),), True)
    refuse_non_finite([sound, sound], step=3)
    with pytest.raises(UserError, match="step 3: log-probs of 1 of 2 samples are not finite.*lower optim.lr"):
        refuse_non_finite([sound, broken], step=3)


def test_a_number_of_processes_that_does_not_fit_is_refused(tmp_path):
    command = [sys.executable, "-m", "rlx.cli", "train", *BASE, "--processes", "3", "--runs-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--processes is 3" in done.stderr and "1, 2, 4" in done.stderr
    assert not list(tmp_path.glob("*"))


def test_tokens_per_second_do_not_count_the_evaluation(monkeypatch):
    from rlx.rl import loop

    monkeypatch.setattr(loop.time, "perf_counter", lambda: 10.0)
    clock = loop.Clock(start=0.0, phases={"rollout": 1.0})
    record = clock.record(tokens=400, evaluation=6.0)
    assert record["time/step"] == 10.0 and record["time/tokens_per_s"] == 100.0


def test_the_end_of_a_run_names_points_the_command_of_mlflow_and_how_to_read_the_samples(tmp_path, capfd, monkeypatch):
    import json

    from rlx.rl.display import print_summary
    from rlx.runs.folder import RunDir
    from rlx.specs.resolve_train import resolve

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    resolved = resolve({})
    resolved = resolved.model_copy(update={"spec": resolved.spec.model_copy(
        update={"model": resolved.spec.model.model_copy(update={"path": "some/model"})})})  # fmt: skip
    folder = RunDir(tmp_path / "my run")
    folder.root.mkdir()
    ends = {"before": 0.25, "after": 0.75}
    summary = {name: {"step": 1, "eval/sampled_accuracy": value, "eval/problems": 100} for name, value in ends.items()}
    folder.summary.write_text(json.dumps({"steps": 1, "seconds": 1.0, "tokens": 1, **summary}))
    print_summary(resolved, folder)
    output = capfd.readouterr().out
    assert "+50.0 points" in output and "+50.0%" not in output
    assert f"mlflow ui --backend-store-uri sqlite:///{tmp_path}/mlflow.db" in output
    assert f"rlx sample '{folder.root}' --browse" in output
