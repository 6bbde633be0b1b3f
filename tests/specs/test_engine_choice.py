"""The choice of the engine, and its reason."""

from __future__ import annotations

from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rlx.errors import UserError
from rlx.rollout.vllm import EngineOptions, VLLMSampler
from rlx.specs import engine_choice
from rlx.specs.engine_choice import EngineChoice, choose_engine, count_parameters
from rlx.specs.resolve_train import EMBEDDED_MODEL, resolve


@pytest.fixture
def with_vllm(monkeypatch):
    monkeypatch.setattr(engine_choice, "find_spec", lambda name: ModuleSpec(name, None))


@pytest.fixture
def without_vllm(monkeypatch):
    monkeypatch.setattr(engine_choice, "find_spec", lambda name: None)


def save_model(folder: Path, *counts: int) -> str:
    """Save a model with one safetensors file for each of these parameter counts; returns its folder."""
    for number, count in enumerate(counts):
        tensors = {"a": torch.zeros(count // 4, 2, dtype=torch.bfloat16), "b": torch.zeros(count // 2)}
        save_file(tensors, folder / f"model-{number}.safetensors", metadata={"format": "pt"})
    return str(folder)


def test_parameters_are_counted_from_the_headers_of_all_files(tmp_path):
    assert count_parameters(Path(save_model(tmp_path, 400, 1000))) == 1400
    assert count_parameters(EMBEDDED_MODEL) == 430_720
    assert count_parameters(tmp_path / "nowhere") is None


def test_auto_is_transformers_where_vllm_is_not_installed(without_vllm, tmp_path):
    assert choose_engine("auto", save_model(tmp_path, 60_000_000)) == EngineChoice("hf", "vLLM is not installed")


def test_auto_takes_vllm_from_fifty_million_parameters_on(with_vllm, tmp_path):
    assert choose_engine("auto", str(EMBEDDED_MODEL)).engine == "hf"
    assert "0.431M" in choose_engine("auto", str(EMBEDDED_MODEL)).reason
    large = choose_engine("auto", save_model(tmp_path, 60_000_000))
    assert large.engine == "vllm"
    assert "60M parameters" in large.reason


def test_a_model_that_is_not_on_disk_is_taken_for_a_large_one(with_vllm):
    choice = choose_engine("auto", "Qwen/Qwen2.5-1.5B")
    assert (choice.engine, "taken for a large one" in choice.reason) == ("vllm", True)


def test_an_engine_that_is_requested_is_used(without_vllm):
    assert choose_engine("vllm", str(EMBEDDED_MODEL)).engine == "vllm"
    assert choose_engine("hf", "Qwen/Qwen2.5-1.5B").engine == "hf"


def test_the_resolved_experiment_holds_the_engine_and_the_reason(with_vllm):
    auto, requested = resolve({}), resolve({"rollout": {"engine": "hf"}})
    assert auto.spec.rollout.engine == "hf"
    assert "0.431M" in auto.engine_reason
    assert auto.run_id == requested.run_id


def test_the_engine_is_part_of_a_runs_identity_and_where_it_lies_is_not():
    ours = resolve({"rollout": {"engine": "vllm"}})
    assert ours.run_id != resolve({"rollout": {"engine": "hf"}}).run_id
    shared = {"cluster": {"tensor_parallel": 2, "memory_share": 0.3}, "rollout": {"engine": "vllm"}}
    assert ours.run_id == resolve(shared).run_id


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed here")
def test_a_missing_vllm_is_reported_in_one_sentence():
    with pytest.raises(UserError, match=r"vLLM does not import .*; run rlx doctor for the reason, or set rollout\.eng"):
        VLLMSampler(EngineOptions(str(EMBEDDED_MODEL), dtype="float32", longest=40))
