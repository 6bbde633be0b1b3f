"""A graded rollout to optimiser updates: old and reference log-probs, objective, denominators."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rlx.engine.model import ReadableModel, without_adapters
from rlx.engine.step import Batch, Engine, Losses, Update
from rlx.loops.rollouts import Graded
from rlx.numerics.batch import PolicyBatch
from rlx.numerics.collate import TokenBatch, TokenSequence, pad_rows
from rlx.numerics.kl import KL_FORMS, kl_k3
from rlx.numerics.logprobs import Head, token_logprobs
from rlx.numerics.ratio import log_ratio
from rlx.numerics.terms import Counts, Term
from rlx.registry import Component, Hyper
from rlx.spec import Spec

Scored = tuple[Tensor, Tensor]
"""Log-probs and entropies of response tokens, both [n] (nats)."""


@dataclass(frozen=True, slots=True)
class Method:
    """A policy loss with its validated parameters.

    Example:
        ``Method(get("policy", "dgpo"), DGPO(n=1, m=2))``
    """

    component: Component
    hyper: Hyper


@dataclass(frozen=True, slots=True)
class MiniBatch:
    """The samples of one optimiser update that are scored, on this process."""

    sequences: list[TokenSequence]
    adv_b: Tensor
    sampler_logprobs: list[Tensor]
    old_logprobs: list[Tensor] | None
    """None in the first update after a rollout, where the policy itself is the trust region's centre."""
    ref_logprobs: list[Tensor] | None
    counts: Counts
    """Over all samples of the update, those without a gradient included."""
    whole: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PolicyObjective:
    """The loss terms and statistics of a micro-batch."""

    method: Method
    spec: Spec
    mini: MiniBatch

    def __call__(self, scored: Scored, tokens: TokenBatch, rows: list[int]) -> Losses:
        """See ``engine.step.Batch.objective``."""
        mask_bt = tokens.mask_bt
        logprobs_bt, entropy_bt = tokens.padded(scored[0]), tokens.padded(scored[1])
        old_bt = (
            logprobs_bt.detach() if self.mini.old_logprobs is None else self._rows(self.mini.old_logprobs, tokens, rows)
        )
        adv_bt = self.mini.adv_b[rows].to(mask_bt.device)[:, None] * mask_bt
        needs_entropy = "entropy" in self.method.component.needs
        batch = PolicyBatch(old_bt, adv_bt, mask_bt, entropy_bt if needs_entropy else None)
        made = self.method.component.fn(logprobs_bt, batch, self.method.hyper)
        algorithm = self.spec.algorithm
        terms = [Term("policy", made.loss_bt, mask_bt, 1.0, algorithm.reduction)]
        sums = {name: (value * mask_bt).sum() for name, value in made.stats_bt.items()}
        if self.mini.ref_logprobs is not None:
            ref_bt = self._rows(self.mini.ref_logprobs, tokens, rows)
            kl_bt = KL_FORMS[algorithm.kl_form](logprobs_bt, ref_bt)
            terms.append(Term("kl", kl_bt, mask_bt, algorithm.kl_coef, algorithm.reduction))
            sums["ref_kl"] = (kl_bt.detach() * mask_bt).sum()
        return Losses(terms, *self._statistics(sums, logprobs_bt.detach(), old_bt, entropy_bt, tokens, rows))

    def _rows(self, values: Sequence[Tensor], tokens: TokenBatch, rows: list[int]) -> Tensor:
        return pad_rows([values[row] for row in rows], tokens.mask_bt.shape[1]).to(tokens.mask_bt.device)

    def _statistics(
        self,
        sums: dict[str, Tensor],
        logprobs_bt: Tensor,
        old_bt: Tensor,
        entropy_bt: Tensor,
        tokens: TokenBatch,
        rows: list[int],
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Sums over the scored tokens, and the ratio's extremes."""
        mask_bt = tokens.mask_bt
        ratio_bt = log_ratio(logprobs_bt, old_bt).exp()
        apart_bt = (old_bt - self._rows(self.mini.sampler_logprobs, tokens, rows)) * mask_bt
        sums["tokens"] = mask_bt.sum()
        sums["entropy"] = entropy_bt.sum()
        sums["approx_kl"] = (kl_k3(old_bt, logprobs_bt) * mask_bt).sum()
        sums["sampler_logprob_diff"] = apart_bt.abs().sum()
        one = torch.ones((), dtype=ratio_bt.dtype, device=ratio_bt.device)
        peaks = {
            "ratio_max": torch.where(mask_bt, ratio_bt, one).max(),
            "-ratio_min": -torch.where(mask_bt, ratio_bt, one).min(),
            "sampler_logprob_diff_max": apart_bt.abs().max(),
        }
        return sums, peaks


def update_policy(
    graded: Graded, method: Method, spec: Spec, engine: Engine, reference: ReadableModel | None
) -> list[Update]:
    """The rollout's ``updates_per_rollout`` optimiser updates, each on its own mini-batch of prompts.

    Samples whose advantage is 0 are neither scored nor trained on when nothing else in the loss needs them; the
    denominators count them all the same.

    Args:
        graded: this process's share of the rollout.
        method: the policy loss.
        spec: the experiment.
        engine: model and optimiser.
        reference: the frozen initial model; None when it is not needed or the adapters can be switched off instead.
    """
    read = reader(spec.rollout.temperature)
    parts = [_rows_of_update(graded, spec, number) for number in range(spec.batch.updates_per_rollout)]
    scored_all = method.component.needs & {"zero_advantage"} or spec.algorithm.kl_coef > 0
    kept = [[b for b in rows if scored_all or graded.adv_b[b] != 0] for rows in parts]
    sequences = graded.sampled.sequences
    later = [b for rows in kept[1:] for b in rows]
    old = dict(zip(later, logprobs_of([sequences[b] for b in later], engine, read), strict=True))
    ref: dict[int, Tensor] = {}
    if spec.algorithm.kl_coef > 0:
        chosen = [b for rows in kept for b in rows]
        with without_adapters(engine.raw):
            values = logprobs_of([sequences[b] for b in chosen], engine, read, reference)
        ref = dict(zip(chosen, values, strict=True))
    updates = []
    for number, rows in enumerate(kept):
        mini = MiniBatch(
            sequences=[sequences[b] for b in rows],
            adv_b=graded.adv_b[rows],
            sampler_logprobs=[torch.tensor(graded.sampled.responses[b].logprobs) for b in rows],
            old_logprobs=None if number == 0 else [old[b] for b in rows],
            ref_logprobs=[ref[b] for b in rows] if ref else None,
            counts=_counts([len(sequences[b].response) for b in parts[number]], engine, spec.rollout.max_new_tokens),
        )
        names = ("policy", "kl")
        objective = PolicyObjective(method, spec, mini)
        updates.append(engine.update(Batch(mini.sequences, read, objective, dict.fromkeys(names, mini.counts))))
    return updates


def reader(temperature: float) -> Callable[[Tensor, Head, TokenBatch], Scored]:
    """Log-probs and entropies at the temperature the tokens were sampled at."""

    def read(hidden_nd: Tensor, head: Head, batch: TokenBatch) -> Scored:
        return token_logprobs(hidden_nd, batch.targets_n, head, temperature)

    return read


def logprobs_of(
    sequences: Sequence[TokenSequence],
    engine: Engine,
    read: Callable[[Tensor, Head, TokenBatch], Scored],
    model: ReadableModel | None = None,
) -> list[Tensor]:
    """Log-probs of each sequence's response tokens without gradient, on the CPU (nats)."""
    found: dict[int, Tensor] = {}
    for rows, (logprobs_n, _) in engine.score(sequences, read, model):
        lengths = [len(sequences[row].response) for row in rows]
        found.update(zip(rows, torch.split(logprobs_n.cpu(), lengths), strict=True))
    return [found[index] for index in range(len(sequences))]


def _rows_of_update(graded: Graded, spec: Spec, number: int) -> list[int]:
    """Samples of the update with this number: a contiguous share of the rollout's prompts."""
    share = spec.batch.prompts // spec.batch.updates_per_rollout
    sampled = graded.sampled
    return [b for b in range(len(sampled.responses)) if sampled.numbers[b // sampled.samples] // share == number]


def _counts(lengths: Sequence[int], engine: Engine, max_tokens: int) -> Counts:
    every = engine.gather(list(lengths))
    return Counts(sum(every), sum(length > 0 for length in every), max_tokens)
