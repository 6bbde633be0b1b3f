"""Write advantages.json: advantages of random groups, computed by verl 0.9.1's own functions in float64.

.venv-verl/bin/python tests/golden/verl_advantages.py
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from verl.trainer.config import AlgoConfig
from verl.trainer.ppo.core_algos import get_adv_estimator_fn

from rlx.verl.limits import ADVANTAGES

GROUPS, SAMPLES, LONGEST = 4, 5, 9


def main() -> None:
    """Compute every estimator on four random batches: rewards of 0 and 1, and real ones, one group all equal."""
    cases = []
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        rewards_qg = torch.rand(GROUPS, SAMPLES, generator=generator, dtype=torch.float64) * 3 - 1
        if seed % 2:
            rewards_qg = (rewards_qg > 0).double()
        rewards_qg[-1] = rewards_qg[-1, 0]
        lengths_qg = torch.randint(1, LONGEST + 1, (GROUPS, SAMPLES), generator=generator)
        for name, (estimator, divides) in ADVANTAGES.items():
            values_qg = advantages(estimator, divides, rewards_qg, lengths_qg)
            cases.append(
                {
                    "advantage": name,
                    "source": f"verl 0.9.1 core_algos {get_adv_estimator_fn(estimator).__name__}",
                    "seed": seed,
                    "rewards": rewards_qg.tolist(),
                    "lengths": lengths_qg.tolist(),
                    "values": values_qg.tolist(),
                }
            )
    Path(__file__).with_name("advantages.json").write_text(json.dumps(cases) + "\n")


def advantages(estimator: str, divides: bool, rewards_qg: torch.Tensor, lengths_qg: torch.Tensor) -> torch.Tensor:
    """verl's advantage of each sample, which it puts on every token."""
    lengths_b = lengths_qg.flatten()
    mask_bt = (torch.arange(LONGEST)[None, :] < lengths_b[:, None]).double()
    token_rewards_bt = torch.zeros_like(mask_bt)
    token_rewards_bt[torch.arange(len(lengths_b)), lengths_b - 1] = rewards_qg.flatten()
    values_bt, _ = get_adv_estimator_fn(estimator)(
        token_level_rewards=token_rewards_bt,
        response_mask=mask_bt,
        index=np.arange(len(lengths_b)) // rewards_qg.shape[1],
        norm_adv_by_std_in_grpo=divides,
        config=AlgoConfig(norm_adv_by_std_in_grpo=divides),
    )
    return values_bt[:, 0].reshape(rewards_qg.shape)


if __name__ == "__main__":
    main()
