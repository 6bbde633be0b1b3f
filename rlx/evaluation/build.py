"""Build the model that is evaluated, and each benchmark's task, from a resolved evaluation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import transformers

from rlx.benchmarks.benchmark import Benchmark, Problem
from rlx.benchmarks.summary import Score, Summary, as_json, problem_scores, summarised
from rlx.console import loading, warn
from rlx.data.chat import check_prompts, encode, stop_ids
from rlx.data.response_text import ResponseText
from rlx.engine.checkpoint import put_weights
from rlx.engine.device import sampling_dtype
from rlx.engine.export import save_model
from rlx.engine.load import base_path, describe_model, load_frozen, load_tokenizer, load_trainable
from rlx.engine.lora import causal_lm
from rlx.engine.processes import launched
from rlx.engine.step import make_accelerator
from rlx.errors import UserError, reason
from rlx.evaluation.loop import EvalTask
from rlx.evaluation.problems import ProblemSet
from rlx.rewards.grade import VERSION
from rlx.rewards.reward_set import Grader, load_grader
from rlx.rollout.hf import HFSampler
from rlx.rollout.sampler import Sampler, Sampling, limit_to_context
from rlx.rollout.vllm import EngineOptions, VLLMSampler, vllm_version
from rlx.runs.folder import RunDir, read_json, write_atomically
from rlx.runs.folder_parts import EvalDir
from rlx.runs.integrity import verified
from rlx.runs.samples import Row
from rlx.runs.stop import Stop
from rlx.specs.evaluate import Protocol, ResolvedEval
from rlx.specs.identity import code_fingerprints
from rlx.specs.reading import validate
from rlx.specs.train import Data, Model

MAX_PROMPT_TOKENS = 4096
"""Longest benchmark prompt that vLLM's cache is sized for (tokens)."""


@dataclass(slots=True)
class Candidate:
    """The model that is evaluated; its weights are loaded before the first sample."""

    resolved: ResolvedEval
    model: Model = field(init=False)
    tokenizer: Any = field(init=False)
    stops: tuple[int, ...] = field(init=False)
    context: int | None = field(init=False)
    vocabulary: int = field(init=False)
    _sampler: Sampler | None = None

    def __post_init__(self) -> None:
        """Read configuration and tokenizer."""
        spec, folder = self.resolved.spec, self.resolved.model_folder
        self.model = Model(
            path=folder,
            revision=spec.revision,
            trust_remote_code=spec.trust_remote_code,
            precision=spec.precision,
        )
        description = describe_model(folder, self.model)
        self.tokenizer = load_tokenizer(folder, self.model)
        settings = Data(system=spec.system, chat=spec.chat, chat_kwargs=spec.chat_kwargs)
        self.stops = stop_ids(description.generation_config, settings, self.tokenizer)
        self.context, self.vocabulary = description.context, description.vocabulary

    @property
    def dtype(self) -> str:
        """The type that the model computes in."""
        half = make_accelerator(self.model).mixed_precision == "bf16"
        return "bfloat16" if half else "float32"

    @property
    def engine_version(self) -> str:
        """The sampling library and its version."""
        if self.resolved.engine == "vllm":
            return vllm_version()
        return f"transformers {transformers.__version__}"

    def sampler(self) -> Sampler:
        """The sampler over the model's weights."""
        if self._sampler is None:
            loading(f"the model {self.resolved.weights or self.resolved.model_folder}")
            self._sampler = self._vllm() if self.resolved.engine == "vllm" else self._hf()
        return self._sampler

    def _hf(self) -> HFSampler:
        sampler = HFSampler(autocast=make_accelerator(self.model).autocast, dtype=sampling_dtype(self.model.precision))
        sampler.load_weights(causal_lm(self._weights()).eval())
        return sampler

    def _vllm(self) -> VLLMSampler:
        """The saved model in vLLM; a checkpoint or an adapter is first saved as a model."""
        folder = self.resolved.model_folder
        if not self.resolved.weights and base_path(folder, self.model) == folder:
            with verified(Path(folder)):
                return VLLMSampler(self._options(folder))
        with TemporaryDirectory(prefix="rlx-") as folder:
            save_model(self._weights(), self.tokenizer, Path(folder))
            return VLLMSampler(self._options(folder))

    def _options(self, folder: str) -> EngineOptions:
        spec = self.resolved.spec
        return EngineOptions(
            model=folder,
            dtype=self.dtype,
            longest=limit_to_context(self.resolved.max_new_tokens + MAX_PROMPT_TOKENS, self.context),
            seed=spec.seed,
            revision=spec.revision,
            trust_remote_code=spec.trust_remote_code,
            tensor_parallel=spec.tensor_parallel,
            memory_share=spec.memory_share,
            launched=launched(),
        )

    def _weights(self) -> Any:
        """The transformers model, with the checkpoint's weights if one is named."""
        folder, device = self.resolved.model_folder, make_accelerator(self.model).device
        if not (self.resolved.weights and self.resolved.run_spec):
            return load_frozen(folder, self.model, device)
        trained = validate(read_json(Path(self.resolved.run_spec))["spec"]["model"], Model)  # of training or unlearning
        lm = load_trainable(folder, self.model.model_copy(update={"lora": trained.lora}), device)
        put_weights(Path(self.resolved.weights), lm)
        return lm


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one benchmark's evaluation gives to the model, and how it is measured.

    Example:
        ``Measurement(protocol, prompts=[(7, 10, 8, 14)], grader=load_grader(...))``
    """

    protocol: Protocol
    prompts: Sequence[tuple[int, ...]]
    """Token ids of each problem's rendered prompt."""
    grader: Grader


