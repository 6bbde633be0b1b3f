"""The spec of an evaluation, and the protocol that identifies its measurements. Does not import torch."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

from pydantic import Field

from rlx.specs.data import AnswerFormat
from rlx.specs.identity import stem
from rlx.specs.train import ADDED_LATER, Section

PRESETS = {
    "r1": {"n": 32, "temperature": 0.6, "top_p": 0.95, "max_new_tokens": 32768},
    "sober": {"n": 32, "temperature": 0.8, "top_p": 0.9, "max_new_tokens": 32768},
    "dapo": {"n": 32, "temperature": 1.0, "top_p": 0.7, "max_new_tokens": 20480},
    "greedy": {"n": 1, "temperature": 0.0, "top_p": 1.0, "max_new_tokens": 32768},
}
"""r1: DeepSeek-R1's evaluation (2501.12948); sober: 2504.07086; dapo: 2503.14476. n is 32 if the source uses more."""


class EvalData(Section):
    """The user's own questions, evaluated as a benchmark."""

    source: str = ""
    """A file (.jsonl, .json, .csv, .parquet, each also .gz), a glob, a folder saved by ``datasets``, or a hub data
    set."""
    subset: str | None = None
    """Configuration name of a hub data set, such as ``main``."""
    split: str = "test"
    """Split of a hub data set, or of a saved folder with several."""
    prompt: str = "prompt"
    """As ``data.prompt`` of a training spec: column of the question or conversation, by dotted path."""
    answer: str = "answer"
    """As ``data.answer`` of a training spec: column of the gold answer, or of a list of accepted answers."""
    answer_format: AnswerFormat = "raw"
    """As ``data.answer_format`` of a training spec: ``raw``, ``last_boxed`` or ``gsm8k_hash``."""
    system_column: str | None = None
    """Column of a row's own system prompt, by dotted path."""
    max_left_out: float = Field(default=0.05, ge=0, le=1)
    """Maximum fraction of rows without a usable question or answer; more end the evaluation."""

    @property
    def benchmark(self) -> str:
        """Name of the questions in results, such as ``data_questions`` for ``questions.jsonl``."""
        return f"data_{stem(self.source)}"


class EvalSpec(Section):
    """One evaluation of one model on some benchmarks."""

    model: str
    """A run folder, a model folder, a hub id, or ``embedded``."""
    revision: str | None = None
    """Commit or tag on the hub."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Autocast dtype; ``auto`` is bfloat16 if the device supports it."""
    checkpoint: str = "final"
    """Checkpoint of a run: ``final``, ``best`` (by the run's own evaluation), or a step number."""
    benchmarks: list[str] = Field(default_factory=list)
    """Names of benchmarks; by default the embedded one for the embedded model and models trained from it."""
    data: EvalData | None = None
    """The user's own questions; they are evaluated in addition to ``benchmarks``, if any are given."""
    data_dir: str | None = None
    """Folder with <benchmark>.jsonl files; null loads the data from the hub."""
    unpinned: bool = False
    """Accept benchmark data whose hash differs from the reviewed one; the protocol records the hash."""
    preset: Literal["r1", "sober", "dapo", "greedy"] = "r1"
    """Sampling settings by source; n, temperature, top_p and max_new_tokens override it."""
    n: int | None = Field(default=None, ge=1, le=1024)
    """Samples per problem."""
    temperature: float | None = Field(default=None, ge=0)
    """Softmax temperature; 0 is greedy decoding."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Probability mass of nucleus sampling."""
    top_k: int = Field(default=0, ge=0)
    """Sample from the k most probable tokens; 0 is off."""
    max_new_tokens: int | None = Field(default=None, ge=1)
    """Maximum length of a response (tokens)."""
    limit: int | None = Field(default=None, ge=1)
    """Number of problems to use, from the first one; null uses all."""
    grader: str = "auto"
    """A registered reward or ``path/to/file.py:function``; ``auto`` is the benchmark's default."""
    prompt: str | None = Field(default=None, pattern=r"\{problem\}")
    """Template with ``{problem}`` in it; replaces the benchmark's."""
    system: str | None = None
    """System prompt."""
    chat: Literal["auto", "never"] = "auto"
    """``auto`` applies the tokenizer's chat template if it has one; ``never`` uses plain text."""
    chat_kwargs: dict[str, Any] = Field(default_factory=dict, json_schema_extra=ADDED_LATER)
    """Additional arguments of the chat template, such as ``enable_thinking: false`` (Qwen3)."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed from which, with the problem and the sample index, every sample's seed is derived."""
    engine: Literal["auto", "hf", "vllm"] = "auto"
    """``hf`` samples with transformers; ``auto`` chooses vLLM if it is installed and the model is large enough."""
    tensor_parallel: int = Field(default=1, ge=1)
    """vLLM only: GPUs that share the model. Not part of the protocol."""
    memory_share: float = Field(default=0.9, gt=0, lt=1)
    """vLLM only: fraction of each GPU's memory that it uses. Not part of the protocol."""
    batch: int = Field(default=32, ge=1)
    """Finished responses that are graded and written together. Not part of the protocol."""
    mlflow: bool = True
    """Log to MLflow."""


