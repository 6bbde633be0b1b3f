"""Translation of a resolved spec into verl's configuration, key by key; unsupported settings are refused."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlx.registry import Component
from rlx.runs.folder import RunDir
from rlx.specs.algorithm import Mismatch
from rlx.specs.resolve_train import policy_method
from rlx.specs.train import Resolved, Spec
from rlx.verl.limits import ADVANTAGES, check_translatable, differences

Settings = dict[str, Any]
"""Dotted keys of verl's configuration; keys that verl's own files do not define begin with ``+``."""
PLUGIN = "rlx.verl.plugin"
PREFIX = "rlx_"
SMALLEST_RATIO = 1e-9
"""A lower bound that masks nothing: verl requires one above 0, and its ratios are at least e^-20 = 2e-9."""
KL_FORMS = {"k1": "kl", "k2": "mse", "k3": "low_var_kl", "abs": "abs"}
ACTOR, REF, ROLLOUT, MODEL = (f"actor_rollout_ref.{part}" for part in ("actor", "ref", "rollout", "model"))


@dataclass(frozen=True, slots=True)
class Translation:
    """verl's settings, and notes on differences from the local backend.

    Example:
        ``Translation({"data.train_batch_size": 512}, notes=["verl's checkpoints hold the model in bfloat16"])``
    """

    settings: Settings
    notes: list[str]

    @property
    def command(self) -> list[str]:
        """The command line of verl's entry point, with every setting as an override."""
        overrides = [f"{key}={written(value)}" for key, value in self.settings.items()]
        return [sys.executable, "-m", "verl.trainer.main_ppo", *overrides]


def translate(resolved: Resolved, folder: RunDir, template: str | None = None) -> Translation:
    """Translate a resolved spec into verl's settings.

    Args:
        resolved: the experiment.
        folder: the run's folder, on a disk that the whole cluster sees.
        template: a chat template that replaces the tokenizer's.

    Raises:
        UserError: naming the first key that verl does not support.
    """
    spec = resolved.spec
    component = policy_method(spec)
    check_translatable(spec, component)
    settings: Settings = {}
    for part in (
        _data(spec, folder),
        _model(resolved, template),
        _actor(spec, component),
        _sampler(spec),
        _algorithm(spec),
        _reward(spec),
        _trainer(resolved, folder),
        _ray(spec, folder),
    ):
        settings |= part
    return Translation(settings, differences(spec))


def format_translation(resolved: Resolved, folder: RunDir) -> str:
    """Verl's settings, the differences from the local backend, and the command, as readable text."""
    translation = translate(resolved, folder)
    settings = "".join(f"  {key}: {json.dumps(value)}\n" for key, value in translation.settings.items())
    notes = "".join(f"# {note}\n" for note in translation.notes)
    return f"verl:\n{settings}{notes}# command\n{shlex.join(translation.command)}"


def written(value: Any) -> str:
    """A value in the grammar of hydra's overrides."""
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(written(item) for item in value) + "]"
    return json.dumps(value)


def _data(spec: Spec, folder: RunDir) -> Settings:
    """Data files with prompts in the order of the local backend; verl must not shuffle or drop any."""
    return {
        "data.train_files": str(folder.verl.train.absolute()),
        "data.val_files": str(folder.verl.validation.absolute()),
        "data.train_batch_size": spec.batch.prompts,
        "data.max_prompt_length": spec.data.max_prompt_tokens,
        "data.max_response_length": spec.rollout.max_new_tokens,
        "data.shuffle": False,
        "data.seed": spec.seed,
        "data.truncation": "error",
        "data.filter_overlong_prompts": False,
        "data.trust_remote_code": spec.model.trust_remote_code,
    }


