"""What users have on disk: adapters and incomplete, damaged, half-precision, sharded and quantised models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from rlx.engine.load import load_model, load_trainable
from rlx.engine.lora import causal_lm
from rlx.errors import UserError
from rlx.specs.train import Lora, Model
from tests import architecture_checks as checks

CPU = torch.device("cpu")
COMMANDS = {
    "train": checks.check_train_command,
    "unlearn": checks.check_unlearn_command,
    "eval": checks.check_eval_command,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny Llama as published."""
    return checks.save_tiny("llama", tmp_path / "base")


def weights(folder: Path) -> Path:
    """The only weights file of a folder."""
    (file,) = folder.glob("*.safetensors")
    return file


def adapter_on(folder: Path, target: Path) -> Path:
    """A LoRA adapter of another size than rlx's default, trained (B is not 0), as PEFT saves it."""
    torch.manual_seed(3)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(folder),
        LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(target)
    return target


def logits(lm: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return lm(input_ids=torch.arange(1, 12, device=checks.device_of(lm))[None], use_cache=False).logits.cpu()


@pytest.mark.parametrize("command", COMMANDS)
def test_an_adapter_folder_is_merged_into_its_base_in_every_command(command, folder, tmp_path):
    adapter = adapter_on(folder, tmp_path / "adapter")
    merged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), adapter).merge_and_unload()
    assert not torch.allclose(logits(merged), logits(AutoModelForCausalLM.from_pretrained(folder)), atol=1e-2)
    assert torch.allclose(logits(load_model(str(adapter), Model(), CPU)), logits(merged.eval()), atol=1e-5)
    COMMANDS[command](adapter, tmp_path)


def test_an_adapter_and_its_base_are_both_part_of_the_runs_identity(folder, tmp_path):
    adapter = adapter_on(folder, tmp_path / "adapter")
    arguments = ("train", "--model", str(adapter), "--data", "arithmetic", "--dry-run")
    first = checks.run(*arguments)
    assert first == checks.run(*arguments)
    config = folder / "generation_config.json"
    config.write_text(config.read_text().replace("{", '{\n  "max_length": 30,', 1))
    second = checks.run(*arguments)
    assert first != second


def test_continue_starts_from_the_adapter_and_trains_it(folder, tmp_path):
    adapter = adapter_on(folder, tmp_path / "adapter")
    spec = Model(path=str(adapter), lora=Lora.model_validate({"continue": True}))
    model = load_trainable(str(adapter), spec, CPU)
    assert torch.allclose(logits(causal_lm(model)), logits(load_model(str(adapter), Model(), CPU)), atol=1e-5)
    checks.check_update(model, spec)
    checks.check_saved(model, tmp_path / "saved", spec)
    before, after = (
        load_file(path / "adapter_model.safetensors") for path in (adapter, tmp_path / "saved" / "adapter")
    )
    assert before.keys() == after.keys()
    assert all(before[name].shape == after[name].shape for name in before)  # rank 2, not the spec's default of 16
    assert all(not torch.equal(before[name], after[name]) for name in before)
    options = checks.settings({**checks.SMALL_TRAINING, "model.lora.continue": "true"})
    runs = str(tmp_path / "runs")
    checks.run("train", "--model", str(adapter), "--data", "arithmetic", *options, "--runs-dir", runs)
    checks.run(
        "eval",
        next(iter((tmp_path / "runs").glob("*_s0-*"))).name,
        "--bench",
        "arithmetic",
        "--limit",
        "2",
        "--n",
        "1",
        "--runs-dir",
        runs,
    )


def test_continue_without_an_adapter_is_refused(folder, tmp_path):
    lora = ("--set", "model.lora.continue=true")
    with pytest.raises(UserError, match=r"lora.continue is true, but model.path .* is no LoRA adapter"):
        checks.run("train", "--model", str(folder), "--data", "arithmetic", *lora, "--runs-dir", str(tmp_path / "runs"))


