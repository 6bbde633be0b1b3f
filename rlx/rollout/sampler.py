"""The protocol between the workflows and whatever generates text."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import nn

from rlx.engine.step import Engine


@dataclass(frozen=True, slots=True)
class Sampling:
    """The parameters of sampling.

    Example:
        ``Sampling(temperature=1.0, max_new_tokens=24, stop_ids=(2,))``
    """

    temperature: float
    """Softmax temperature; 0 takes the most likely token."""
    max_new_tokens: int
    """Longest response (tokens), including the stop token."""
    stop_ids: tuple[int, ...]
    """Token ids that end a response; the drawn one is part of it."""
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    limits: tuple[int, ...] = ()
    """Longest response of each prompt (tokens), if it is below ``max_new_tokens`` for some; empty for no such limit."""

    @property
    def truncated(self) -> bool:
        """Whether some tokens have probability 0."""
        return self.top_p < 1 or self.top_k > 0 or self.min_p > 0

    def limit(self, prompt: int) -> int:
        """Longest response of the prompt with this index."""
        return min(self.max_new_tokens, self.limits[prompt]) if self.limits else self.max_new_tokens


@dataclass(frozen=True, slots=True)
class Response:
    """One sampled response.

    Example:
        ``Response(tokens=(7, 13, 2), logprobs=(-0.1, -0.7, -0.01), finished=True)``
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    """Log-prob of each token under the distribution that it was drawn from (nats)."""
    finished: bool
    """False when the response was cut off at max_new_tokens."""


Finished = tuple[int, int, Response]
"""Index of the prompt, index of the sample among its seeds, and the response."""


class Sampler(Protocol):
    """Generates responses to prompts."""

    def stream(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[Sequence[int]], sampling: Sampling
    ) -> Generator[Finished, None, None]:
        """One response for every seed of every prompt, in the order in which they finish.

        A response depends on its prompt, its seed and the weights alone (to rounding), not on the other prompts of the
        call, so that a batch may be divided over processes and resumed in any way. Closing the iterator drops the
        responses that are not finished.

        Args:
            prompts: token ids of each prompt.
            seeds: for each prompt the seeds of its samples (``sample_seed``).
            sampling: the parameters.
        """
        ...

    def sample(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[Sequence[int]], sampling: Sampling
    ) -> list[list[Response]]:
        """For each prompt its responses, in the order of its seeds; see ``stream``."""
        finished = {(q, g): response for q, g, response in self.stream(prompts, seeds, sampling)}
        return [[finished[q, g] for g in range(len(row))] for q, row in enumerate(seeds)]

    def load_weights(self, model: nn.Module) -> None:
        """Use the weights of the trainer's causal language model from now on."""
        ...

    def load_from(self, engine: Engine) -> None:
        """Use the current weights of the trained model; every process must call it."""
        ...

    def sleep(self) -> None:
        """Free the memory that is not needed until weights are loaded again."""
        ...


def limit_to_context(longest: int, context: int | None) -> int:
    """``longest``, or the model's context if that is smaller (None: its configuration names none)."""
    return longest if context is None else min(longest, context)


def sample_seed(run_seed: int, *labels: int | str) -> int:
    """A seed for one sample, a pure function of the run's seed and its labels (such as step, prompt and sample).

    Returns:
        An integer in [0, 2^63).
    """
    text = ":".join(str(label) for label in (run_seed, *labels))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
