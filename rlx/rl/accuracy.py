"""Accuracy on held-out prompts during training: one sampled and one greedy response each."""

from __future__ import annotations

from dataclasses import replace

from rlx.engine.lora import causal_lm
from rlx.rl.components import TrainComponents
from rlx.rl.rollouts import sample_groups
from rlx.rollout.sampler import sample_seed


def accuracy(parts: TrainComponents) -> dict[str, float]:
    """Share of held-out prompts answered rightly, sampled at the evaluation's temperature and greedily.

    The seeds do not change from one evaluation to the next, so that differences between them are paired.

    Returns:
        ``eval/sampled_accuracy``, ``eval/greedy_accuracy`` (fractions), ``eval/problems``, ``eval/response_tokens`` and
        ``eval/truncated`` (the last two of the sampled responses); empty without held-out prompts.
    """
    if not parts.held_out:
        return {}
    spec = parts.resolved.spec
    parts.sampler.load_weights(causal_lm(parts.engine.gathered_model()))
    labels = [[sample_seed(spec.seed, "eval", prompt.id)] for prompt in parts.held_out]
    result: dict[str, float] = {}
    for name, temperature in (("sampled", spec.evaluation.temperature), ("greedy", 0.0)):
        sampling = replace(parts.sampling, temperature=temperature)
        numbers, groups = sample_groups(parts.sampler, parts.held_out, parts.engine, sampling, labels)
        responses = [response for (response,) in groups]
        golds = [parts.held_out[number].answer for number in numbers]
        texts = [parts.decode(response.tokens) for response in responses]
        right = [verdict.score for verdict in parts.reward(list(zip(texts, golds, strict=True)))]
        facts = [(len(response.tokens), not response.finished) for response in responses]
        every = parts.engine.gather(list(zip(right, facts, strict=True)))
        result[f"eval/{name}_accuracy"] = sum(score for score, _ in every) / len(every)
        if name == "sampled":
            result["eval/response_tokens"] = sum(length for _, (length, _) in every) / len(every)
            result["eval/truncated"] = sum(cut for _, (_, cut) in every) / len(every)
    result["eval/problems"] = len(parts.held_out)
    return result
