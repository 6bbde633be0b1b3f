"""Accuracy on held-out prompts during training: one sampled and one greedy response each."""

from __future__ import annotations

from dataclasses import replace

from rlx.rl.components import TrainComponents
from rlx.rl.grading import first_verdicts, reward_inputs
from rlx.rl.rollouts import sample_groups
from rlx.rollout.sampler import sample_seed


def accuracy(components: TrainComponents) -> dict[str, float]:
    """Fraction of held-out prompts that are answered correctly, sampled at the evaluation's temperature and greedily.

    Correct is what the first reward says: the value is that reward's mean score.

    The seeds are the same in every evaluation, so that differences between evaluations are paired.

    Returns:
        ``eval/sampled_accuracy``, ``eval/greedy_accuracy`` (fractions), ``eval/problems``, ``eval/response_tokens`` and
        ``eval/truncated`` (of the sampled responses); empty without held-out prompts.
    """
    if not components.held_out:
        return {}
    spec = components.resolved.spec
    components.sampler.load_from(components.engine)
    seeds = [[sample_seed(spec.seed, "eval", prompt.id)] for prompt in components.held_out]
    metrics: dict[str, float] = {}
    for name, temperature in (("sampled", spec.evaluation.temperature), ("greedy", 0.0)):
        sampling = replace(components.sampling, temperature=temperature)
        indices, groups = sample_groups(components.sampler, components.held_out, components.engine, sampling, seeds)
        responses = [response for (response,) in groups]
        texts = [components.grader.text.read(response.tokens) for response in responses]
        samples = reward_inputs([components.held_out[index] for index in indices], groups, texts)
        verdicts = first_verdicts(samples, components.grader.rewards, components.engine)
        scores = [verdict.score for verdict in verdicts]
        lengths = [(len(response.tokens), not response.finished) for response in responses]
        results = components.engine.gather(list(zip(scores, lengths, strict=True)))
        metrics[f"eval/{name}_accuracy"] = sum(score for score, _ in results) / len(results)
        if name == "sampled":
            metrics["eval/response_tokens"] = sum(length for _, (length, _) in results) / len(results)
            metrics["eval/truncated"] = sum(truncated for _, (_, truncated) in results) / len(results)
    metrics["eval/problems"] = len(components.held_out)
    return metrics
