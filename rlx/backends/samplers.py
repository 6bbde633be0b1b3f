"""The sampler of a run: transformers over the trainer's weights, or vLLM over a copy."""

from __future__ import annotations

from rlx.engine.model import describe
from rlx.engine.step import Engine
from rlx.loops.parts import Recorder
from rlx.loops.sync import TOLERANCES, Watch
from rlx.rollout.hf import HFSampler
from rlx.rollout.sampler import Sampler
from rlx.rollout.vllm import EngineOptions, VLLMSampler
from rlx.spec import Resolved

NAMES = {"hf": "transformers", "vllm": "vLLM"}


def make_sampler(resolved: Resolved, engine: Engine, recorder: Recorder) -> tuple[Sampler, Watch | None]:
    """The sampler that the experiment names, and how its copy of the weights is watched (None: it has none).

    Raises:
        UserError: when vLLM is asked for and is not there or does not start.
    """
    spec = resolved.spec
    recorder.note(f"sampling with {NAMES[spec.rollout.engine]} ({resolved.engine_reason})")
    if spec.rollout.engine == "hf":
        return HFSampler(engine.lm, engine.accelerator.autocast), None
    dtype = spec.rollout.dtype
    if dtype == "auto":
        dtype = "bfloat16" if engine.accelerator.mixed_precision == "bf16" else "float32"
    context = describe(resolved.model_folder, spec.model).context
    longest = spec.data.max_prompt_tokens + spec.rollout.max_new_tokens
    sampler = VLLMSampler(
        EngineOptions(
            model=resolved.model_folder,
            dtype=dtype,
            longest=longest if context is None else min(longest, context),
            seed=spec.seed,
            revision=spec.model.revision,
            trust_remote_code=spec.model.trust_remote_code,
            tensor_parallel=spec.cluster.tensor_parallel,
            memory_share=spec.cluster.memory_share,
            launched=engine.world > 1,
        )
    )
    return sampler, Watch(TOLERANCES[dtype], spec.rollout.check_every)
