"""Our policy losses and graders inside verl's processes.

verl imports this module in every process that imports verl: as an entry point of the group ``verl.plugins``, whose
failures it swallows, and as one of VERL_USE_EXTERNAL_MODULES, whose failures it does not.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY, agg_loss, register_policy_loss

from rlx.numerics.batch import PolicyBatch
from rlx.registry import Component, Method, get, names
from rlx.rewards.grade import grade
from rlx.runs.folder import read_json
from rlx.specs.reading import validate
from rlx.specs.resolve_train import policy_method
from rlx.specs.train import Resolved
from rlx.verl.limits import untranslatable
from rlx.verl.translate import PREFIX

RESOLVED = "RLX_RESOLVED"
"""Environment variable with the path of the run's ``resolved.json``."""
_grading = threading.Lock()
"""verl grades in threads; the pool that settles doubtful answers serves one at a time."""


@cache
def resolved() -> Resolved:
    """The experiment that this process works on."""
    return validate(read_json(Path(os.environ[RESOLVED])), Resolved)


def verl_name(component: Component) -> str:
    """What verl calls one of our losses."""
    return PREFIX + component.name


def register_losses() -> None:
    """Put every translatable policy loss into verl's registry, one in a file of the user's own too.

    The parameters of the experiment's own method are those of ``resolved.json``, of the others their defaults.

    Raises:
        RuntimeError: when the experiment's loss is not in the registry afterwards.
    """
    methods = {name: _with_defaults(get("policy", name)) for name in names("policy")}
    own = None
    if RESOLVED in os.environ:
        spec = resolved().spec
        component = policy_method(spec)
        own = component.name
        methods[own] = Method(component, component.hyper(**spec.algorithm.params))
    for method in methods.values():
        if not untranslatable(method.component):
            register_policy_loss(verl_name(method.component))(VerlLoss(method))
    if own is not None and PREFIX + own not in POLICY_LOSS_REGISTRY:
        raise RuntimeError(f"policy loss {PREFIX + own} is not in verl's registry")


def _with_defaults(component: Component) -> Method:
    return Method(component, component.hyper())


class VerlLoss:
    """A method of ours as verl calls a policy loss: (loss, metrics), aggregated by verl's own function.

    Args:
        method: with the parameters that it is called with.
    """

    def __init__(self, method: Method) -> None:
        self.method = method

    def __call__(
        self,
        old_log_prob: Tensor,
        log_prob: Tensor,
        advantages: Tensor,
        response_mask: Tensor,
        loss_agg_mode: str,
        config: Any,
        rollout_is_weights: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, float]]:
        """This micro-batch's share of the loss; all arguments are [b, t] but the mode and the actor's configuration."""
        mask_bt = response_mask.bool()
        logprobs_bt, old_bt, adv_bt = (_kept(value, mask_bt) for value in (log_prob, old_log_prob, advantages))
        made = self.method.component.fn(logprobs_bt, PolicyBatch(old_bt, adv_bt, mask_bt), self.method.hyper)
        loss_bt = made.loss_bt if rollout_is_weights is None else made.loss_bt * rollout_is_weights
        loss = agg_loss(
            loss_mat=_kept(loss_bt, mask_bt),
            loss_mask=mask_bt,
            loss_agg_mode=loss_agg_mode,
            **config.global_batch_info,
        )
        stats = {**made.stats_bt, "approx_kl": old_bt - logprobs_bt}
        return loss, {f"actor/rlx/{name}": _mean(value, mask_bt) for name, value in stats.items()}


def _kept(value_bt: Tensor, mask_bt: Tensor) -> Tensor:
    """0 where masked: verl leaves whatever a forward gave there, and 0 times NaN is NaN."""
    return torch.where(mask_bt, value_bt, torch.zeros((), dtype=value_bt.dtype, device=value_bt.device))


def _mean(value_bt: Tensor, mask_bt: Tensor) -> float:
    return float(value_bt.detach()[mask_bt].float().mean()) if bool(mask_bt.any()) else 0.0


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: Mapping[str, Any]
) -> dict[str, float]:
    """Verl's custom reward: our grader's score of one response, and why in figures that verl averages.

    Args:
        data_source: which data set the prompt is of; the grader is the experiment's, whatever it is.
        solution_str: the response.
        ground_truth: the gold answer.
        extra_info: of the prompt.
    """
    reward = get("reward", resolved().spec.reward.name, key="reward.name").fn
    with _grading:
        (verdict,) = grade(reward, [(solution_str, ground_truth)])
    return {
        "score": verdict.score,
        "acc": verdict.score,
        "timeout": float(verdict.reason == "timeout"),
        "no_answer": float(verdict.reason in ("no_answer", "no_box", "empty")),
    }


register_losses()
