"""The section of a training spec about the policy loss, its corrections and the terms that are added to it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from rlx.errors import UserError
from rlx.specs.section import ADDED_LATER, Section


class Mismatch(Section):
    """Correction for log-probs of the sampler that differ from the trainer's: a weight w = pi_trainer / pi_sampler."""

    mode: Literal["truncate", "mask"] = "truncate"
    """``truncate``: clip w to [low, high] (TIS); ``mask``: 0 where w is outside of [low, high], w elsewhere (IcePop, or
    MIS by sequence)."""
    low: float = Field(default=0.0, ge=0)
    """Lower bound of w; 0 is none (IcePop: .5)."""
    high: float = Field(default=2.0, gt=0)
    """Upper bound of w (TIS: 2; IcePop: 5)."""
    level: Literal["token", "sequence"] = "token"
    """``token``: each token has its own w; ``sequence``: w is the product over the response's tokens."""


class Algorithm(Section):
    """The policy loss."""

    name: str = "dgpo"
    """A registered policy loss, ``name@preset``, or ``path/to/file.py:function``."""
    params: dict[str, Any] = Field(default_factory=dict)
    """The method's own parameters; ``rlx methods NAME`` lists them."""
    reduction: Literal["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm"] = (
        "token-mean"
    )
    """How per-token losses are reduced to one loss."""
    kl_coef: float = Field(default=0.0, ge=0)
    """Weight of the KL divergence from the initial model."""
    kl_form: Literal["k1", "k2", "k3", "abs"] = "k3"
    """Estimator of that KL."""
    kl_in: Literal["loss", "reward"] = "loss"
    """Add the KL to the loss, or subtract its sum over a response from the response's reward."""
    importance_cap: float | None = Field(default=None, gt=0)
    """Former name of ``mismatch: {mode: truncate, high: CAP}``, still read; null is off."""
    mismatch: Mismatch | None = Field(default=None, json_schema_extra=ADDED_LATER)
    """Correction for differences between the log-probs of sampler and trainer; null is off."""
    top_entropy: float | None = Field(default=None, gt=0, le=1, json_schema_extra=ADDED_LATER)
    """Only this fraction of an update's tokens, those of highest entropy, get gradient from the policy loss (.2 in
    arXiv 2506.01939); null is off."""
    entropy_coef: float = Field(default=0.0, ge=0, json_schema_extra=ADDED_LATER)
    """Weight of the tokens' entropy, which is subtracted from the loss."""

    @property
    def correction(self) -> Mismatch | None:
        """``mismatch``, or the truncation that ``importance_cap`` is short for."""
        if self.mismatch is None and self.importance_cap is not None:
            return Mismatch(high=self.importance_cap)
        return self.mismatch

    @property
    def needs_all_tokens(self) -> bool:
        """Whether tokens whose advantage is 0 matter, whatever the method."""
        return self.top_entropy is not None or self.entropy_coef > 0 or (self.kl_coef > 0 and self.kl_in == "loss")

    def identified(self) -> Algorithm:
        """The section as the run's id covers it: truncation of single tokens under its former key."""
        mismatch = self.mismatch
        if mismatch is None or mismatch != Mismatch(high=mismatch.high):
            return self
        return self.model_copy(update={"mismatch": None, "importance_cap": mismatch.high})


def check_algorithm(algorithm: Algorithm) -> None:
    """Refuse corrections that contradict each other.

    Raises:
        UserError: naming the key and its value.
    """
    mismatch = algorithm.mismatch
    if mismatch is None:
        return
    if algorithm.importance_cap is not None:
        raise UserError(
            f"algorithm.importance_cap is {algorithm.importance_cap:g}, and algorithm.mismatch is given too",
            fix="remove algorithm.importance_cap: it is the former name of mismatch: {mode: truncate, high: CAP}",
        )
    if mismatch.low >= mismatch.high:
        raise UserError(
            f"algorithm.mismatch.low is {mismatch.low:g}, which is not below algorithm.mismatch.high={mismatch.high:g}",
            fix="set low below high, such as low=0.5 and high=2",
        )