def measurement(problem_set: ProblemSet, candidate: Candidate) -> Measurement:
    """The problems as prompts of the model, with the protocol and the grader; reads no weights and writes nothing.

    Raises:
        UserError: for a prompt that the model cannot get, or that leaves its context no token for a response.
    """
    resolved, tokenizer = candidate.resolved, candidate.tokenizer
    spec, benchmark, name = resolved.spec, problem_set.benchmark, problem_set.name
    template = spec.prompt or benchmark.prompt
    grader = benchmark.grader if spec.grader == "auto" else spec.grader
    data = Data(source=name, system=spec.system, chat=spec.chat, chat_kwargs=spec.chat_kwargs)
    prompts = [_prompt(problem, template, data, tokenizer) for problem in problem_set.problems]
    check_prompts(prompts, candidate.stops, candidate.vocabulary, tokenizer)
    plain = spec.chat == "never" or not tokenizer.chat_template
    protocol = Protocol(
        benchmark=name,
        problems=len(problem_set.problems),
        data_sha256=problem_set.data_sha256,
        sequence_sha256=problem_set.sequence_sha256,
        prompt=template,
        system=spec.system,
        chat_kwargs=spec.chat_kwargs,
        chat_template="none" if plain else hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest()[:16],
        n=resolved.n,
        temperature=resolved.temperature,
        top_p=resolved.top_p,
        top_k=spec.top_k,
        max_new_tokens=_response_limit(name, benchmark, prompts, candidate),
        stop=tuple(tokenizer.decode([token]) for token in candidate.stops),
        seed=spec.seed,
        grader=grader,
        grader_version=", ".join([VERSION, *code_fingerprints({"grader": grader}).values()]),
        engine=resolved.engine,
        engine_version=candidate.engine_version,
        dtype=candidate.dtype,
    )
    columns = dict.fromkeys(column for problem in problem_set.problems for column in problem.row)
    return Measurement(protocol, prompts, load_grader(grader, "grader", columns))


def _prompt(problem: Problem, template: str, data: Data, tokenizer: Any) -> tuple[int, ...]:
    """Token ids of a problem in the template, after its system prompt and its earlier messages."""
    own = data if problem.system is None else data.model_copy(update={"system": problem.system})
    return encode(template.replace("{problem}", problem.text), own, tokenizer, problem.history)


def assemble(problem_set: ProblemSet, candidate: Candidate) -> EvalTask:
    """The task of one benchmark; its protocol and first prompt are written to its folder."""
    resolved, tokenizer = candidate.resolved, candidate.tokenizer
    measured = measurement(problem_set, candidate)
    protocol = measured.protocol
    folder = RunDir(Path(resolved.folder)).evaluation(resolved.checkpoint, f"{problem_set.name}-{protocol.digest}")
    write_file(folder.protocol, json.dumps(protocol.record(), indent=2))
    write_file(folder.first_prompt, tokenizer.decode(measured.prompts[0]))
    return EvalTask(
        protocol=protocol,
        problems=problem_set.problems,
        prompts=measured.prompts,
        sampler=candidate.sampler,
        sampling=Sampling(
            temperature=protocol.temperature,
            max_new_tokens=protocol.max_new_tokens,
            stop_ids=candidate.stops,
            top_p=protocol.top_p,
            top_k=protocol.top_k,
        ),
        grader=measured.grader,
        text=ResponseText(tokenizer, candidate.stops),
        folder=folder,
        stop=Stop(),
        batch=resolved.spec.batch,
        alone=not launched() or resolved.spec.tensor_parallel == 1,
    )


def write_file(path: Path, text: str) -> None:
    """Write a file of the evaluation.

    Raises:
        UserError: when it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({reason(error)})",
            fix="free some space or choose another folder with --runs-dir; stored samples are kept",
            exit_code=1,
        ) from None


def write_result(folder: EvalDir, benchmark: str, rows: Sequence[Row]) -> tuple[Summary, list[Score]]:
    """Compute a benchmark's metrics from all of its samples, and write them to result.json.

    Args:
        folder: the evaluation's.
        benchmark: its name.
        rows: the samples.
    """
    summary, scores = summarised(benchmark, rows), problem_scores(rows)
    write_file(folder.result, json.dumps(as_json(summary, scores), indent=1))
    return summary, scores


def _response_limit(name: str, benchmark: Benchmark, prompts: Sequence[tuple[int, ...]], candidate: Candidate) -> int:
    """Longest response (tokens): the requested limit, bounded by the benchmark's need and the model's context."""
    requested = min(candidate.resolved.max_new_tokens, benchmark.longest or candidate.resolved.max_new_tokens)
    longest = max(len(prompt) for prompt in prompts)
    if candidate.context is None or longest + requested <= candidate.context:
        return requested
    available = candidate.context - longest
    if available < 1:
        raise UserError(
            f"benchmark {name}: its longest prompt has {longest} tokens, and the model's context {candidate.context}",
            fix="leave this benchmark out",
        )
    warn(f"{name}: responses end at {available} tokens, not {requested}: the model's context is {candidate.context}")
    return available
