"""Sampling with vLLM, in this process, from a copy of the trainer's weights.

The copy is renewed in place before every rollout. vLLM keeps what it has derived from weights (packed matrices, the
prefix cache): all of that is renewed too, and ``rlx.rollout.sync_check`` compares log-probs, because
a library may keep more.
"""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig

from rlx.errors import UserError
from rlx.rollout.sampler import Response, Sampling

CPU_CACHE_BYTES = 2 << 30
"""Key-value cache on a CPU at most, where VLLM_CPU_KVCACHE_SPACE says nothing."""
SPARE_BLOCKS = 8
"""Blocks of the cache beyond those that the samples need."""
CPU_BLOCK = 32
"""Tokens a block of the cache: samples share their prompt's full blocks. A CPU allows no less, and vLLM takes 128."""
CPU_BATCH_TOKENS = 2048
"""Prompt tokens read at once on a CPU, at least."""
SETTINGS = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # bound threads would take the trainer's with them
    "VLLM_LOGGING_LEVEL": "CRITICAL",  # its pages of state would bury the one sentence
    "VLLM_NO_USAGE_STATS": "1",
}
"""What vLLM reads from the environment on import; what a person has set there stands."""
FAILURES = (RuntimeError, ValueError, OSError, MemoryError, AssertionError, TypeError, LookupError, AttributeError)
"""What vLLM raises when it cannot go on, or is not the version that it was; the loop's own interruptions are none."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What a vLLM engine is started with.

    Example:
        ``EngineOptions("models/smollm2-135m", dtype="float32", longest=160, seed=0)``
    """

    model: str
    """A folder or a hub id."""
    dtype: str
    """``float32`` or ``bfloat16``."""
    longest: int | None
    """Longest prompt and response together (tokens); None takes the model's own limit."""
    seed: int = 0
    revision: str | None = None
    trust_remote_code: bool = False
    tensor_parallel: int = 1
    """GPUs that share one copy of the model."""
    memory_share: float = 0.5
    """Part of a GPU's memory for the copy and its key-value cache."""
    sequences: int = 256
    """Samples that grow at once, at most; more wait for their turn."""
    launched: bool = False
    """Whether this process is one of several that train together, each with its own engine or part of one."""


class VLLMSampler:
    """A ``Sampler`` over a vLLM engine that lives in this process.

    With ``tensor_parallel`` above 1 and several training processes, neighbouring processes share one copy: they hand
    each other their prompts, and all of them sample all of these (vLLM's external launcher).

    Args:
        options: the model and how to hold it.

    Example:
        ``VLLMSampler(options).sample([[7, 10, 8, 14]], seeds=[[1, 2]], sampling=Sampling(1.0, 24, stop_ids=(2,)))``
    """

    def __init__(self, options: EngineOptions) -> None:
        self.options = options
        self._vllm = _imported()
        self._on_gpu = torch.cuda.is_available()
        self._asleep = False
        gc.collect()  # an engine given up earlier would, when collected, take the process groups of this one with it
        with _told("start", options), warnings.catch_warnings(action="ignore", category=FutureWarning):
            self._llm = self._vllm.LLM(**_arguments(options, self._on_gpu))

    def load_weights(self, model: nn.Module) -> None:
        """Put the model's weights into the engine and forget what was computed with the old ones."""
        with _told("take the new weights", self.options), torch.no_grad():
            if self._asleep:
                self._llm.wake_up(tags=["weights"])
            runner = self._llm.llm_engine.model_executor.driver_worker.worker.model_runner
            runner.reload_weights(weights_iterator=merged_weights(model))
            _tie_head(runner.get_model())
            if self._asleep:
                self._llm.wake_up(tags=["kv_cache"])
            self._llm.reset_prefix_cache()
        self._asleep = False

    def sleep(self) -> None:
        """Give weights and cache back to the GPU; a CPU has no such mode."""
        if self._on_gpu and not self._asleep:
            self._llm.sleep(level=2)
            self._asleep = True

    def sample(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[Sequence[int]], sampling: Sampling
    ) -> list[list[Response]]:
        """See ``Sampler.sample``."""
        shared = _of_all_sharers(list(zip(prompts, seeds, strict=True)), self.options)
        requests = [(prompt, seed) for part in shared.parts for prompt, row in part for seed in row]
        with _told("sample", self.options):
            outputs = self._llm.generate(
                [{"prompt_token_ids": list(prompt)} for prompt, _ in requests],
                [self._parameters(sampling, seed) for _, seed in requests],
                use_tqdm=False,
            )
        made = iter([_response(output.outputs[0]) for output in outputs])
        groups = [[[next(made) for _ in row] for _, row in part] for part in shared.parts]
        return groups[shared.own]

    def _parameters(self, sampling: Sampling, seed: int) -> Any:
        return self._vllm.SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            max_tokens=sampling.max_new_tokens,
            stop_token_ids=list(sampling.stop_ids),
            ignore_eos=True,  # the model's own generation config may name others
            seed=seed,
            logprobs=0,
            detokenize=False,
        )


