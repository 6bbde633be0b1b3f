"""Build the components of a training run from its resolved spec."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rlx.benchmarks.benchmark import overlap_warnings
from rlx.console import loading
from rlx.data.chat import check_prompts, stop_ids
from rlx.data.prompts import Prompt, PromptSet, hold_out, load_prompts
from rlx.data.response_text import ResponseText
from rlx.engine.export import check_savable, keep_stop_ids
from rlx.engine.load import load_frozen, load_tokenizer, load_trainable
from rlx.engine.lora import causal_lm
from rlx.engine.model import ReadableModel
from rlx.engine.random_states import seed_generators
from rlx.engine.recovery import Recovery
from rlx.engine.row_layout import choose_row_layout
from rlx.engine.step import Engine, make_accelerator
from rlx.registry import Method
from rlx.rewards.reward_set import load_rewards
from rlx.rl.components import TrainComponents
from rlx.rl.rollouts import Grader
from rlx.rollout.build import make_sampler
from rlx.rollout.sampler import Sampling
from rlx.runs.folder import RunDir
from rlx.runs.recorder import Recorder
from rlx.runs.stop import Stop
from rlx.specs.resolve_train import EMBEDDED_DATA, policy_method
from rlx.specs.train import Resolved, Spec


def build(resolved: Resolved, folder: RunDir, recorder: Recorder) -> TrainComponents:
    """The components of a run: model, engine, sampler, data, reward and method.

    Raises:
        UserError: when a model, file or setting cannot be used.
    """
    spec = resolved.spec
    recovery = Recovery(folder)
    seed_generators(spec.seed)  # adapters start from the same random values on every process
    accelerator = make_accelerator(spec.model)
    tokenizer = load_tokenizer(resolved.model_folder, spec.model)
    loading(f"the prompts of {spec.data.source}")
    data, held_out = load_data(resolved, tokenizer)
    for name, prompt_set in (("training", data), ("held-out", held_out)):
        for notice in prompt_set.notices:
            recorder.note(notice)
        if prompt_set.left_out:
            recorder.note(f"{name} data: {prompt_set.sentence()}", tag=f"rlx.{name}_data")
    for sentence in overlap_warnings(prompt.question for prompt in data.prompts):
        recorder.note(f"warning: {sentence}")
    loading(f"the model {spec.model.path}")
    model = load_trainable(resolved.model_folder, spec.model, accelerator.device)
    stops = stop_ids(causal_lm(model).generation_config, spec.data, tokenizer)
    vocabulary = causal_lm(model).get_input_embeddings().weight.shape[0]
    check_prompts((prompt.tokens for prompt in [*data.prompts, *held_out.prompts]), stops, vocabulary, tokenizer)
    keep_stop_ids(causal_lm(model), stops)
    check_savable(causal_lm(model), tokenizer)
    reference = None
    if spec.algorithm.kl_coef > 0 and (spec.model.lora is None or spec.model.lora.continue_adapter):
        reference = ReadableModel(load_frozen(resolved.model_folder, spec.model, accelerator.device))
    longest_prompt = max(len(prompt.tokens) for prompt in [*data.prompts, *held_out.prompts])
    update_tokens = most_update_tokens(resolved, longest_prompt, accelerator.num_processes)
    budget, total = spec.batch.max_tokens, resolved.total_updates
    engine = Engine(model, spec.model, spec.optim, total, budget, spec.sharding, update_tokens)
    if notice := choose_row_layout(engine):
        recorder.note(notice)
    component = policy_method(spec)
    text = ResponseText(tokenizer, stops, keep_special=spec.reward.special_tokens == "keep")
    sampler, sync_check = make_sampler(resolved, engine, recorder, longest_prompt)
    return TrainComponents(
        resolved=resolved,
        run=folder,
        engine=engine,
        sampler=sampler,
        sync_check=sync_check,
        tokenizer=tokenizer,
        method=Method(component, component.hyper(**spec.algorithm.params)),
        grader=make_grader(spec, data.prompts, text, engine),
        sampling=Sampling(spec.rollout.temperature, spec.rollout.max_new_tokens, stops),
        prompts=data.prompts,
        held_out=held_out.prompts,
        reference=reference,
        recorder=recorder,
        recovery=recovery,
        stop=Stop(),
    )


def load_data(resolved: Resolved, tokenizer: Any) -> tuple[PromptSet, PromptSet]:
    """Training prompts and held-out prompts; the latter are empty if evaluation is off."""
    spec = resolved.spec
    data = load_prompts(spec.data, tokenizer)
    if not spec.evaluation.every:
        return data, PromptSet([], {})
    source = spec.evaluation.source
    if source == "auto" and spec.data.source != EMBEDDED_DATA:
        train_part, held_out = hold_out(data.prompts, spec.evaluation.limit)
        return replace(data, prompts=train_part), PromptSet(held_out, {})
    test = spec.data.model_copy(
        update={
            "source": spec.data.source if source == "auto" else source,
            "sources": [],
            "split": spec.evaluation.split,
            "limit": spec.evaluation.limit,
        }
    )
    return data, load_prompts(test, tokenizer)


def make_grader(spec: Spec, prompts: Sequence[Prompt], text: ResponseText, engine: Engine) -> Grader:
    """The rewards of the run.

    Raises:
        UserError: when a reward asks for a column that no row has.
    """
    references = [(reward.name, reward.weight) for reward in spec.weighted_rewards]
    settings = spec.reward
    rewards = load_rewards(references, settings.timeout, settings.on_error, settings.workers)
    rewards.check_columns(columns_of(prompts))
    return Grader(spec, rewards, text, engine)


def columns_of(prompts: Sequence[Prompt]) -> list[str]:
    """Names of the columns that at least one prompt's row has."""
    return list(dict.fromkeys(column for prompt in prompts for column in prompt.row))


def most_update_tokens(resolved: Resolved, longest_prompt: int, world: int) -> int:
    """Most tokens of an update on one of ``world`` processes: every response and its prompt have the full length."""
    sequences = -(-resolved.sequences_per_update // world)
    return sequences * (longest_prompt + resolved.spec.rollout.max_new_tokens)
