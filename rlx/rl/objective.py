"""The loss terms of one micro-batch: policy loss, KL and entropy, and their logged statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rlx.engine.batch import Losses
from rlx.numerics.batch import PolicyBatch
from rlx.numerics.collate import TokenBatch, TokenSequence, pad_rows
from rlx.numerics.kl import KL_FORMS, kl_k3
from rlx.numerics.output_layer.response_reader import Scored
from rlx.numerics.ratio import log_ratio
from rlx.numerics.shaping import cut_gradient, mismatch_weight, without_values
from rlx.numerics.terms import Counts, Term
from rlx.numerics.trust import gradient_weights, ratio_histogram, trust_sums
from rlx.registry import Method
from rlx.specs.train import Algorithm

RATIOS = "ratios"
"""Name of the histogram of ratios in ``Losses.vectors``."""


@dataclass(frozen=True, slots=True)
class MiniBatch:
    """The scored samples of one optimiser update on this process; lists hold one tensor [t] per sample."""

    sequences: list[TokenSequence]
    adv_b: Tensor
    sampler_logprobs: list[Tensor]
    old_logprobs: list[Tensor] | None
    """None in the first update after a rollout, where the old policy is the current one."""
    ref_logprobs: list[Tensor] | None
    counts: Counts
    """Denominators over all samples of the update, including those without a gradient."""
    statistics: Mapping[str, Tensor | list[Tensor]] = field(default_factory=dict)
    """See ``PolicyBatch.statistics``; [b, t] tensors are stored as one tensor [t] per sample."""
    selected: list[Tensor] | None = None
    """True at the tokens that get gradient from the policy loss (``algorithm.top_entropy``); None means all."""


@dataclass(frozen=True, slots=True)
class PolicyObjective:
    """The loss terms and statistics of a micro-batch; see ``engine.step.Batch.objective``."""

    method: Method
    algorithm: Algorithm
    mini: MiniBatch

    def __call__(self, scored: Scored, tokens: TokenBatch, rows: list[int]) -> Losses:
        """The policy term and, where the spec has them, the KL and the entropy term."""
        mask_bt, algorithm = tokens.mask_bt, self.algorithm
        logprobs_bt, entropy_bt = tokens.padded(scored[0]), tokens.padded(scored[1])
        old = self.mini.old_logprobs
        old_bt = logprobs_bt.detach() if old is None else _padded(old, tokens, rows)
        sampler_bt = _padded(self.mini.sampler_logprobs, tokens, rows)
        batch = self._batch(old_bt, entropy_bt.detach(), tokens, rows)
        loss_bt, sums = self._policy_loss(logprobs_bt, batch, sampler_bt, rows, tokens)
        terms = [Term("policy", loss_bt, mask_bt, 1.0, algorithm.reduction)]
        if self.mini.ref_logprobs is not None:
            ref_bt = _padded(self.mini.ref_logprobs, tokens, rows)
            kl_bt = KL_FORMS[algorithm.kl_form](logprobs_bt, ref_bt)
            terms.append(Term("kl", kl_bt, mask_bt, algorithm.kl_coef, algorithm.reduction))
            sums["ref_kl"] = (kl_bt.detach() * mask_bt).sum()
        if algorithm.entropy_coef > 0:
            terms.append(Term("entropy", -entropy_bt, mask_bt, algorithm.entropy_coef, algorithm.reduction))
        detached_bt, adv_bt = logprobs_bt.detach(), batch.adv_bt
        weights_bt = gradient_weights(loss_bt, logprobs_bt, adv_bt, mask_bt)
        sums |= trust_sums(weights_bt, detached_bt, old_bt, adv_bt, mask_bt)
        return Losses(
            terms,
            sums | _sums(detached_bt, old_bt, sampler_bt, entropy_bt.detach(), mask_bt),
            _peaks(detached_bt, old_bt, sampler_bt, mask_bt),
            {RATIOS: ratio_histogram(detached_bt, old_bt, adv_bt, mask_bt)},
        )

    def _policy_loss(
        self, logprobs_bt: Tensor, batch: PolicyBatch, sampler_bt: Tensor, rows: list[int], tokens: TokenBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The method's loss of each token after the corrections of the spec, and sums of its statistics."""
        mask_bt, selected = batch.mask_bt, self.mini.selected
        selected_bt = None if selected is None else _padded(selected, tokens, rows)
        policy = self.method.component.fn(cut_gradient(logprobs_bt, selected_bt), batch, self.method.hyper)
        loss_bt = without_values(policy.loss_bt, selected_bt)
        sums = {name: (value * mask_bt).sum() for name, value in policy.stats_bt.items()}
        if selected_bt is not None:
            sums["selected"] = (selected_bt & mask_bt).sum()
        correction = self.algorithm.correction
        if correction is not None:
            weight_bt = mismatch_weight(batch.old_logprobs_bt, sampler_bt, mask_bt, correction)
            loss_bt = loss_bt * weight_bt
            sums["importance_weight"] = (weight_bt * mask_bt).sum()
            sums["importance_masked"] = ((weight_bt == 0) & mask_bt).sum()
        return loss_bt, sums

    def _batch(self, old_bt: Tensor, entropy_bt: Tensor, tokens: TokenBatch, rows: list[int]) -> PolicyBatch:
        adv_bt = self.mini.adv_b[rows].to(old_bt.device)[:, None] * tokens.mask_bt
        statistics = {
            name: _padded(value, tokens, rows) if isinstance(value, list) else value
            for name, value in self.mini.statistics.items()
        }
        needs_entropy = "entropy" in self.method.component.needs
        return PolicyBatch(old_bt, adv_bt, tokens.mask_bt, entropy_bt if needs_entropy else None, statistics)


def _padded(values: Sequence[Tensor], tokens: TokenBatch, rows: list[int]) -> Tensor:
    """The values [t] of a micro-batch's samples as [b, t]."""
    return pad_rows([values[row] for row in rows], tokens.mask_bt.shape[1]).to(tokens.mask_bt.device)


def _sums(
    logprobs_bt: Tensor, old_bt: Tensor, sampler_bt: Tensor, entropy_bt: Tensor, mask_bt: Tensor
) -> dict[str, Tensor]:
    """Sums over the scored tokens (nats)."""
    return {
        "tokens": mask_bt.sum(),
        "entropy": entropy_bt.sum(),
        "approx_kl": (kl_k3(old_bt, logprobs_bt) * mask_bt).sum(),
        "sampler_logprob_diff": ((old_bt - sampler_bt).abs() * mask_bt).sum(),
        "sampler_kl": ((sampler_bt - old_bt) * mask_bt).sum(),
    }


def _peaks(logprobs_bt: Tensor, old_bt: Tensor, sampler_bt: Tensor, mask_bt: Tensor) -> dict[str, Tensor]:
    """The largest and the negated smallest ratio, and the largest difference of sampler and trainer (nats)."""
    ratio_bt = log_ratio(logprobs_bt, old_bt).exp()
    one = torch.ones((), dtype=ratio_bt.dtype, device=ratio_bt.device)
    return {
        "ratio_max": torch.where(mask_bt, ratio_bt, one).max(),
        "-ratio_min": -torch.where(mask_bt, ratio_bt, one).min(),
        "sampler_logprob_diff_max": ((old_bt - sampler_bt).abs() * mask_bt).max(),
    }