def merged_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Names and weights as a saved model has them: low-rank adapters added in, tied tensors once.

    Args:
        model: a transformers causal language model, peft's adapters inside or not.
    """
    adapted = {name: module for name, module in model.named_modules() if hasattr(module, "get_delta_weight")}
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            continue
        owner, _, kind = name.partition(".base_layer.")
        weight = parameter.detach()
        if kind == "weight" and owner in adapted:
            module: Any = adapted[owner]
            for adapter in module.active_adapters:
                weight = weight + module.get_delta_weight(adapter)
        yield name.replace(".base_layer.", "."), weight


def vllm_version() -> str:
    """Package and version of the vLLM that is installed."""
    for name in ("vllm", "vllm-cpu"):
        with suppress(PackageNotFoundError):
            return f"{name} {version(name)}"
    return "vllm (not installed)"


def _imported() -> Any:
    """The library, told to stay in this process and to send nothing home."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # in this process, where the weights are
    try:
        import vllm
    except ImportError as error:
        raise UserError(
            f"rollout.engine is 'vllm', but vLLM does not import ({str(error).splitlines()[0]})",
            fix="rlx doctor says what is wrong; or set rollout.engine=hf",
            exit_code=1,
        ) from None
    return vllm


def _arguments(options: EngineOptions, on_gpu: bool) -> dict[str, Any]:
    """Keyword arguments of ``vllm.LLM``."""
    arguments: dict[str, Any] = {
        "model": options.model,
        "revision": options.revision,
        "trust_remote_code": options.trust_remote_code,
        "dtype": options.dtype,
        "max_model_len": options.longest,
        "seed": options.seed,
        "skip_tokenizer_init": True,
        "use_tqdm_on_load": False,
        # Log-probs after the temperature, as the trainer takes them.
        "logprobs_mode": "processed_logprobs",
        "tensor_parallel_size": options.tensor_parallel,
    }
    if options.launched:
        arguments["distributed_executor_backend"] = "external_launcher"
    if on_gpu:
        return arguments | {"enable_sleep_mode": True, "gpu_memory_utilization": options.memory_share}
    if "VLLM_CPU_KVCACHE_SPACE" not in os.environ:
        arguments["kv_cache_memory_bytes"] = _cache_bytes(options)
    # A prompt that is read in parts rewinds its sample's random generator, which a CPU's has no way to do.
    at_once = max(CPU_BATCH_TOKENS, options.longest or 0)
    arguments |= {"enable_chunked_prefill": False, "max_num_batched_tokens": at_once}
    return arguments | {"enforce_eager": True, "block_size": CPU_BLOCK}


def _cache_bytes(options: EngineOptions) -> int:
    """What the keys and values of so many samples take; vLLM touches all of it at the start."""
    if options.longest is None:
        return CPU_CACHE_BYTES
    config = AutoConfig.from_pretrained(
        options.model, revision=options.revision, trust_remote_code=options.trust_remote_code
    ).get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    block = 2 * config.num_hidden_layers * heads * width * getattr(torch, options.dtype).itemsize * CPU_BLOCK
    one = -(-options.longest // CPU_BLOCK)
    return int(max(one + SPARE_BLOCKS, min(options.sequences * one + SPARE_BLOCKS, CPU_CACHE_BYTES // block)) * block)


def _tie_head(model: Any) -> None:
    """Renew the packed copy of a tied output layer: loading in place renews only the embedding (vLLM 0.32, CPU).

    A model that is built in another way is left alone: if its head is stale, the comparison of log-probs says so.
    """
    tied = getattr(model.config.get_text_config(), "tie_word_embeddings", False)
    embedding = getattr(getattr(model, "model", None), "embed_tokens", None)
    if tied and embedding is not None and hasattr(model, "lm_head"):
        model.lm_head.tie_weights(embedding)
        model.lm_head.quant_method.process_weights_after_loading(model.lm_head)


def _response(made: Any) -> Response:
    tokens = tuple(made.token_ids)
    logprobs = tuple(step[token].logprob for step, token in zip(made.logprobs, tokens, strict=True))
    return Response(tokens, logprobs, made.finish_reason == "stop")


Asked = list[tuple[Sequence[int], Sequence[int]]]
"""Prompts and the seeds of their samples."""


@dataclass(frozen=True, slots=True)
class _Shared:
    """What the processes that share a copy were asked, and which part is this one's."""

    parts: list[Asked]
    own: int


def _of_all_sharers(asked: Asked, options: EngineOptions) -> _Shared:
    """Everything that is asked of this process's copy of the model."""
    if not options.launched or options.tensor_parallel == 1:
        return _Shared([asked], own=0)
    from vllm.distributed.parallel_state import get_tp_group

    group = get_tp_group()
    parts: list[Asked] = [[] for _ in range(group.world_size)]
    torch.distributed.all_gather_object(parts, asked, group=group.cpu_group)
    return _Shared(parts, own=group.rank_in_group)


@contextmanager
def _told(doing: str, options: EngineOptions) -> Iterator[None]:
    """Turn whatever vLLM fails with into one sentence.

    Raises:
        UserError: with vLLM's own first line and what mostly helps.
    """
    try:
        yield
    except FAILURES as error:
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"vLLM could not {doing} with {options.model} ({type(error).__name__}: {first_line[:200]})",
            fix=_advice(f"{type(error).__name__} {error}".lower()),
            exit_code=1,
        ) from error


def _advice(text: str) -> str:
    """What mostly helps against an error that reads so."""
    if "address already in use" in text or "eaddrinuse" in text:
        return "another program has its port: run the same command again, with MASTER_PORT set to a free one if it was"
    if any(word in text for word in ("memory", "kv cache", "allocate")):
        return (
            "it lacks memory: lower cluster.memory_share or VLLM_CPU_KVCACHE_SPACE (GiB) if others need it too, raise "
            "them if its cache is too small, or lower rollout.max_new_tokens; the same command goes on from the last "
            "checkpoint"
        )
    return "the same command goes on from the last checkpoint; rollout.engine=hf samples with transformers instead"