def _model(resolved: Resolved, template: str | None) -> Settings:
    model = resolved.spec.model
    dtype = "float32" if model.precision == "float32" else "bfloat16"
    local = Path(resolved.model_folder).is_dir()
    settings: Settings = {
        f"{MODEL}.path": str(Path(resolved.model_folder).absolute()) if local else resolved.model_folder,
        f"{MODEL}.trust_remote_code": model.trust_remote_code,
        f"{MODEL}.enable_gradient_checkpointing": model.gradient_checkpointing is not False,  # on is verl's default
        f"{MODEL}.use_remove_padding": True,
        f"{ROLLOUT}.dtype": dtype,
    }
    settings |= {f"{part}.fsdp_config.dtype": dtype for part in (ACTOR, REF)}
    settings |= {f"{part}.fsdp_config.model_dtype": "fp32" for part in (ACTOR, REF)}
    if dtype == "float32":
        # verl computes in bfloat16 unless this key, which differs from the dtype key, is set.
        precision = {"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"}
        settings |= {f"+{part}.fsdp_config.mixed_precision": precision for part in (ACTOR, REF)}
    if template is not None:
        settings[f"{MODEL}.custom_chat_template"] = template
    if model.lora is not None:
        settings |= {
            f"{MODEL}.lora_rank": model.lora.rank,
            f"{MODEL}.lora_alpha": int(model.lora.alpha),
            f"{MODEL}.target_modules": model.lora.target_modules,
            # The sampler gets adapters only, and must load the base weights itself.
            f"{ROLLOUT}.load_format": "safetensors",
        }
    return settings


def _actor(spec: Spec, component: Component) -> Settings:
    """Loss, optimiser and sharding."""
    algorithm, optim, batch = spec.algorithm, spec.optim, spec.batch
    settings = {
        f"{ACTOR}.strategy": "fsdp2",
        f"{ACTOR}.policy_loss.loss_mode": PREFIX + component.name,
        f"{ACTOR}.loss_agg_mode": algorithm.reduction,
        f"{ACTOR}.loss_scale_factor": (
            spec.rollout.max_new_tokens if algorithm.reduction == "seq-mean-token-sum-norm" else None
        ),
        f"{ACTOR}.entropy_coeff": algorithm.entropy_coef,
        f"{ACTOR}.ppo_epochs": 1,
        f"{ACTOR}.shuffle": False,
        f"{ACTOR}.ppo_mini_batch_size": batch.prompts // batch.updates_per_rollout,
        f"{ACTOR}.use_dynamic_bsz": True,
        f"{ACTOR}.ppo_max_token_len_per_gpu": batch.max_tokens,
        f"{ACTOR}.data_loader_seed": spec.seed,
        f"{ACTOR}.grad_clip": optim.max_grad_norm,
        f"{ACTOR}.optim.lr": optim.lr,
        f"{ACTOR}.optim.betas": list(optim.betas),
        f"{ACTOR}.optim.weight_decay": optim.weight_decay,
        f"{ACTOR}.optim.clip_grad": optim.max_grad_norm,
        f"{ACTOR}.optim.lr_scheduler_type": optim.schedule,
        f"{ACTOR}.optim.lr_warmup_steps": optim.warmup_updates // batch.updates_per_rollout,
        f"{ACTOR}.optim.override_optimizer_config": {"eps": optim.eps},
        f"{ACTOR}.fsdp_config.seed": spec.seed,
        f"{ACTOR}.use_kl_loss": algorithm.kl_coef > 0 and algorithm.kl_in == "loss",
        f"{ACTOR}.kl_loss_coef": algorithm.kl_coef,
        f"{ACTOR}.kl_loss_type": KL_FORMS[algorithm.kl_form],
        f"{ACTOR}.checkpoint.save_contents": ["model", "optimizer", "extra", "hf_model"],
        f"{ACTOR}.checkpoint.load_contents": ["model", "optimizer", "extra"],
    }
    settings |= {f"{part}.fsdp_config.offload_policy": spec.sharding.offload for part in (ACTOR, REF)}
    return settings


def _sampler(spec: Spec) -> Settings:
    rollout, cluster = spec.rollout, spec.cluster
    return {
        f"{ROLLOUT}.name": "vllm",
        f"{ROLLOUT}.n": rollout.samples_per_prompt,
        f"{ROLLOUT}.temperature": rollout.temperature,
        f"{ROLLOUT}.top_p": 1.0,
        f"{ROLLOUT}.top_k": -1,
        f"{ROLLOUT}.seed": spec.seed,
        f"{ROLLOUT}.calculate_log_probs": True,
        f"{ROLLOUT}.tensor_model_parallel_size": cluster.tensor_parallel,
        f"{ROLLOUT}.gpu_memory_utilization": cluster.memory_share,
        f"{ROLLOUT}.max_model_len": spec.data.max_prompt_tokens + rollout.max_new_tokens,
        f"{ROLLOUT}.val_kwargs.n": 1,
        f"{ROLLOUT}.val_kwargs.do_sample": spec.evaluation.temperature > 0,
        f"{ROLLOUT}.val_kwargs.temperature": spec.evaluation.temperature,
        f"{ROLLOUT}.val_kwargs.top_p": 1.0,
        f"{ROLLOUT}.val_kwargs.top_k": -1,
    }


