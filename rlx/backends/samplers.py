"""The sampler of a run: transformers over the trainer's weights, or vLLM over a copy."""

from __future__ import annotations

from rlx.engine.model import describe
from rlx.engine.step import Engine
from rlx.loops.parts import Recorder
from rlx.loops.sync import TOLERANCES, Tolerance, Watch
from rlx.rollout.hf import HFSampler
from rlx.rollout.sampler import Sampler
from rlx.rollout.vllm import EngineOptions, VLLMSampler, within
from rlx.spec import Resolved
from rlx.unlearn_spec import ResolvedUnlearn

NAMES = {"hf": "transformers", "vllm": "vLLM"}


def make_sampler(resolved: Resolved, engine: Engine, recorder: Recorder) -> tuple[Sampler, Watch | None]:
    """The sampler that the experiment names, and how its copy of the weights is watched (None: it has none).

    Raises:
        UserError: when vLLM is asked for and is not there or does not start.
    """
    spec = resolved.spec
    recorder.note(f"sampling with {NAMES[spec.rollout.engine]} ({resolved.engine_reason})")
    if spec.rollout.engine == "hf":
        return HFSampler(autocast=engine.accelerator.autocast), None
    dtype = _trainers_dtype(engine) if spec.rollout.dtype == "auto" else spec.rollout.dtype
    longest = spec.data.max_prompt_tokens + spec.rollout.max_new_tokens
    sampler = VLLMSampler(
        EngineOptions(
            model=resolved.model_folder,
            dtype=dtype,
            longest=within(longest, describe(resolved.model_folder, spec.model).context),
            seed=spec.seed,
            revision=spec.model.revision,
            trust_remote_code=spec.model.trust_remote_code,
            tensor_parallel=spec.cluster.tensor_parallel,
            memory_share=spec.cluster.memory_share,
            sequences=min(256, -(-spec.batch.prompts // engine.world) * spec.rollout.samples_per_prompt),
            launched=engine.world > 1,
        )
    )
    return sampler, Watch(TOLERANCES[dtype], spec.rollout.check_every)


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
    sampler = VLLMSampler(
        EngineOptions(
            model=resolved.model_folder,
            dtype=dtype,
            longest=within(longest, describe(resolved.model_folder, spec.model).context),
            seed=spec.seed,
            revision=spec.model.revision,
            trust_remote_code=spec.model.trust_remote_code,
            memory_share=spec.evaluation.memory_share,
            launched=engine.world > 1,
        )
    )
    sampler.rest()
    return sampler, TOLERANCES[dtype]


def _trainers_dtype(engine: Engine) -> str:
    return "bfloat16" if engine.accelerator.mixed_precision == "bf16" else "float32"
