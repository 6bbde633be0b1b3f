"""What a person asks of an evaluation, and the protocol that it comes to. No torch."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

from pydantic import Field

from rlx.specs.train import ADDED_LATER, Section

PRESETS = {
    "r1": {"n": 32, "temperature": 0.6, "top_p": 0.95, "max_new_tokens": 32768},
    "sober": {"n": 32, "temperature": 0.8, "top_p": 0.9, "max_new_tokens": 32768},
    "dapo": {"n": 32, "temperature": 1.0, "top_p": 0.7, "max_new_tokens": 20480},
    "greedy": {"n": 1, "temperature": 0.0, "top_p": 1.0, "max_new_tokens": 32768},
}
"""r1: DeepSeek-R1's evaluation (2501.12948); sober: 2504.07086; dapo: 2503.14476. n is 32 where a source has more."""


class EvalSpec(Section):
    """One evaluation of one model on some benchmarks."""

    model: str
    """A run folder, a model folder, a hub id, or ``embedded``."""
    revision: str | None = None
    """Commit or tag on the hub."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Autocast type; ``auto`` is bfloat16 where the device has it."""
    checkpoint: str = "final"
    """Of a run: ``final``, ``best`` (by its own evaluation), or a step's number."""
    benchmarks: list[str] = Field(default_factory=list)
    """Names of benchmarks; without any, the embedded one for a model that reads only that."""
    data_dir: str | None = None
    """Folder with <benchmark>.jsonl files; without one, the hub."""
    unpinned: bool = False
    """Accept a set whose hash differs from the reviewed one; the protocol keeps its hash."""
    preset: Literal["r1", "sober", "dapo", "greedy"] = "r1"
    """Sampling settings by source; the next five keys override it."""
    n: int | None = Field(default=None, ge=1, le=1024)
    """Samples a problem."""
    temperature: float | None = Field(default=None, ge=0)
    """Softmax temperature; 0 takes the likeliest token."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Nucleus mass."""
    top_k: int = Field(default=0, ge=0)
    """Sample from the k likeliest tokens; 0 is off."""
    max_new_tokens: int | None = Field(default=None, ge=1)
    """Longest response (tokens)."""
    limit: int | None = Field(default=None, ge=1)
    """Use only the first so many problems."""
    grader: str = "auto"
    """A registered reward or ``path/to/file.py:function``; ``auto`` is the benchmark's own."""
    prompt: str | None = Field(default=None, pattern=r"\{problem\}")
    """Template with ``{problem}`` in it, in place of the benchmark's."""
    system: str | None = None
    """System prompt."""
    chat: Literal["auto", "never"] = "auto"
    """``auto`` renders the tokenizer's chat template where it has one."""
    chat_kwargs: dict[str, Any] = Field(default_factory=dict, json_schema_extra=ADDED_LATER)
    """Further arguments of the chat template, such as ``enable_thinking: false`` (Qwen3)."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Every sample's seed follows from it, the problem and the sample's number."""
    engine: Literal["auto", "hf", "vllm"] = "auto"
    """``hf`` samples with transformers; ``auto`` takes vLLM where it is installed and the model is large enough."""
    tensor_parallel: int = Field(default=1, ge=1)
    """Of vLLM: GPUs that share the model. Not part of the protocol, nor is the next."""
    memory_share: float = Field(default=0.9, gt=0, lt=1)
    """Of vLLM: part of a GPU's memory that it takes."""
    batch: int = Field(default=32, ge=1)
    """Responses sampled at once and written together. Not part of the protocol."""
    mlflow: bool = True
    """Log to MLflow."""


class Protocol(Section):
    """Everything besides the model that a measured figure depends on. Two figures compare if these are equal."""

    benchmark: str
    problems: int
    data_sha256: str
    """Of problems and golds, typesetting left out."""
    prompt: str
    """Template of the question."""
    system: str | None
    chat_template: str
    """Hash of the tokenizer's template; ``none`` for plain text."""
    chat_kwargs: dict[str, Any] = Field(default_factory=dict, json_schema_extra=ADDED_LATER)
    """Further arguments of the template."""
    n: int
    temperature: float
    top_p: float
    top_k: int
    max_new_tokens: int
    stop: tuple[str, ...]
    """Texts of the tokens that end a response."""
    seed: int
    seeds: str = "blake2b(seed:eval:benchmark:problem:sample)"
    """How a sample's seed follows."""
    grader: str
    grader_version: str
    engine: str
    engine_version: str
    dtype: str

    @property
    def digest(self) -> str:
        """8 hex digits that name this protocol."""
        content = self.model_dump_json(exclude=None if self.chat_kwargs else {"chat_kwargs"})
        return hashlib.sha256(content.encode()).hexdigest()[:8]

    def sampled_as(self, other: Protocol) -> bool:
        """Whether both have the same responses, however graded."""
        graded = {"grader": "", "grader_version": ""}
        return self.model_copy(update=graded) == other.model_copy(update=graded)


class ResolvedEval(Section):
    """An evaluation with nothing left open.

    Example:
        ``ResolvedEval(spec=spec, folder="runs/eval_smollm2-135m-1f0c2a9b33", model_folder="models/smollm2-135m", ...)``
    """

    spec: EvalSpec
    n: int
    temperature: float
    top_p: float
    max_new_tokens: int
    folder: str
    """Run folder that the results go to."""
    checkpoint: str
    """``final``, or ``step_000025``."""
    model_folder: str
    """What ``from_pretrained`` is given."""
    weights: str | None = None
    """A run's checkpoint folder, whose weights go into that model."""
    run_spec: str | None = None
    """The resolved experiment of the run that is evaluated."""
    engine: Literal["hf", "vllm"] = "hf"
    engine_reason: str = ""
    """Why this one samples."""
