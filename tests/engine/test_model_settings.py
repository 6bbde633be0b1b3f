"""Settings of a model's files that once gave wrong results without a word: each on a copy with one file changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import GenerationConfig

from rlx.engine.export import check_savable, save_model
from rlx.engine.load import load_model, load_tokenizer, load_trainable
from rlx.engine.lora import causal_lm
from rlx.engine.model import set_training_mode
from rlx.engine.step import Engine
from rlx.errors import UserError
from rlx.specs.train import Lora, Model, Optim
from tests import architecture_checks as checks
from tests.tiny_models import tiny_config

CPU = torch.device("cpu")
RUNS = "runs"


@pytest.fixture
def embedded(tmp_path: Path) -> Path:
    """A copy of the embedded model."""
    return Path(shutil.copytree(checks.TOKENIZER, tmp_path / "copy"))


def edit(file: Path, **values: object) -> None:
    """Set keys of a JSON file."""
    content = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps({**content, **values}))


def logits(lm: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return lm(input_ids=torch.arange(1, 12, device=checks.device_of(lm))[None], use_cache=False).logits.cpu()


def test_an_adapter_on_an_untied_output_layer_is_trained_and_merged(tmp_path):
    folder = checks.save_tiny("mistral", tmp_path / "base")
    spec = Model(path=str(folder), lora=Lora(target_modules=["q_proj", "lm_head"]))
    model = load_trainable(str(folder), spec, CPU)
    checks.check_update(model, spec)
    assert model.get_base_model().lm_head.lora_B["default"].weight.abs().max() > 0
    checks.check_logprobs(causal_lm(model))
    checks.check_saved(model, tmp_path / "saved", spec)


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_an_adapter_on_tied_weights_is_refused_before_training(target, embedded, tmp_path):
    assert json.loads((embedded / "config.json").read_text())["tie_word_embeddings"]
    with pytest.raises(UserError, match="share one weight"):
        checks.run(
            *("train", "--model", str(embedded), "--data", "arithmetic", "--runs-dir", str(tmp_path / RUNS)),
            *("--set", f"model.lora.target_modules=[q_proj,{target}]"),
        )


def test_an_adapter_on_untied_embeddings_is_merged(tmp_path):
    folder = checks.save_tiny("mistral", tmp_path / "base")
    spec = Model(path=str(folder), lora=Lora(target_modules=["q_proj", "embed_tokens"]))
    model = load_trainable(str(folder), spec, CPU)
    checks.check_update(model, spec)
    checks.check_saved(model, tmp_path / "saved", spec)


def test_adapter_dropout_on_the_output_layer_is_refused(tmp_path):
    folder = checks.save_tiny("mistral", tmp_path / "base")
    spec = Model(path=str(folder), lora=Lora(target_modules=["lm_head"], dropout=0.1))
    with pytest.raises(UserError, match=r"lora.dropout is 0.1"):
        load_trainable(str(folder), spec, CPU)


@pytest.mark.parametrize("lora", [False, True])
def test_the_saved_model_stops_where_training_did(lora, embedded, tmp_path):
    edit(embedded / "generation_config.json", eos_token_id=[2, 5])
    options = {**checks.SMALL_TRAINING, **({"model.lora.rank": 2} if lora else {})}
    runs = ("--runs-dir", str(tmp_path / RUNS))
    checks.run("train", "--model", str(embedded), "--data", "arithmetic", *checks.settings(options), *runs)
    (model,) = (tmp_path / RUNS).glob("*/model")
    tokenizer = load_tokenizer(str(embedded), Model())
    assert set(GenerationConfig.from_pretrained(model).eos_token_id) == {2, 5, tokenizer.eos_token_id}


def test_a_generation_config_that_transformers_would_not_save_is_repaired_before_training(embedded, tmp_path, capsys):
    edit(embedded / "generation_config.json", do_sample=False, temperature=0.6, top_p=0.9)
    checks.check_train_command(embedded, tmp_path)
    (saved,) = (tmp_path / RUNS).glob("*/model/generation_config.json")
    assert "temperature" not in json.loads(saved.read_text())


def test_what_cannot_be_saved_is_refused_before_training(embedded):
    lm = load_model(str(embedded), Model(), CPU)
    lm.generation_config.do_sample, lm.generation_config.temperature = False, 0.5
    with pytest.raises(UserError, match="generation_config cannot be saved"):
        check_savable(lm, load_tokenizer(str(embedded), Model()))


def dropout_model(tmp_path: Path, model_type: str) -> Path:
    """A tiny model whose config switches every dropout on."""
    folder = checks.save_tiny(model_type, tmp_path / model_type)
    rates = {name: 0.5 for name, value in vars(tiny_config(model_type)).items() if "drop" in name and value is not None}
    assert rates
    edit(folder / "config.json", **rates)
    return folder


@pytest.mark.parametrize("model_type", ["gpt2", "opt", "seed_oss", "phi", "gptj"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_dropout_of_the_config_is_off_in_training_unless_requested(model_type, checkpointing, tmp_path):
    folder = dropout_model(tmp_path, model_type)
    spec = Model(path=str(folder), gradient_checkpointing=checkpointing)
    lm = load_model(str(folder), spec, CPU)
    expected = logits(lm.eval())
    set_training_mode(lm, spec.dropout)
    for _ in range(2):
        output = lm(input_ids=torch.arange(1, 12)[None], use_cache=False).logits
        assert torch.allclose(output, expected, atol=1e-6)
    if not checkpointing:
        set_training_mode(lm, True)
        assert not torch.allclose(logits(lm), expected, atol=1e-3)


def test_gradient_checkpointing_recomputes_although_dropout_is_off(tmp_path):
    folder = dropout_model(tmp_path, "gpt2")
    gradients = []
    for checkpointing in (False, True):
        spec = Model(path=str(folder), gradient_checkpointing=checkpointing)
        lm = load_model(str(folder), spec, CPU)
        forwards = []
        lm.transformer.h[0].ln_1.register_forward_hook(lambda *_, calls=forwards: calls.append(1))
        set_training_mode(lm, spec.dropout)
        lm(input_ids=torch.arange(1, 12)[None], use_cache=False).logits.sum().backward()
        assert len(forwards) == (2 if checkpointing else 1)
        gradients.append(lm.transformer.h[0].mlp.c_fc.weight.grad)
    assert torch.allclose(*gradients, atol=1e-6)


def test_adapters_keep_the_dropout_that_the_spec_gives_them(tmp_path):
    folder = checks.save_tiny("llama", tmp_path / "llama")
    spec = Model(path=str(folder), lora=Lora(rank=2, dropout=0.5))
    model = load_trainable(str(folder), spec, CPU)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    engine = Engine(model, spec, Optim(), 1, 100)
    set_training_mode(engine.raw, spec.dropout)
    assert not torch.equal(logits(engine.lm), logits(engine.lm))
    engine.lm.eval()
    assert torch.equal(logits(engine.lm), logits(engine.lm))


MOE = ("qwen3_moe", "mixtral", "gpt_oss", "deepseek_v3")


@pytest.mark.parametrize("model_type", MOE)
def test_a_mixture_of_experts_reports_its_load_and_trains_its_router(model_type, tmp_path):
    folder = checks.save_tiny(model_type, tmp_path / "moe")
    spec = Model(path=str(folder))
    lm = load_model(str(folder), spec, CPU)
    engine = Engine(lm, spec, Optim(lr=1e-3), 10, 10_000)
    batch = checks.batch()
    update = engine.update(batch)
    assert 1 <= update.router["moe/load_max"] <= 4
    assert 0 < update.router["moe/load_entropy"] <= 1
    routers = [n for n, _ in lm.named_parameters() if n.endswith(("gate.weight", "router.weight"))]
    assert routers
    before = {name: p.detach().clone() for name, p in lm.named_parameters() if name in routers}
    engine.update(batch)
    assert all(not torch.equal(p, before[name]) for name, p in lm.named_parameters() if name in routers)


@pytest.mark.parametrize("model_type", MOE)
def test_the_auxiliary_loss_is_the_models_own_or_refused(model_type, tmp_path):
    folder = checks.save_tiny(model_type, tmp_path / "moe")
    losses = []
    for coefficient in (0.0, 0.5):
        spec = Model(path=str(folder), router_aux_coef=coefficient, precision="float32")
        if coefficient and model_type == "deepseek_v3":
            with pytest.raises(UserError, match="router_aux_coef"):
                load_model(str(folder), spec, CPU)
            return
        lm = load_model(str(folder), spec, CPU)
        losses.append(Engine(lm, spec, Optim(lr=1e-3), 10, 10_000).update(checks.batch()).loss)
    lm = load_model(str(folder), Model(), CPU)
    # The last token predicts nothing and is no input; the lengths differ so much that no two sequences share a batch.
    rows = [torch.tensor([[*s.prompt, *s.response[:-1]]]) for s in checks.SEQUENCES]
    own = [float(lm(input_ids=ids, output_router_logits=True, use_cache=False).aux_loss) for ids in rows]
    assert losses[1] - losses[0] == pytest.approx(0.5 * sum(own) / len(own), rel=1e-4)


def test_the_saved_type_is_that_of_the_source_and_its_rounding_is_small(embedded, tmp_path):
    lm = load_model(str(embedded), Model(), CPU)
    lm.config.dtype = torch.bfloat16
    save_model(lm, load_tokenizer(str(embedded), Model()), tmp_path / "half")
    half = load_model(str(tmp_path / "half"), Model(), CPU)
    assert half.config.dtype == torch.bfloat16
    p, q = (torch.log_softmax(logits(model).double(), dim=-1) for model in (lm, half))
    assert 0 < float((p.exp() * (p - q)).sum(-1).mean()) < 0.01
