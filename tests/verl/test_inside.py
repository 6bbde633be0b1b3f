"""With verl really installed (`make verl-cpu`): our losses, configuration and grader inside verl's own machinery."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from rlx.errors import UserError
from rlx.numerics.batch import PolicyBatch
from rlx.numerics.shaping import truncated_importance_weight
from rlx.numerics.terms import Term, count, total
from rlx.registry import get, names
from rlx.runs.folder import RunDir
from rlx.specs.reading import read_spec
from rlx.specs.resolve_train import resolve
from rlx.specs.study import StudySpec, variants
from rlx.verl.limits import untranslatable
from rlx.verl.translate import translate

missing = [name for name in ("verl", "ray", "tensordict") if find_spec(name) is None]
pytestmark = [
    pytest.mark.verl,
    pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} not installed (make test-verl installs it)"),
]
ROOT = Path(__file__).resolve().parents[2]
REDUCTIONS = ("token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm")
TRANSLATABLE = [name for name in names("policy") if not untranslatable(get("policy", name))]
LONGEST = 9
CAP = 2.0


def sample_batch():
    """Ratios on both sides of every edge, both signs of advantage, ragged lengths, rubbish where masked."""
    generator = torch.Generator().manual_seed(7)
    mask_bt = torch.arange(LONGEST)[None, :] < torch.tensor([9, 1, 5, 7, 3, 9])[:, None]
    logprobs_bt = -torch.rand(mask_bt.shape, generator=generator, dtype=torch.float64) * 3
    old_bt = logprobs_bt + torch.randn(mask_bt.shape, generator=generator, dtype=torch.float64) * 0.6
    sampler_bt = old_bt + torch.randn(mask_bt.shape, generator=generator, dtype=torch.float64) * 0.5
    adv_bt = torch.tensor([1.2, -0.7, 0.4, -1.9, 0.0, 2.0], dtype=torch.float64)[:, None].expand(mask_bt.shape)
    return logprobs_bt, old_bt, sampler_bt, adv_bt, mask_bt


def engines(name, reduction, weighed):
    """Loss and gradient as the engine makes them of the whole batch."""
    logprobs_bt, old_bt, sampler_bt, adv_bt, mask_bt = sample_batch()
    component = get("policy", name)
    logprobs_bt = (logprobs_bt * mask_bt).requires_grad_()
    batch = PolicyBatch(old_bt * mask_bt, adv_bt * mask_bt, mask_bt)
    loss_bt = component.fn(logprobs_bt, batch, component.hyper()).loss_bt
    if weighed:
        loss_bt = loss_bt * truncated_importance_weight(old_bt * mask_bt, sampler_bt * mask_bt, CAP)
    counts = {"policy": count([mask_bt], max_tokens=LONGEST)}
    loss = total([Term("policy", loss_bt, mask_bt, 1.0, reduction)], counts)
    return loss.item(), torch.autograd.grad(loss, logprobs_bt)[0]


def verls(name, reduction, weighed, rows):
    """Loss and gradient through verl's registry and actor configuration, micro-batch by micro-batch."""
    from verl.trainer.ppo.core_algos import get_policy_loss_fn
    from verl.workers.config import FSDPActorConfig, PolicyLossConfig

    config = FSDPActorConfig(
        rollout_n=2,
        use_dynamic_bsz=True,
        loss_agg_mode=reduction,
        loss_scale_factor=LONGEST if reduction == "seq-mean-token-sum-norm" else None,
        policy_loss=PolicyLossConfig(loss_mode=f"rlx_{name}"),
    )
    logprobs_bt, old_bt, sampler_bt, adv_bt, mask_bt = sample_batch()
    # What verl's ppo_loss puts there before it calls a loss.
    config.global_batch_info.update(
        dp_size=1,
        batch_num_tokens=int(mask_bt.sum()),
        global_batch_size=len(mask_bt),
        loss_scale_factor=config.loss_scale_factor,
    )
    logprobs_bt.requires_grad_()
    weights_bt = (old_bt - sampler_bt).exp().clamp(max=CAP)
    loss_sum = 0.0
    for chosen in rows:
        garbage = torch.where(mask_bt[chosen], old_bt[chosen], torch.nan)
        loss, metrics = get_policy_loss_fn(config.policy_loss.loss_mode)(
            old_log_prob=garbage,
            log_prob=logprobs_bt[chosen],
            advantages=adv_bt[chosen],
            response_mask=mask_bt[chosen],
            loss_agg_mode=config.loss_agg_mode,
            config=config,
            rollout_is_weights=weights_bt[chosen] if weighed else None,
        )
        loss.backward()
        loss_sum += loss.item()
        assert all(isinstance(value, float) and key.startswith("actor/rlx/") for key, value in metrics.items())
    return loss_sum, logprobs_bt.grad


