"""With verl really installed (`make verl-cpu`): our losses, configuration and grader inside verl's own machinery."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml

from rlx.errors import UserError
from rlx.numerics.advantages import ADVANTAGES
from rlx.numerics.batch import PolicyBatch
from rlx.numerics.shaping import mismatch_weight
from rlx.numerics.terms import Term, count, total
from rlx.registry import get, names
from rlx.runs.folder import RunDir
from rlx.specs.algorithm import Mismatch
from rlx.specs.reading import read_spec
from rlx.specs.resolve_train import resolve
from rlx.specs.study import StudySpec, variants
from rlx.verl.limits import ADVANTAGES as THEIR_ADVANTAGES
from rlx.verl.limits import untranslatable
from rlx.verl.run import as_record
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
        correction = Mismatch(high=CAP)
        loss_bt = loss_bt * mismatch_weight(old_bt * mask_bt, sampler_bt * mask_bt, mask_bt, correction)
    counts = {"policy": count([mask_bt], max_tokens=LONGEST)}
    loss = total([Term("policy", loss_bt, mask_bt, 1.0, reduction)], counts)
    return loss.item(), torch.autograd.grad(loss, logprobs_bt)[0]


def verls(name, reduction, weighed, rows, logged=None):
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
        if logged is not None:
            logged.append(metrics)
        assert all(isinstance(value, float) and key.startswith("actor/rlx/") for key, value in metrics.items())
    return loss_sum, logprobs_bt.grad


def advantages(estimator, divides, rewards_qg, lengths_qg):
    """verl's advantage of each sample."""
    path = ROOT / "tests" / "golden" / "verl_advantages.py"
    spec = importlib.util.spec_from_file_location("verl_advantages", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.advantages(estimator, divides, rewards_qg, lengths_qg)


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


@pytest.mark.parametrize("name", THEIR_ADVANTAGES)
def test_advantages_through_verl_are_ours_on_random_groups(name):
    generator = torch.Generator().manual_seed(11)
    for groups, samples in ((2, 2), (3, 4), (8, 8)):
        rewards_qg = torch.rand(groups, samples, generator=generator, dtype=torch.float64).round(decimals=1)
        lengths_qg = torch.randint(1, LONGEST + 1, (groups, samples), generator=generator)
        theirs_qg = advantages(*THEIR_ADVANTAGES[name], rewards_qg, lengths_qg)
        assert (theirs_qg - ADVANTAGES[name](rewards_qg, lengths_qg.double())).abs().max() < 1e-8


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize(("mode", "low", "high"), [("truncate", 0.0, 1.5), ("mask", 0.5, 2.0), ("mask", 0.0, 2.0)])
def test_the_weights_against_the_sampler_are_verls(mode, low, high, level):
    from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_weights

    _, old_bt, sampler_bt, _, mask_bt = sample_batch()
    spec = {"algorithm": {"mismatch": {"mode": mode, "low": low, "high": high, "level": level}}}
    resolved = resolve({"backend": "verl", **spec})
    settings = translate(resolved, RunDir(Path("runs") / resolved.run_id)).settings
    key = "algorithm.rollout_correction"
    theirs_bt, _ = compute_rollout_correction_weights(
        old_bt - sampler_bt,
        mask_bt,
        rollout_is=settings[f"{key}.rollout_is"],
        rollout_is_threshold=settings[f"{key}.rollout_is_threshold"],
    )
    correction = resolved.spec.algorithm.correction
    ours_bt = mismatch_weight(old_bt * mask_bt, sampler_bt * mask_bt, mask_bt, correction) * mask_bt
    assert (ours_bt - theirs_bt).abs().max() < 1e-12
    assert len(ours_bt[mask_bt].unique()) >= 2


def test_the_trust_metrics_through_verl_are_ours_whatever_the_micro_batches():
    from rlx.numerics.trust import gradient_weights, trust_metrics, trust_sums

    logprobs_bt, old_bt, _, adv_bt, mask_bt = sample_batch()
    logprobs_bt, old_bt, adv_bt = (logprobs_bt * mask_bt).requires_grad_(), old_bt * mask_bt, adv_bt * mask_bt
    component = get("policy", "dgpo")
    loss_bt = component.fn(logprobs_bt, PolicyBatch(old_bt, adv_bt, mask_bt), component.hyper()).loss_bt
    weights_bt = gradient_weights(loss_bt, logprobs_bt, adv_bt, mask_bt)
    sums = trust_sums(weights_bt, logprobs_bt, old_bt, adv_bt, mask_bt)
    ours = trust_metrics({name: float(value) for name, value in sums.items()})
    for rows in ([[0, 1, 2, 3, 4, 5]], [[0, 1, 2], [3, 4, 5]]):
        logged = []
        verls("dgpo", "token-mean", False, rows, logged)
        # verl's mean over micro-batches.
        means = {name: sum(metrics[name] for metrics in logged) / len(logged) for name in logged[0]}
        record = as_record({"step": 1, "data": means}, 6, 0)
        found = {name: value for name, value in record.items() if name.startswith("trust/")}
        assert found.pop("trust/ratio_p99") > 1
        assert found == pytest.approx(ours)


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