def _algorithm(spec: Spec) -> Settings:
    """Advantage, KL in the reward, dynamic sampling and the correction of the sampler's log-probs."""
    estimator, divides = ADVANTAGES[spec.advantage.name]
    algorithm, correction = spec.algorithm, spec.algorithm.correction
    return {
        "algorithm.adv_estimator": estimator,
        "algorithm.norm_adv_by_std_in_grpo": divides,
        "algorithm.use_kl_in_reward": algorithm.kl_coef > 0 and algorithm.kl_in == "reward",
        "algorithm.kl_penalty": KL_FORMS[algorithm.kl_form],
        "algorithm.kl_ctrl.type": "fixed",
        "algorithm.kl_ctrl.kl_coef": algorithm.kl_coef,
        "algorithm.filter_groups.enable": spec.rollout.dynamic_sampling,
        "algorithm.filter_groups.metric": "reward",
        "algorithm.rollout_correction.rollout_is": None if correction is None else correction.level,
        "algorithm.rollout_correction.rollout_is_threshold": 2.0 if correction is None else _threshold(correction),
        # It would silently replace rlx's loss by one of verl's.
        "algorithm.rollout_correction.bypass_mode": False,
        "critic.enable": False,
    }


def _threshold(correction: Mismatch) -> float | str:
    """Bounds of the importance weights: verl truncates at a number, and masks outside of ``LOW_HIGH``."""
    if correction.mode == "truncate":
        return correction.high
    return f"{max(correction.low, SMALLEST_RATIO)!r}_{correction.high!r}"


def _reward(spec: Spec) -> Settings:
    """Rlx's grader as verl's custom reward; verl's DAPO manager adds the overlong penalty."""
    settings: Settings = {
        "reward.custom_reward_function.path": f"pkg://{PLUGIN}",
        "reward.custom_reward_function.name": "compute_score",
        "reward.reward_model.enable": False,
    }
    longest, share = spec.rollout.max_new_tokens, spec.reward.overlong_buffer
    if share:
        settings |= {
            "reward.reward_manager.name": "dapo",
            "+reward.reward_kwargs.max_resp_len": longest,
            "+reward.reward_kwargs.overlong_buffer_cfg.enable": True,
            "+reward.reward_kwargs.overlong_buffer_cfg.len": max(1, round(share * longest)),
            "+reward.reward_kwargs.overlong_buffer_cfg.penalty_factor": 1.0,
            "+reward.reward_kwargs.overlong_buffer_cfg.log": False,
        }
    return settings


def _trainer(resolved: Resolved, folder: RunDir) -> Settings:
    spec = resolved.spec
    return {
        "trainer.nnodes": spec.cluster.nodes,
        "trainer.n_gpus_per_node": spec.cluster.gpus_per_node,
        "trainer.total_training_steps": spec.steps,
        "trainer.total_epochs": spec.rollout.dynamic_tries if spec.rollout.dynamic_sampling else 1,
        "trainer.project_name": spec.tracker.experiment,
        "trainer.experiment_name": resolved.run_id,
        # rlx's recorder logs this file to MLflow, so that metric names are those of a local run.
        "trainer.logger": ["console", "file"],
        "trainer.default_local_dir": str(folder.verl.checkpoints.absolute()),
        "trainer.validation_data_dir": str(folder.verl.generations.absolute()),
        "trainer.save_freq": spec.checkpoint.every,
        "trainer.max_actor_ckpt_to_keep": spec.checkpoint.keep,
        "trainer.resume_mode": "auto",
        "trainer.test_freq": spec.evaluation.every or -1,
        "trainer.val_before_train": spec.evaluation.every > 0,
    }


def _ray(spec: Spec, folder: RunDir) -> Settings:
    """Environment variables with which every process of the cluster finds rlx's losses and the resolved spec."""
    environment = "+ray_kwargs.ray_init.runtime_env.env_vars"
    settings: Settings = {
        f"{environment}.VERL_USE_EXTERNAL_MODULES": PLUGIN,
        f"{environment}.RLX_RESOLVED": str(folder.resolved.absolute()),
        f"{environment}.VERL_FILE_LOGGER_PATH": str(folder.verl.metrics.absolute()),
    }
    if spec.cluster.ray_address is not None:
        settings["+ray_kwargs.ray_init.address"] = spec.cluster.ray_address
    return settings