class Protocol(Section):
    """Everything other than the model that a metric depends on; metrics are comparable if their protocols are equal."""

    benchmark: str
    problems: int
    data_sha256: str
    """Hash of the problems and gold answers, without their order, ids and typesetting."""
    sequence_sha256: str = Field(default="", json_schema_extra=ADDED_LATER)
    """Hash of the ids, texts and golds in their order, on which seeds and the problems within a limit depend; empty for
    the reviewed rows of a benchmark in the reviewed order and with the reviewed ids."""
    prompt: str
    """Template of the question."""
    system: str | None
    chat_template: str
    """Hash of the tokenizer's template; ``none`` for plain text."""
    chat_kwargs: dict[str, Any] = Field(default_factory=dict, json_schema_extra=ADDED_LATER)
    """Additional arguments of the template."""
    n: int
    temperature: float
    top_p: float
    top_k: int
    max_new_tokens: int
    stop: tuple[str, ...]
    """Text of the tokens that end a response."""
    seed: int
    seeds: str = "blake2b(seed:eval:benchmark:problem:sample)"
    """How a sample's seed is derived."""
    grader: str
    grader_version: str
    engine: str
    engine_version: str
    dtype: str

    @property
    def digest(self) -> str:
        """The first 8 hex digits of the protocol's hash, which name its results."""
        added_later = {"chat_kwargs": not self.chat_kwargs, "sequence_sha256": not self.sequence_sha256}
        content = self.model_dump_json(exclude={key for key, is_default in added_later.items() if is_default})
        return hashlib.sha256(content.encode()).hexdigest()[:8]

    def record(self) -> dict[str, Any]:
        """The protocol for protocol.json and MLflow: equal to that of earlier versions if the digest is."""
        return self.model_dump(mode="json", exclude=None if self.sequence_sha256 else {"sequence_sha256"})

    def same_responses(self, other: Protocol) -> bool:
        """Return whether both protocols sample the same responses; their graders may differ."""
        no_grader = {"grader": "", "grader_version": ""}
        return self.model_copy(update=no_grader) == other.model_copy(update=no_grader)


class ResolvedEval(Section):
    """An evaluation spec with every default filled in, and the values derived from it.

    Example:
        ``ResolvedEval(spec=spec, folder="runs/eval_smollm2-135m-1f0c2a9b33", model_folder="models/smollm2-135m", ...)``
    """

    spec: EvalSpec
    n: int
    temperature: float
    top_p: float
    max_new_tokens: int
    folder: str
    """Run folder to which the results are written."""
    checkpoint: str
    """``final``, or ``step_000025``."""
    model_folder: str
    """Folder or hub id that ``from_pretrained`` loads."""
    weights: str | None = None
    """Checkpoint folder of a run, whose weights are loaded into that model."""
    run_spec: str | None = None
    """Path of the resolved.json of the evaluated run."""
    engine: Literal["hf", "vllm"] = "hf"
    engine_reason: str = ""
    """Reason for the choice of the engine."""
