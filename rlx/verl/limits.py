"""Settings that verl does not support, and differences from the local backend."""

from __future__ import annotations

from importlib.util import find_spec

from rlx.errors import UserError
from rlx.registry import Component, get
from rlx.specs.train import Spec

ADVANTAGES = {
    "grpo": ("grpo", True),
    "dr_grpo": ("grpo", False),
    "rloo": ("rloo", False),
    "opo": ("opo", False),
    "grpo_passk": ("grpo_passk", True),
    "reinforce_pp": ("reinforce_plus_plus_baseline", False),
}
"""rlx's advantages as verl's estimator, and whether it divides by the standard deviation."""


def check_translatable(spec: Spec, component: Component) -> None:
    """Refuse settings that verl does not support.

    Raises:
        UserError: naming the key, why, and what to do.
    """
    if reason := untranslatable(component):
        raise _refused(f"algorithm.name={spec.algorithm.name}", reason, "choose another loss")
    optim, lora, algorithm = spec.optim, spec.model.lora, spec.algorithm
    truncation = algorithm.correction if algorithm.correction and algorithm.correction.mode == "truncate" else None
    per_rollout = spec.batch.updates_per_rollout
    refusals = [
        (spec.advantage.name not in ADVANTAGES, f"advantage.name={spec.advantage.name}",
         "verl whitens over tokens, which weighs a sample by its length", "choices: " + ", ".join(ADVANTAGES)),
        (algorithm.top_entropy is not None, f"algorithm.top_entropy={algorithm.top_entropy}",
         "verl passes neither entropies nor the whole optimiser batch to a loss", "leave it out"),
        (truncation is not None and truncation.low > 0, "algorithm.mismatch.low",
         "verl truncates weights from above only", "set it to 0, or set mode=mask"),
        (bool(spec.rewards), f"rewards (a list of {len(spec.rewards)})", "verl gets one reward function from rlx",
         "give reward.name"),
        (not spec.rewards and get("reward", spec.reward.name, key="reward.name").plain,
         f"reward.name={spec.reward.name}", "verl's processes call registered graders only",
         'decorate it with @register("reward") and return a Verdict'),
        (spec.reward.special_tokens == "keep", "reward.special_tokens=keep", "verl decodes without special tokens",
         "set it to strip"),
        (spec.reward.mask_truncated, "reward.mask_truncated=true", "verl has no such mask",
         "set reward.overlong_buffer instead"),
        (optim.schedule == "linear", "optim.schedule=linear", "verl decays by cosine or not at all",
         "choices: constant, cosine"),
        (bool(optim.warmup_updates % per_rollout), f"optim.warmup_updates={optim.warmup_updates}",
         "verl changes the learning rate once per rollout",
         f"set a multiple of batch.updates_per_rollout={per_rollout}"),
        (lora is not None and lora.continue_adapter, "model.lora.continue", "verl starts from new adapters",
         "merge the adapter into its base first (rlx eval and train do so when they load it)"),
        (spec.model.dropout, "model.dropout=true", "verl has no such setting", "set it to false"),
        (spec.model.router_aux_coef > 0, f"model.router_aux_coef={spec.model.router_aux_coef}",
         "verl's actor does not add the router's loss", "set it to 0"),
        (lora is not None and lora.dropout > 0, "model.lora.dropout", "verl's adapters have no dropout", "set it to 0"),
        (lora is not None and lora.alpha != int(lora.alpha), "model.lora.alpha", "verl accepts integers", "round it"),
        (spec.model.revision is not None, f"model.revision={spec.model.revision}", "verl accepts a folder or a hub id",
         "download that revision and give its folder as model.path"),
        (spec.batch.max_tokens < spec.data.max_prompt_tokens + spec.rollout.max_new_tokens,
         f"batch.max_tokens={spec.batch.max_tokens}", "verl's micro-batch must be able to contain the longest sequence",
         f"set at least {spec.data.max_prompt_tokens + spec.rollout.max_new_tokens}"),
    ]  # fmt: skip
    for refused, key, reason, fix in refusals:
        if refused:
            raise _refused(key, reason, fix)


def untranslatable(component: Component) -> str:
    """Why a policy loss cannot run in verl; empty if it can."""
    if component.whole_batch is not None:
        return "it needs a statistic of the whole optimiser batch, and verl passes one micro-batch to a loss"
    if "entropy" in component.needs:
        return "it needs the tokens' entropies, which verl does not pass to a loss"
    return ""


def check_installed() -> None:
    """Refuse to continue without verl.

    Raises:
        UserError: with the command that installs it.
    """
    missing = [name for name in ("verl", "ray") if find_spec(name) is None]
    if missing:
        raise UserError(
            f"backend is verl, and {missing[0]} is not installed",
            fix="run: pip install 'rlx[verl]' && pip install --no-deps verl==0.9.1",
            exit_code=1,
        )


def differences(spec: Spec) -> list[str]:
    """Differences of verl's run from the local backend's run of the same spec."""
    notes = [
        "this path has been run end to end on a CPU only, never on GPUs (docs/scale.md)",
        "verl saves the trained model in bfloat16",
    ]
    if spec.optim.warmup_updates:
        notes.append("verl's warm-up starts at 0 and rises once per rollout")
    if spec.optim.schedule == "cosine":
        notes.append("verl's learning rate falls once per rollout, not once per update")
    if spec.optim.weight_decay:
        notes.append("verl applies weight decay to norms and biases too")
    if spec.rollout.dynamic_sampling:
        notes.append("verl samples until the batch is full; rollout.dynamic_tries bounds the passes over the data")
    if spec.evaluation.every:
        notes.append("verl evaluates sampled accuracy only, not greedy accuracy")
    return notes


def _refused(key: str, reason: str, fix: str) -> UserError:
    return UserError(f"{key} does not go with backend=verl: {reason}", fix=f"{fix}, or set backend=local")
