"""Greedy answers of a model, of which only the part is decoded that differs from the right answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rlx.benchmarks.tofu.columns import Floats
from rlx.numerics.collate import TokenSequence
from rlx.rollout.sync_check import check_sync
from rlx.unlearning.subject import Subject, readable

LENGTHS, MARGIN = 2, 16
"""A greedy answer ends after ``LENGTHS`` times the tokens of the right answer, and ``MARGIN`` more."""
PROTOCOL = (
    "Greedy answers end at a stop token, or after {lengths} times the tokens of the right answer and {margin} more, at "
    "most {most} tokens. Where the model's most likely tokens are those of the right answer, they are read from one "
    "forward pass; only the rest is decoded."
)


def decoding_protocol(most: int) -> str:
    """How answers are decoded, as the certificate says it.

    Args:
        most: ``evaluation.max_new_tokens``.
    """
    return PROTOCOL.format(lengths=LENGTHS, margin=MARGIN, most=most)


def answer_limit(right: int, most: int) -> int:
    """Longest greedy answer (tokens).

    Args:
        right: tokens of the right answer, without the end of sequence.
        most: ``evaluation.max_new_tokens``.
    """
    return min(most, LENGTHS * right + MARGIN)


def greedy_texts(
    subject: Subject, sequences: Sequence[TokenSequence], predicted: Sequence[Floats], prefix_tokens: Sequence[int] = ()
) -> list[str]:
    """Greedy answers, given the model's most likely token at each position of the right ones.

    Up to the first token at which the two differ a greedy answer is the right one, so that it is decoded only from
    there. Every process must call this.

    Args:
        subject: the model.
        sequences: questions with their right answers.
        predicted: the most likely token after the question and the right answer so far, for each response token.
        prefix_tokens: number of tokens of each right answer that the response starts with (a jailbreak), by default
            none; the text includes them.
    """
    lengths = prefix_tokens or [0] * len(sequences)
    given = [s.response[: min(n, len(s.response) - 1)] for s, n in zip(sequences, lengths, strict=True)]
    limits = [answer_limit(len(s.response) - 1, subject.sampling.max_new_tokens) for s in sequences]
    starts = [
        _known_start(sequence, likeliest.astype(int).tolist(), len(head), limit, subject.sampling.stop_ids)
        for sequence, likeliest, head, limit in zip(sequences, predicted, given, limits, strict=True)
    ]
    open_rows = [index for index, (_, complete) in enumerate(starts) if not complete]
    prompts = [[*sequences[i].prompt, *given[i], *starts[i][0]] for i in open_rows]
    rests = _continued(subject, prompts, [limits[i] - len(starts[i][0]) for i in open_rows])
    responses = [[*head, *tokens] for head, (tokens, _) in zip(given, starts, strict=True)]
    for index, rest in zip(open_rows, rests, strict=True):
        responses[index] += rest
    return [subject.tokenizer.decode(tokens, skip_special_tokens=True) for tokens in responses]


def _known_start(
    sequence: TokenSequence, predicted: Sequence[int], given: int, limit: int, stops: Sequence[int]
) -> tuple[list[int], bool]:
    """The tokens of the greedy response up to the first that is not the right answer's, and whether it is complete."""
    tokens: list[int] = []
    for label, likeliest in zip(sequence.response[given:], predicted[given:], strict=True):
        tokens.append(likeliest)
        if likeliest in stops or len(tokens) == limit:
            return tokens, True
        if likeliest != label:
            break
    return tokens, False


def _continued(subject: Subject, prompts: Sequence[list[int]], limits: Sequence[int]) -> list[tuple[int, ...]]:
    """Greedy continuations of prompts, all in one call of the sampler."""
    if not subject.engine.agree(bool(prompts)):
        return []
    if subject.model is None:
        subject.sampler.load_from(subject.engine)
    else:
        subject.sampler.load_weights(subject.model)
    sampling = replace(subject.sampling, limits=tuple(limits))
    responses = [group[0] for group in subject.sampler.sample(prompts, [[0]] * len(prompts), sampling)]
    subject.sampler.sleep()
    if subject.tolerance is not None:
        sampled = [TokenSequence(tuple(p), r.tokens) for p, r in zip(prompts, responses, strict=True)]
        check_sync(sampled, responses, subject.engine, 1.0, subject.tolerance, readable(subject))
    return [response.tokens for response in responses]