@pytest.fixture(scope="module", autouse=True)
def plugin():
    """verl finds the losses by the entry point of our package, or of a checkout by the variable that a run sets."""
    os.environ.setdefault("VERL_USE_EXTERNAL_MODULES", "rlx.verl.plugin")


@pytest.mark.parametrize("name", TRANSLATABLE)
def test_loss_and_gradient_through_verl_are_the_engines(name):
    for reduction in REDUCTIONS:
        for weighed in (False, True):
            loss, gradient = engines(name, reduction, weighed)
            for rows in ([[0, 1, 2, 3, 4, 5]], [[0, 1, 2], [3, 4, 5]]):
                verl_loss, verl_gradient = verls(name, reduction, weighed, rows)
                assert verl_loss == pytest.approx(loss, abs=1e-6), (reduction, weighed, rows)
                assert (verl_gradient - gradient).abs().max() < 1e-6, (reduction, weighed, rows)
    assert gradient.abs().max() > 1e-3


def test_losses_that_verl_cannot_feed_are_not_in_its_registry():
    import verl  # noqa: F401
    from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY

    registered = {name.removeprefix("rlx_") for name in POLICY_LOSS_REGISTRY if name.startswith("rlx_")}
    assert registered >= set(TRANSLATABLE) and not registered & (set(names("policy")) - set(TRANSLATABLE))


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "rloo"])
def test_advantages_through_verl_are_ours(name):
    from verl.trainer.ppo.core_algos import get_adv_estimator_fn

    from rlx.numerics.advantages import ADVANTAGES
    from rlx.verl.limits import ADVANTAGES as THEIRS

    estimator, divides = THEIRS[name]
    rewards_qg = torch.tensor([[0.0, 1.0, 1.0, 0.3], [0.2, 0.0, 0.0, 1.0]])
    rewards_bt = torch.zeros((8, 3)).index_fill_(1, torch.tensor([2]), 0.0)
    rewards_bt[:, 2] = rewards_qg.flatten()
    groups = np.array(["a"] * 4 + ["b"] * 4)
    made, _ = get_adv_estimator_fn(estimator)(
        token_level_rewards=rewards_bt,
        response_mask=torch.ones((8, 3)),
        index=groups,
        **({"norm_adv_by_std_in_grpo": divides} if estimator == "grpo" else {}),
    )
    assert torch.allclose(made[:, 0], ADVANTAGES[name](rewards_qg).flatten(), atol=1e-5)


def specs():
    """Every RL experiment under experiments/, studies unfolded."""
    for file in sorted((ROOT / "experiments").rglob("*.yaml")):
        content = read_spec(file)
        if "axes" in content:
            study = StudySpec.model_validate(content)
            for variant in variants(study) if study.command == "train" else ():
                yield file.stem, dict(variant.content)
        elif "model" in content and "path" not in content["model"]:
            continue  # what the studies of a folder share
        elif "forget" not in content and "method" not in content:
            yield file.stem, content


COMPOSE = """
import contextlib, io, json, sys
from verl.trainer.main_ppo import main
made = []
for overrides in json.load(open(sys.argv[1])):
    sys.argv = ["main_ppo", *overrides, "--cfg", "job"]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        main()
    made.append(said.getvalue())
json.dump(made, sys.stdout)
"""


