"""The sampler of a run: transformers over the trainer's weights, or vLLM over a copy."""

from __future__ import annotations

from dataclasses import replace

from rlx.engine.model import describe
from rlx.engine.step import Engine
from rlx.rollout.hf import HFSampler
from rlx.rollout.sampler import Sampler, within
from rlx.rollout.sync_check import TOLERANCES, SyncSchedule, Tolerance
from rlx.rollout.vllm import EngineOptions, VLLMSampler
from rlx.runs.recorder import Recorder
from rlx.specs.train import Resolved
from rlx.specs.unlearn import ResolvedUnlearn

NAMES = {"hf": "transformers", "vllm": "vLLM"}


def make_sampler(
    resolved: Resolved, engine: Engine, recorder: Recorder, longest_prompt: int
) -> tuple[Sampler, SyncSchedule | None]:
    """The sampler that the experiment names, and how its copy of the weights is watched (None: it has none).

    Args:
        resolved: the experiment.
        engine: the trainer.
        recorder: is told which engine samples, and why.
        longest_prompt: of all that will be sampled from (tokens), so that no cache is kept for longer ones.

    Raises:
        UserError: when vLLM is asked for and is not there or does not start.
    """
    spec = resolved.spec
    recorder.note(f"sampling with {NAMES[spec.rollout.engine]} ({resolved.engine_reason})")
    if spec.rollout.engine == "hf":
        return HFSampler(autocast=engine.accelerator.autocast), None
    dtype = _trainers_dtype(engine) if spec.rollout.dtype == "auto" else spec.rollout.dtype
    longest = longest_prompt + spec.rollout.max_new_tokens
    options = replace(
        _options(resolved, engine, longest, dtype),
        tensor_parallel=spec.cluster.tensor_parallel,
        memory_share=spec.cluster.memory_share,
        sequences=min(256, -(-spec.batch.prompts // engine.world) * spec.rollout.samples_per_prompt),
    )
    return VLLMSampler(options), SyncSchedule(TOLERANCES[dtype], spec.rollout.check_every)


def make_answerer(resolved: ResolvedUnlearn, engine: Engine, recorder: Recorder) -> tuple[Sampler, Tolerance | None]:
    """What gives an unlearning run's greedy answers, and how far its copy of the weights may part (None: it has none).

    Raises:
        UserError: when vLLM is asked for and is not there or does not start.
    """
    spec = resolved.spec
    recorder.note(f"answering with {NAMES[spec.evaluation.engine]} ({resolved.engine_reason})")
    if spec.evaluation.engine == "hf":
        return HFSampler(autocast=engine.accelerator.autocast), None
    dtype = _trainers_dtype(engine)
    longest = spec.forget.max_tokens + spec.evaluation.max_new_tokens
    options = _options(resolved, engine, longest, dtype)
    sampler = VLLMSampler(replace(options, memory_share=spec.evaluation.memory_share))
    sampler.sleep()
    return sampler, TOLERANCES[dtype]


def _options(resolved: Resolved | ResolvedUnlearn, engine: Engine, longest: int, dtype: str) -> EngineOptions:
    """An engine over the experiment's model for prompts and responses of so many tokens together."""
    model = resolved.spec.model
    return EngineOptions(
        model=resolved.model_folder,
        dtype=dtype,
        longest=within(longest, describe(resolved.model_folder, model).context),
        seed=resolved.spec.seed,
        revision=model.revision,
        trust_remote_code=model.trust_remote_code,
        launched=engine.world > 1,
    )


def _trainers_dtype(engine: Engine) -> str:
    return "bfloat16" if engine.accelerator.mixed_precision == "bf16" else "float32"
