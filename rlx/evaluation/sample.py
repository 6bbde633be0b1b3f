"""A few responses of one model to one prompt, as training samples them, each with its reward if there is an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlx.data.chat import check_prompts, encode
from rlx.data.response_text import ResponseText
from rlx.errors import UserError
from rlx.evaluation.build import Candidate
from rlx.rewards.reward_input import RewardInput
from rlx.rewards.reward_set import load_rewards
from rlx.rewards.verdict import Verdict
from rlx.rollout.sampler import Response, Sampling, limit_to_context, sample_seed
from rlx.runs.folder import read_json
from rlx.runs.foreign import refuse_code
from rlx.runs.locate import locator
from rlx.specs.engine_choice import choose_engine
from rlx.specs.evaluate import EvalSpec, ResolvedEval
from rlx.specs.reading import validate
from rlx.specs.train import Data

DEFAULT_TOKENS = 512
"""Longest response of a model that is not a run of `rlx train` (tokens)."""


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """What to sample.

    Example:
        ``SampleRequest("runs/dgpo_s0-1f0c", "47+85=", n=4, checkpoint="40", answer="132")``
    """

    model: str
    prompt: str
    n: int = 1
    checkpoint: str = "final"
    answer: str | None = None
    """The gold answer, which the rewards compare each response with."""
    reward: str | None = None
    """A reward in place of those of the run."""
    temperature: float | None = None
    max_new_tokens: int | None = None
    seed: int = 0
    engine: str = "hf"
    trust: bool = False
    """Whether code may be executed that the run's spec or the model's files name."""


@dataclass(frozen=True, slots=True)
class SampledResponse:
    """One response, its text, and the verdict of each reward.

    Example:
        ``SampledResponse(response, "132", {"rlx": Verdict(1.0, "exact", "132")}, reward=1.0)``
    """

    response: Response
    text: str
    verdicts: Mapping[str, Verdict]
    reward: float | None
    """Weighted sum of the scores; None without an answer."""


def sample_responses(request: SampleRequest, runs_dir: Path) -> list[SampledResponse]:
    """Sample responses to one prompt in the chat template and with the sampling settings of the run's training.

    Raises:
        UserError: for a model, checkpoint, reward or prompt that cannot be used.
    """
    location, _ = locator(runs_dir)(EvalSpec(model=request.model, checkpoint=request.checkpoint))
    spec = read_json(Path(location["run_spec"]))["spec"] if "run_spec" in location else {}
    used = ("model", "reward", "rewards") if request.answer is not None and request.reward is None else ("model",)
    refuse_code({key: spec.get(key) for key in used}, f"run {request.model}", request.trust)
    references = _reward_references(request, spec)
    data = _chat_settings(spec)
    candidate = Candidate(_resolved(request, spec, data, location))
    tokens = encode(request.prompt, data, candidate.tokenizer)
    check_prompts([tokens], candidate.stops, candidate.vocabulary, candidate.tokenizer)
    if candidate.context is not None and len(tokens) >= candidate.context:
        raise UserError(
            f"the prompt has {len(tokens)} tokens, and the model's context {candidate.context}", fix="shorten it"
        )
    available = None if candidate.context is None else candidate.context - len(tokens)
    sampling = Sampling(
        temperature=candidate.resolved.temperature,
        max_new_tokens=limit_to_context(candidate.resolved.max_new_tokens, available),
        stop_ids=candidate.stops,
    )
    seeds = [sample_seed(request.seed, "sample", index) for index in range(request.n)]
    (responses,) = candidate.sampler().sample([tokens], [seeds], sampling)
    settings = spec.get("reward") or {}
    reader = ResponseText(candidate.tokenizer, candidate.stops, settings.get("special_tokens") == "keep")
    return _graded(request, responses, reader, references, settings)


def _graded(
    request: SampleRequest,
    responses: Sequence[Response],
    reader: ResponseText,
    references: Sequence[tuple[str, float]],
    settings: Mapping[str, Any],
) -> list[SampledResponse]:
    texts = [reader.read(response.tokens) for response in responses]
    if request.answer is None:
        return [SampledResponse(response, text.full, {}, None) for response, text in zip(responses, texts, strict=True)]
    rewards = load_rewards(references, float(settings.get("timeout", 60.0)))
    row = {"prompt": request.prompt, "answer": request.answer}
    rewards.check_columns(list(row))
    inputs = [
        RewardInput(
            completion=text.completion,
            final=text.final,
            answer=request.answer,
            prompt=request.prompt,
            completion_ids=response.tokens,
            row=row,
            location="the prompt",
        )
        for response, text in zip(responses, texts, strict=True)
    ]
    by_reward = rewards.grade(inputs)
    graded = []
    for index, (response, text) in enumerate(zip(responses, texts, strict=True)):
        verdicts = {label: verdicts[index] for label, verdicts in by_reward.items()}
        total = sum(rewards.weights[label] * verdict.score for label, verdict in verdicts.items())
        graded.append(SampledResponse(response, text.full, verdicts, total))
    return graded


def _reward_references(request: SampleRequest, spec: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Name and weight of each reward that grades the responses.

    Raises:
        UserError: when there is an answer but no reward.
    """
    if request.reward is not None:
        return [(request.reward, 1.0)]
    if spec.get("rewards"):
        return [(reward["name"], float(reward.get("weight", 1.0))) for reward in spec["rewards"]]
    if spec.get("reward"):
        return [(spec["reward"]["name"], 1.0)]
    if request.answer is not None:
        raise UserError(f"--answer is given, but '{request.model}' has no reward", fix="add --reward NAME, such as rlx")
    return []


def _chat_settings(spec: Mapping[str, Any]) -> Data:
    """The keys that decide how the run's questions became prompts; the defaults for a model that is not a run."""
    section = spec.get("data") or spec.get("forget") or {}
    keys = ("system", "suffix", "chat", "chat_kwargs")
    return Data(**{key: section[key] for key in keys if key in section})


def _resolved(request: SampleRequest, spec: Mapping[str, Any], data: Data, location: Mapping[str, Any]) -> ResolvedEval:
    """The settings of the model and of sampling: those of training, replaced by those of the request."""
    model, rollout = spec.get("model") or {}, spec.get("rollout") or {}
    greedy = 0.0 if request.n == 1 and not rollout else 1.0
    temperature = rollout.get("temperature", greedy) if request.temperature is None else request.temperature
    if temperature == 0 and request.n > 1:
        raise UserError("temperature is 0, so that all responses would be equal", fix="give -n 1 or --temperature 1")
    own = {
        "model": request.model,
        "checkpoint": request.checkpoint,
        "system": data.system,
        "chat": data.chat,
        "chat_kwargs": data.chat_kwargs,
        "seed": request.seed,
        "trust_remote_code": request.trust,
        **{key: model[key] for key in ("revision", "precision") if key in model},
    }
    return validate(
        {
            "spec": own,
            "n": request.n,
            "temperature": temperature,
            "top_p": 1.0,
            "max_new_tokens": request.max_new_tokens or rollout.get("max_new_tokens", DEFAULT_TOKENS),
            "engine": choose_engine(request.engine, str(location["model_folder"])).engine,
            **location,
        },
        ResolvedEval,
    )
