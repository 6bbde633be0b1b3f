"""``rlx train --preview``: the data, prompts, rewards and size of a run, without its weights; writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlx.benchmarks.benchmark import overlap_warnings
from rlx.console import clock, print_out, warn
from rlx.data.chat import check_prompts, stop_ids
from rlx.data.preview import print_gold_checks, print_lengths, print_problems, print_prompts
from rlx.data.prompts import Prompt, PromptSet
from rlx.engine.load import describe_model, load_tokenizer
from rlx.engine.skeleton import load_skeleton, plan_memory, update_seconds
from rlx.rewards.gold_check import GoldCheck, check_gold
from rlx.rewards.reward_set import load_grader
from rlx.rl.build import columns_of, load_data, most_update_tokens
from rlx.rl.grading import reward_input
from rlx.specs.resolve_train import EMBEDDED_DATA
from rlx.specs.train import Resolved, Spec


def preview_train(resolved: Resolved, world: int) -> int:
    """Print what a run would read and do.

    Args:
        resolved: the run.
        world: number of its processes.

    Returns:
        The exit code: 1 if something is wrong, such as a reward that does not pay the gold answer.

    Raises:
        UserError: what the run would raise for its data, model or tokenizer.
    """
    spec = resolved.spec
    description = describe_model(resolved.model_folder, spec.model)
    tokenizer = load_tokenizer(resolved.model_folder, spec.model)
    data, held_out = load_data(resolved, tokenizer)
    prompts = data.prompts
    print_out(f"preview of {resolved.run_id}: no weights are loaded and nothing is written")
    print_out(f"training data {spec.data.source}: {data.sentence()}")
    if held_out.prompts:
        print_out(f"held-out data: {held_out.sentence()}")
    for sentence in overlap_warnings(prompt.question for prompt in prompts):
        warn(sentence)
    stops = stop_ids(description.generation_config, spec.data, tokenizer)
    check_prompts([prompt.tokens for prompt in [*prompts, *held_out.prompts]], stops, description.vocabulary, tokenizer)
    print_out(f"a response ends with {' or '.join(tokenizer.decode([stop]) for stop in stops)}")
    golds = [prompt.answer for prompt in prompts]
    print_prompts([prompt.tokens for prompt in prompts], [prompt.id for prompt in prompts], tokenizer, golds)
    print_lengths([len(prompt.tokens) for prompt in prompts], "prompts")
    _print_left_out(resolved, data, held_out)
    problems = print_gold_checks(_gold_checks(spec, prompts, tokenizer))
    return print_problems(problems + _print_size(resolved, data, held_out, world, description.context))


def _gold_checks(spec: Spec, prompts: Sequence[Prompt], tokenizer: Any) -> list[GoldCheck]:
    """What each reward gives to answers of some of the prompts."""
    samples = [reward_input(prompt, "", "", ()) for prompt in prompts]
    checks = []
    for index, reward in enumerate(spec.weighted_rewards):
        key = f"rewards.{index}.name" if spec.rewards else "reward.name"
        grader = load_grader(reward.name, key, columns_of(prompts), spec.reward.timeout)
        checks.append(check_gold(reward.name, grader, samples, tokenizer, is_first=index == 0))
    return checks


def _print_left_out(resolved: Resolved, data: PromptSet, held_out: PromptSet) -> None:
    """Print which share of the rows is left out because the prompt is too long."""
    spec = resolved.spec
    longer = data.left_out.get(f"longer than {spec.data.max_prompt_tokens} tokens", 0)
    rows = len(data.prompts) + sum(data.left_out.values())
    if spec.evaluation.source == "auto" and spec.data.source != EMBEDDED_DATA:
        rows += len(held_out.prompts)  # they are held out from the same rows
    limit = spec.data.max_prompt_tokens
    print_out(f"longer than data.max_prompt_tokens={limit}: {longer} of {rows} rows ({longer / rows:.1%})")


def _print_size(resolved: Resolved, data: PromptSet, held_out: PromptSet, world: int, context: int | None) -> list[str]:
    """Print updates, tokens, memory and time; returns what is wrong, as sentences."""
    spec = resolved.spec
    limit = spec.rollout.max_new_tokens
    lengths = [len(prompt.tokens) for prompt in data.prompts]
    longest = max(lengths + [len(prompt.tokens) for prompt in held_out.prompts])
    responses = spec.batch.prompts * spec.rollout.samples_per_prompt
    passes = spec.steps * spec.batch.prompts / len(lengths)
    print_out(
        f"\n{spec.steps} steps of {spec.batch.prompts} prompts ({passes:.2f} passes over the data), "
        f"{spec.rollout.samples_per_prompt} responses each; {resolved.total_updates} updates of "
        f"{resolved.sequences_per_update} responses"
    )
    print_out(f"tokens of a step: at most {responses * (longest + limit):,}, of them {responses * limit:,} sampled")
    problems = []
    if context is not None and longest + limit > context:
        problems.append(
            f"the longest prompt and rollout.max_new_tokens={limit} are {longest + limit} tokens, and the model's "
            f"context is {context}: lower rollout.max_new_tokens or data.max_prompt_tokens"
        )
    if spec.backend == "verl":
        print_out("memory and time: not estimated for backend=verl")
        return problems
    skeleton = load_skeleton(resolved.model_folder, spec.model)
    tokens = min(spec.batch.max_tokens, most_update_tokens(resolved, longest, world))
    reference = spec.algorithm.kl_coef > 0 and (spec.model.lora is None or spec.model.lora.continue_adapter)
    plan = plan_memory(skeleton, spec.model, spec.sharding, tokens, world, reference)
    print_out(f"memory of an update of {tokens:,} tokens: {plan.sentence() if plan else 'not estimated'}")
    if plan and not plan.fits:
        problems.append(
            f"an update is estimated not to fit into the free memory ({plan.sentence()}): lower batch.max_tokens, use "
            "model.lora or more processes"
        )
    if skeleton is None:
        print_out("time: not estimated")
        return problems
    mean = sum(lengths) // len(lengths)
    seconds = update_seconds(skeleton, spec.model, mean, [limit] * spec.rollout.samples_per_prompt)
    per_step = seconds * spec.batch.prompts / world
    shown = clock(per_step) if per_step >= 10 else f"{per_step:.2g}s"
    print_out(
        f"time: the updates of a step take at least {shown} if every response has "
        f"{limit} tokens (operations over the measured rate of a matrix product); sampling and grading are not "
        "estimated, and rlx train --profile --steps 3 measures them"
    )
    return problems
