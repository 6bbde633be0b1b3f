"""The sampler of a run: transformers with the trainer's weights, or vLLM with a copy."""

from __future__ import annotations

from dataclasses import replace

from rlx.engine.device import sampling_dtype
from rlx.engine.load import base_path, describe_model
from rlx.engine.step import Engine
from rlx.errors import UserError
from rlx.rollout.hf import HFSampler
from rlx.rollout.sampler import Sampler, limit_to_context
from rlx.rollout.sync_check import TOLERANCES, SyncSchedule, Tolerance
from rlx.rollout.vllm import EngineOptions, VLLMSampler
from rlx.runs.recorder import Recorder
from rlx.specs.train import Resolved
from rlx.specs.unlearn import ResolvedUnlearn

NAMES = {"hf": "transformers", "vllm": "vLLM"}


def make_sampler(
    resolved: Resolved, engine: Engine, recorder: Recorder, longest_prompt: int
) -> tuple[Sampler, SyncSchedule | None]:
    """The sampler that the spec names, and when its copy of the weights is checked (None: it has no copy).

    Args:
        resolved: the experiment.
        engine: the trainer.
        recorder: gets a notice of the chosen engine and the reason.
        longest_prompt: longest prompt that will be sampled from (tokens); it limits the size of vLLM's cache.

    Raises:
        UserError: when vLLM is requested but is not installed or does not start.
    """
    spec = resolved.spec
    recorder.note(f"sampling with {NAMES[spec.rollout.engine]} ({resolved.engine_reason})")
    if spec.rollout.engine == "hf":
        return HFSampler(autocast=engine.accelerator.autocast, dtype=sampling_dtype(spec.model.precision)), None
    dtype = _autocast_dtype(engine) if spec.rollout.dtype == "auto" else spec.rollout.dtype
    longest = longest_prompt + spec.rollout.max_new_tokens
    options = replace(
        _options(resolved, engine, longest, dtype),
        tensor_parallel=spec.cluster.tensor_parallel,
        memory_share=spec.cluster.memory_share,
        sequences=min(256, -(-spec.batch.prompts // engine.world) * spec.rollout.samples_per_prompt),
    )
    return VLLMSampler(options), SyncSchedule(TOLERANCES[dtype], spec.rollout.check_every)


def make_answerer(resolved: ResolvedUnlearn, engine: Engine, recorder: Recorder) -> tuple[Sampler, Tolerance | None]:
    """The sampler of an unlearning run's greedy answers, and the tolerance of its weight check (None: it has no copy).

    Raises:
        UserError: when vLLM is requested but is not installed or does not start.
    """
    spec = resolved.spec
    recorder.note(f"answering with {NAMES[spec.evaluation.engine]} ({resolved.engine_reason})")
    if spec.evaluation.engine == "hf":
        return HFSampler(autocast=engine.accelerator.autocast, dtype=sampling_dtype(spec.model.precision)), None
    dtype = _autocast_dtype(engine)
    longest = spec.forget.max_tokens + spec.evaluation.max_new_tokens
    options = _options(resolved, engine, longest, dtype)
    sampler = VLLMSampler(replace(options, memory_share=spec.evaluation.memory_share))
    sampler.sleep()
    return sampler, TOLERANCES[dtype]


def check_sharers(key: str, sharers: int, processes: int) -> None:
    """Refuse a number of processes that cannot be divided into groups that share a copy of vLLM's weights.

    Args:
        key: the spec key of ``sharers``.
        sharers: processes that share a copy.
        processes: number of processes.

    Raises:
        UserError: when it is not a multiple of ``sharers``.
    """
    if processes % sharers:
        raise UserError(
            f"{key} is {sharers}, but that many processes share a copy of vLLM's weights, and it does not divide the "
            f"{processes} processes",
            fix="start a multiple of it with --processes, or lower it",
        )


def _options(resolved: Resolved | ResolvedUnlearn, engine: Engine, longest: int, dtype: str) -> EngineOptions:
    """Options of a vLLM engine over the spec's model, for ``longest`` tokens of prompt and response together."""
    model = resolved.spec.model
    return EngineOptions(
        model=base_path(resolved.model_folder, model),
        dtype=dtype,
        longest=limit_to_context(longest, describe_model(resolved.model_folder, model).context),
        seed=resolved.spec.seed,
        revision=model.revision,
        trust_remote_code=model.trust_remote_code,
        launched=engine.world > 1,
    )


def _autocast_dtype(engine: Engine) -> str:
    return "bfloat16" if engine.accelerator.mixed_precision == "bf16" else "float32"
