"""rlx's policy losses and graders inside verl's processes.

verl imports this module in every process that imports verl: as an entry point of the group ``verl.plugins``, whose
failures verl ignores, and as one of VERL_USE_EXTERNAL_MODULES, whose failures it reports.
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
from rlx.numerics.trust import gradient_weights, ratio_histogram, ratio_quantile, trust_sums
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
"""verl grades in threads; the pool of the symbolic grader serves one thread at a time."""


@cache
def resolved() -> Resolved:
    """The resolved spec of this process's run."""
    return validate(read_json(Path(os.environ[RESOLVED])), Resolved)


def verl_name(component: Component) -> str:
    """The name of one of rlx's losses in verl."""
    return PREFIX + component.name


def register_losses() -> None:
    """Add every translatable policy loss to verl's registry, including one in the user's own file.

    The run's own method has the parameters of ``resolved.json``, the others have their defaults.

    Raises:
        RuntimeError: when the experiment's loss is not in the registry afterwards.
    """
    methods = {name: _with_defaults(get("policy", name)) for name in names("policy")}
    own_name = None
    if RESOLVED in os.environ:
        spec = resolved().spec
        component = policy_method(spec)
        own_name = component.name
        methods[own_name] = Method(component, component.hyper(**spec.algorithm.params))
    for method in methods.values():
        if not untranslatable(method.component):
            register_policy_loss(verl_name(method.component))(VerlLoss(method))
    if own_name is not None and PREFIX + own_name not in POLICY_LOSS_REGISTRY:
        raise RuntimeError(f"policy loss {PREFIX + own_name} is not in verl's registry")


def _with_defaults(component: Component) -> Method:
    return Method(component, component.hyper())


class VerlLoss:
    """One of rlx's policy losses with the signature of verl's: it returns the loss, aggregated by verl, and metrics.

    Args:
        method: the method with its parameters.
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
        """This micro-batch's share of the loss; all tensors are [b, t]."""
        mask_bt = response_mask.bool()
        logprobs_bt, old_bt, adv_bt = (_masked(value, mask_bt) for value in (log_prob, old_log_prob, advantages))
        policy = self.method.component.fn(logprobs_bt, PolicyBatch(old_bt, adv_bt, mask_bt), self.method.hyper)
        loss_bt = policy.loss_bt if rollout_is_weights is None else policy.loss_bt * rollout_is_weights
        loss = agg_loss(
            loss_mat=_masked(loss_bt, mask_bt),
            loss_mask=mask_bt,
            loss_agg_mode=loss_agg_mode,
            **config.global_batch_info,
        )
        stats = {**policy.stats_bt, "approx_kl": old_bt - logprobs_bt}
        metrics = {name: _mean(value, mask_bt) for name, value in stats.items()}
        masked_bt = _masked(loss_bt, mask_bt)
        weights_bt = gradient_weights(masked_bt, logprobs_bt, adv_bt, mask_bt)
        # Sums, whose ratios are the metrics: verl averages both over micro-batches, and averages have the same ratios.
        arguments = (logprobs_bt, old_bt, adv_bt, mask_bt)
        metrics |= {name: float(value) for name, value in trust_sums(weights_bt, *arguments).items()}
        metrics["ratio_p99"] = ratio_quantile(ratio_histogram(*arguments).tolist(), 0.99)
        return loss, {f"actor/rlx/{name}": value for name, value in metrics.items()}


def _masked(value_bt: Tensor, mask_bt: Tensor) -> Tensor:
    """The values with 0 where masked: verl leaves arbitrary values there, and 0 times NaN is NaN."""
    return torch.where(mask_bt, value_bt, torch.zeros((), dtype=value_bt.dtype, device=value_bt.device))


def _mean(value_bt: Tensor, mask_bt: Tensor) -> float:
    return float(value_bt.detach()[mask_bt].float().mean()) if bool(mask_bt.any()) else 0.0


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: Mapping[str, Any]
) -> dict[str, float]:
    """Verl's custom reward: the score of one response by the run's grader, and its reason as values that verl averages.

    Args:
        data_source: name of the data set, which is not used: the grader is the run's.
        solution_str: the response.
        ground_truth: the gold answer.
        extra_info: further columns of the prompt.
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