def test_an_adapter_whose_base_is_missing_is_named(folder, tmp_path):
    adapter = adapter_on(folder, tmp_path / "adapter")
    shutil.rmtree(folder)
    with pytest.raises(UserError, match=r"adapter.*does not load"):
        checks.check_train_command(adapter, tmp_path)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_checkpoint_that_is_cut_off_is_one_sentence(command, folder, tmp_path):
    file = weights(folder)
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(UserError, match="does not load"):
        COMMANDS[command](folder, tmp_path)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_checkpoint_without_a_tensor_is_refused_with_its_name(command, folder, tmp_path):
    tensors = load_file(weights(folder))
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, weights(folder), metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lacks 1 tensor \(model.layers.1.mlp.up_proj.weight\)"):
        COMMANDS[command](folder, tmp_path)


def test_a_tensor_of_another_shape_is_refused(folder, tmp_path):
    tensors = load_file(weights(folder))
    tensors["model.norm.weight"] = torch.ones(7)
    save_file(tensors, weights(folder), metadata={"format": "pt"})
    with pytest.raises(UserError, match="model.norm.weight"):
        checks.check_train_command(folder, tmp_path)


def test_an_unexpected_tensor_is_reported_and_the_model_loads(folder, capsys):
    tensors = load_file(weights(folder))
    tensors["model.layers.9.extra.weight"] = torch.ones(7)
    save_file(tensors, weights(folder), metadata={"format": "pt"})
    load_model(str(folder), Model(), CPU)
    assert "model.layers.9.extra.weight" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", ["bfloat16", "float16", "sharded", "bin"])
def test_half_precision_sharded_and_pickled_folders_work(kind, command, folder, tmp_path):
    lm = AutoModelForCausalLM.from_pretrained(folder)
    target = tmp_path / kind
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*.safetensors"))
    if kind == "bin":
        torch.save(lm.state_dict(), target / "pytorch_model.bin")
    elif kind == "sharded":
        lm.save_pretrained(target, max_shard_size="20KB")
        assert len(list(target.glob("*.safetensors"))) > 1
    else:
        lm.to(getattr(torch, kind)).save_pretrained(target)
    COMMANDS[command](target, tmp_path)
    for saved in (tmp_path / "runs").glob("*/model/model.safetensors"):
        dtypes = {tensor.dtype for tensor in load_file(saved).values()}
        assert dtypes == {torch.float32 if kind in ("sharded", "bin") else getattr(torch, kind)}
        config = json.loads((saved.parent / "config.json").read_text())
        assert config["dtype"] == str(next(iter(dtypes))).removeprefix("torch.")


def test_save_dtype_float32_keeps_the_master_weights(folder, tmp_path):
    AutoModelForCausalLM.from_pretrained(folder).to(torch.bfloat16).save_pretrained(folder)
    options = checks.settings({**checks.SMALL_TRAINING, "model.save_dtype": "float32"})
    runs = str(tmp_path / "runs")
    checks.run("train", "--model", str(folder), "--data", "arithmetic", *options, "--runs-dir", runs)
    (saved,) = (tmp_path / "runs").glob("*/model/model.safetensors")
    assert {tensor.dtype for tensor in load_file(saved).values()} == {torch.float32}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_quantised_folder_that_transformers_cannot_read_here_is_one_sentence(command, folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4, "group_size": 128}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="does not load"):
        COMMANDS[command](folder, tmp_path)


def test_an_fp8_folder_is_dequantised(folder, tmp_path):
    block = 8
    tensors = load_file(weights(folder))
    exact = {}
    for name in [n for n in tensors if "_proj.weight" in n]:
        weight = tensors[name]
        rows, columns = weight.shape
        blocks = weight.view(rows // block, block, columns // block, block)
        scale = blocks.abs().amax(dim=(1, 3)) / 448
        quantised = (blocks / scale[:, None, :, None]).view(rows, columns).to(torch.float8_e4m3fn)
        tensors[name], tensors[f"{name}_scale_inv"] = quantised, scale
        exact[name] = (quantised.float().view_as(blocks) * scale[:, None, :, None]).view(rows, columns)
    save_file(tensors, weights(folder), metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [block, block]}
    (folder / "config.json").write_text(json.dumps(config))
    lm = load_model(str(folder), Model(), CPU)
    loaded = dict(lm.named_parameters())
    for name, weight in exact.items():
        assert torch.allclose(loaded[name], weight, rtol=1e-2, atol=1e-4), name
    checks.check_train_command(folder, tmp_path)
    (saved,) = (tmp_path / "runs").glob("*/model/config.json")
    assert "quantization_config" not in json.loads(saved.read_text())
