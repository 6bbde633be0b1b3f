"""An experiment in verl's words, without verl: what is translated, refused and written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from rlx.data.prompts import prompt_indices
from rlx.errors import UserError
from rlx.registry import get, names
from rlx.runs.folder import RunDir
from rlx.specs.reading import read_spec
from rlx.specs.resolve_train import EMBEDDED_MODEL, resolve
from rlx.specs.study import StudySpec, variants
from rlx.specs.train import Data
from rlx.verl.limits import ADVANTAGES, untranslatable
from rlx.verl.run import as_record, plain_template, prepare
from rlx.verl.translate import translate, written

ROOT = Path(__file__).resolve().parents[2]


def settings(content, runs=Path("runs")):
    resolved = resolve({"backend": "verl", **content})
    return translate(resolved, RunDir(runs / resolved.run_id)).settings


def test_every_part_of_the_spec_reaches_verl():
    made = settings(
        {
            "steps": 7,
            "seed": 3,
            "algorithm": {"name": "dr_grpo", "kl_coef": 0.1, "kl_form": "k2", "importance_cap": 2.5},
            "advantage": {"name": "rloo"},
            "batch": {"prompts": 12, "updates_per_rollout": 3},
            "optim": {"lr": 2e-5, "eps": 1e-7, "schedule": "cosine", "warmup_updates": 6},
            "rollout": {"samples_per_prompt": 5, "temperature": 0.7},
            "cluster": {
                "nodes": 2,
                "gpus_per_node": 4,
                "tensor_parallel": 2,
                "memory_share": 0.4,
                "ray_address": "auto",
            },
            "sharding": {"offload": True},
        }
    )
    actor, rollout = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
    assert made[f"{actor}.policy_loss.loss_mode"] == "rlx_dr_grpo"
    assert (made["algorithm.adv_estimator"], made["algorithm.norm_adv_by_std_in_grpo"]) == ("rloo", False)
    assert (made["data.train_batch_size"], made[f"{actor}.ppo_mini_batch_size"]) == (12, 4)
    assert (made[f"{rollout}.n"], made[f"{rollout}.temperature"]) == (5, 0.7)
    assert made[f"{actor}.loss_agg_mode"] == "seq-mean-token-sum-norm"
    assert made[f"{actor}.loss_scale_factor"] == made["data.max_response_length"] == 24
    assert (made[f"{actor}.optim.lr"], made[f"{actor}.optim.lr_warmup_steps"]) == (2e-5, 2)
    assert (made[f"{actor}.use_kl_loss"], made[f"{actor}.kl_loss_type"]) == (True, "mse")
    assert made["algorithm.rollout_correction.rollout_is_threshold"] == 2.5
    assert made["algorithm.rollout_correction.bypass_mode"] is False
    assert (made["trainer.nnodes"], made["trainer.n_gpus_per_node"]) == (2, 4)
    assert (made[f"{rollout}.tensor_model_parallel_size"], made[f"{rollout}.gpu_memory_utilization"]) == (2, 0.4)
    assert made[f"{actor}.fsdp_config.offload_policy"] is True
    assert made["+ray_kwargs.ray_init.address"] == "auto"
    assert "+ray_kwargs.ray_init.address" not in settings({})
    assert (made["data.seed"], made["trainer.total_training_steps"]) == (3, 7)


@pytest.mark.parametrize(
    ("mismatch", "level", "threshold"),
    [
        ({"high": 3}, "token", 3.0),
        ({"high": 3, "level": "sequence"}, "sequence", 3.0),
        ({"mode": "mask", "low": 0.5, "high": 5}, "token", "0.5_5.0"),
        ({"mode": "mask", "level": "sequence"}, "sequence", "1e-09_2.0"),
    ],
)
def test_the_correction_for_the_sampler_reaches_verl_with_its_bounds(mismatch, level, threshold):
    made = settings({"algorithm": {"mismatch": mismatch}})
    assert made["algorithm.rollout_correction.rollout_is"] == level
    assert made["algorithm.rollout_correction.rollout_is_threshold"] == threshold
    assert settings({})["algorithm.rollout_correction.rollout_is"] is None


def test_the_new_losses_advantages_and_the_entropy_bonus_reach_verl():
    for name in ("dppo_tv", "dppo_tv@prime", "dppo_kl", "ipo", "vespo", "luspo"):
        made = settings({"algorithm": {"name": name, "entropy_coef": 0.01}})
        assert made["actor_rollout_ref.actor.policy_loss.loss_mode"] == f"rlx_{name.partition('@')[0]}"
        assert made["actor_rollout_ref.actor.entropy_coeff"] == 0.01
    assert made["actor_rollout_ref.actor.loss_agg_mode"] == "seq-mean-token-sum"
    for name, (estimator, divides) in ADVANTAGES.items():
        made = settings({"advantage": {"name": name}})
        assert made["algorithm.adv_estimator"] == estimator
        assert made["algorithm.norm_adv_by_std_in_grpo"] is divides
    assert (
        settings({"algorithm": {"name": "reinforce_pp"}})["algorithm.adv_estimator"] == "reinforce_plus_plus_baseline"
    )


def test_dapo_brings_dynamic_sampling_and_the_overlong_penalty_along():
    made = settings({"algorithm": {"name": "dapo"}})
    assert made["algorithm.filter_groups.enable"] is True
    assert made["reward.reward_manager.name"] == "dapo"
    assert made["+reward.reward_kwargs.overlong_buffer_cfg.len"] == round(0.2 * 24)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"algorithm": {"name": "entropy_adv"}}, "algorithm.name=entropy_adv .*entropies"),
        ({"algorithm": {"name": "bapo"}}, "algorithm.name=bapo .*whole optimiser batch"),
        (
            {"advantage": {"name": "reinforce_pp_samples"}},
            "advantage.name=reinforce_pp_samples .*choices: grpo, dr_grpo, rloo, opo, grpo_passk, reinforce_pp",
        ),
        ({"algorithm": {"top_entropy": 0.2}}, "algorithm.top_entropy=0.2 .*entropies"),
        ({"algorithm": {"mismatch": {"low": 0.5}}}, "algorithm.mismatch.low .*mode=mask"),
        ({"reward": {"mask_truncated": True}}, "reward.mask_truncated"),
        ({"optim": {"schedule": "linear"}}, "optim.schedule=linear .*choices: constant, cosine"),
        ({"optim": {"warmup_updates": 3}}, "optim.warmup_updates=3 .*multiple of batch.updates_per_rollout=4"),
        ({"model": {"lora": {"dropout": 0.1}}}, "model.lora.dropout"),
        ({"model": {"lora": {"alpha": 0.5}}}, "model.lora.alpha"),
        ({"model": {"revision": "main"}}, "model.revision=main"),
        ({"batch": {"max_tokens": 39}}, "batch.max_tokens=39 .*at least 40"),
    ],
)
def test_what_verl_cannot_do_is_refused_by_name_with_a_way_out(content, words):
    with pytest.raises(UserError, match=words + ".*backend=local"):
        settings(content)


def test_the_losses_that_cannot_go_through_verl_are_exactly_these():
    refused = {name for name in names("policy") if untranslatable(get("policy", name))}
    assert refused == {"bapo", "clip_cov", "kl_cov", "entropy_adv"}


def test_a_run_of_verl_is_another_run_but_where_it_runs_does_not_matter():
    local, verl = resolve({}), resolve({"backend": "verl"})
    assert local.run_id != verl.run_id
    assert verl.run_id == resolve({"backend": "verl", "cluster": {"nodes": 9}}).run_id


def test_values_are_written_in_hydras_grammar():
    assert written("it's a \\ {{x}}") == "'it\\'s a \\\\ {{x}}'"
    assert written({"eps": 1e-8}) == "{eps:1e-08}"
    assert written([True, None, "a"]) == "[true,null,'a']"


def test_the_data_are_written_in_the_order_in_which_the_local_backend_draws_them(tmp_path):
    resolved = resolve({"backend": "verl", "steps": 2, "batch": {"prompts": 4, "updates_per_rollout": 1}, "seed": 5})
    folder = RunDir(tmp_path / resolved.run_id)
    template, problems = prepare(resolved, folder)
    rows = pq.read_table(folder.verl.train).to_pylist()
    assert len(rows) == 8 and problems == len(pq.read_table(folder.verl.validation)) > 0
    question = rows[0]["prompt"][-1]["content"]
    a, b = question.rstrip("=").split("+")
    assert rows[0]["reward_model"] == {"style": "rule", "ground_truth": str(int(a) + int(b))}
    everything = [row["extra_info"]["id"] for row in rows]
    assert everything[4:] != everything[:4] and len(set(prompt_indices(9000, 5, 0, 8))) == 8
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED_MODEL)
    chat = [{"role": "user", "content": question}]
    rendered = tokenizer.apply_chat_template(chat, chat_template=template, tokenize=False, add_generation_prompt=True)
    assert tokenizer(rendered, add_special_tokens=False)["input_ids"] == tokenizer(question)["input_ids"]


def test_a_tokenizer_with_a_template_keeps_it_unless_chat_is_never():
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED_MODEL)
    tokenizer.chat_template = "{{ messages }}"
    assert plain_template(Data(), tokenizer) is None
    assert plain_template(Data(chat="never"), tokenizer) is not None


def test_verls_figures_come_back_under_our_names():
    data = {
        "critic/score/mean": 0.25, "response_length/mean": 16.5, "response_length/clip_ratio": 0.1, "actor/lr": 1e-6,
        "actor/rlx/clip_low": 0.02, "val-aux/rlx/reward/mean@1": 0.4, "actor/rlx/ratio_p99": 1.5,
        "val-core/rlx/acc/mean@1": 0.5, "perf/throughput": 100.0, "timing_s/gen": 3.0,
        "words": "not a figure",
    }  # fmt: skip
    record = as_record({"step": 4, "data": data}, responses=256, problems=20)
    assert record == {
        "step": 4, "train/reward": 0.25, "train/response_tokens": 16.5,
        "verl/response_length/clip_ratio": 0.1, "optim/lr": 1e-6,
        "policy/clip_low": 0.02, "trust/ratio_p99": 1.5, "verl/val-aux/rlx/reward/mean@1": 0.4,
        "eval/sampled_accuracy": 0.5, "time/tokens_per_s": 100.0, "verl/timing_s/gen": 3.0,
        "train/tokens": 4224, "eval/problems": 20,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--backend", "verl", "--processes", "2"], "--processes does not go with backend=verl"),
        (["train", "--ray-address", "auto"], "--ray-address does not go with backend=local"),
        (["unlearn", "--backend", "verl"], "rlx unlearn has only the local backend"),
        (["train", "--backend", "vrel"], "did you mean 'verl'?"),
    ],
)
def test_impossible_pairs_are_one_sentence(arguments, words):
    done = subprocess.run([sys.executable, "-m", "rlx.cli", *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert words in done.stderr and "Traceback" not in done.stderr


def test_a_dry_run_prints_the_configuration_and_the_command_and_starts_nothing(tmp_path):
    command = [sys.executable, "-m", "rlx.cli", "train", "--backend", "verl", "--dry-run", "--runs-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "verl.trainer.main_ppo" in done.stdout and "never on GPUs" in done.stdout
    assert json.dumps("rlx_dgpo") in done.stdout
    assert not list(tmp_path.iterdir())


def test_the_translation_of_a_paper_setting_is_the_one_that_was_read_by_a_person():
    study = StudySpec.model_validate(read_spec(ROOT / "experiments" / "papers" / "dgpo_2603.14389.yaml"))
    (content,) = [
        variant.content
        for variant in variants(study)
        if variant.content["algorithm"]["name"] == "dgpo" and variant.content["model"]["path"].endswith("1.5B")
    ]
    resolved = resolve({**content, "backend": "verl"})
    made = translate(resolved, RunDir(Path("/runs") / "RUN")).settings
    made["trainer.experiment_name"] = "RUN"
    assert made == json.loads((ROOT / "tests" / "golden" / "verl_settings.json").read_text())