def test_verls_entry_point_composes_every_experiment(tmp_path):
    overrides, refused = {}, {}
    for name, content in specs():
        resolved = resolve({**content, "backend": "verl"})
        try:
            translation = translate(resolved, RunDir(tmp_path / resolved.run_id))
        except UserError as error:
            refused[name] = str(error)
        else:
            overrides[resolved.run_id] = translation
    (tmp_path / "overrides.json").write_text(json.dumps([t.command[3:] for t in overrides.values()]))
    done = subprocess.run(
        [sys.executable, "-c", COMPOSE, str(tmp_path / "overrides.json")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    composed = [yaml.safe_load(text) for text in json.loads(done.stdout.splitlines()[-1])]
    assert len(composed) == len(overrides) >= 20
    for made, translation in zip(composed, overrides.values(), strict=True):
        for key, value in translation.settings.items():
            found = made
            for part in key.lstrip("+").split("."):
                found = found[part]
            assert found == value or float(found) == value, key
    assert all("whole optimiser batch" in why or "entropies" in why for why in refused.values()), refused


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A local Ray whose workers get the environment that a run gives them."""
    import ray

    content = {
        "backend": "verl",
        "algorithm": {"name": "dgpo", "params": {"n": 2.5}},
        "reward": {"name": "math_verify"},
    }
    resolved = resolve(content)
    folder = RunDir(tmp_path_factory.mktemp("cluster") / resolved.run_id)
    folder.create(content, resolved.model_dump_json())
    prefix = "+ray_kwargs.ray_init.runtime_env.env_vars."
    settings = translate(resolved, folder).settings
    environment = {key.removeprefix(prefix): value for key, value in settings.items() if key.startswith(prefix)}
    # Of workers' sakes: a checkout that is not installed is found by its path.
    environment["PYTHONPATH"] = str(ROOT)
    ray.init(num_cpus=2, include_dashboard=False, runtime_env={"env_vars": environment}, logging_level="ERROR")
    yield folder
    ray.shutdown()


def test_a_fresh_ray_worker_has_our_losses_with_the_runs_parameters(cluster):
    import ray

    @ray.remote
    def look():
        import os

        import verl  # noqa: F401
        from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY

        loss = POLICY_LOSS_REGISTRY["rlx_dgpo"]
        return os.getpid(), sorted(POLICY_LOSS_REGISTRY), loss.method.hyper.n, os.environ["RLX_RESOLVED"]

    pid, registered, n, path = ray.get(look.remote())
    assert pid != os.getpid()
    assert {f"rlx_{name}" for name in TRANSLATABLE} <= set(registered)
    assert n == 2.5 and path == str(cluster.resolved)


def test_verls_own_reward_loader_finds_our_grader_and_it_grades_inside_a_ray_actor(cluster):
    import ray

    shared = ROOT.parent / "shared" / "data" / "grading"
    real = [(r"so \boxed{\frac{1}{2}}", "0.5", 1.0), (r"\boxed{7}", "8", 0.0), ("no answer", "3", 0.0)]
    hostile = [
        r"\boxed{9^{9^{9^{9}}}}",
        r"\boxed{" + "(" * 400 + "1" + ")" * 400 + "}",
        "\\boxed{\x00}",
        "",
        "}" * 5000,
    ]
    if (shared / "hostile.jsonl").is_file():
        # The others take the pool's whole patience each; these are of every kind.
        lines = (shared / "hostile.jsonl").read_text().splitlines()[:12]
        hostile += [json.loads(line)["response"] for line in lines]
    settings = translate(resolve(yaml.safe_load(cluster.spec.read_text())), cluster).settings

    @ray.remote
    class Rewarder:
        def __init__(self, path, name):
            from verl.utils.import_utils import load_extern_object

            self.score = load_extern_object(module_path=path, object_name=name)

        def grade(self, answers):
            return [
                self.score(data_source="rlx", solution_str=text, ground_truth=gold, extra_info={})
                for text, gold in answers
            ]

    key = "reward.custom_reward_function"
    actor = Rewarder.remote(settings[f"{key}.path"], settings[f"{key}.name"])
    verdicts = ray.get(actor.grade.remote([(text, gold) for text, gold, _ in real]), timeout=600)
    assert [verdict["score"] for verdict in verdicts] == [expected for _, _, expected in real]
    attacked = ray.get(actor.grade.remote([(text, "12345") for text in hostile]), timeout=900)
    assert [verdict["score"] for verdict in attacked] == [0.0] * len(hostile)
    assert [verdict["acc"] for verdict in ray.get(actor.grade.remote([(r"\boxed{12345}", "12345")]))] == [1.0]
