"""A policy loss of one's own: rlx train --algo docs/my_loss.py:my_loss --set algorithm.params.power=2."""

from pydantic import Field
from torch import Tensor

from rlx.numerics.batch import PolicyBatch, Tokens
from rlx.numerics.ratio import log_ratio
from rlx.registry import Hyper, register


class MyLoss(Hyper):
    power: float = Field(default=1.0, ge=0)
    """Outside r = 1 the weight falls like this power of the distance."""


@register("policy", paper="mine")
def my_loss(logprobs_bt: Tensor, batch: PolicyBatch, hp: MyLoss) -> Tokens:
    """-A r sg[1 / (1 + |log r|)^power]."""
    log_r_bt = log_ratio(logprobs_bt, batch.old_logprobs_bt)
    gate_bt = (1 + log_r_bt.detach().abs()) ** -hp.power
    return Tokens(-batch.adv_bt * log_r_bt.exp() * gate_bt, {"gate": gate_bt})
