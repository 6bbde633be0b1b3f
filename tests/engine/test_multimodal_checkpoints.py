"""Published vision-language checkpoints: text training with the published class, saved as the same class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from rlx.engine.load import load_model, load_tokenizer
from rlx.specs.train import Model
from tests import architecture_checks as checks
from tests.tiny_models import tiny_config

CPU = torch.device("cpu")
VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
    "depth": 1,
    "num_heads": 2,
    "out_hidden_size": 32,
    "head_dim": 8,
    "num_position_embeddings": 16,
    "deepstack_visual_indexes": [],
}
CLASSES = {
    "Gemma3ForConditionalGeneration": "gemma3_text",
    "Qwen3_5ForConditionalGeneration": "qwen3_5_text",
    "Mistral3ForConditionalGeneration": "ministral3",
    "LlavaForConditionalGeneration": "llama",
}


def published(class_name: str, text_type: str, folder: Path) -> Path:
    """A tiny random checkpoint of the class, its image encoder included."""
    cls: Any = getattr(transformers, class_name)
    config_class = cls.config_class
    vision_class = config_class.sub_configs["vision_config"]
    defaults = vision_class() if vision_class is not transformers.AutoConfig else transformers.CLIPVisionConfig()
    vision = {name: value for name, value in VISION.items() if hasattr(defaults, name)}
    vision["model_type"] = defaults.model_type
    text = tiny_config(text_type).to_dict()
    tokens = ("image_token_id", "image_token_index", "video_token_id", "boi_token_index", "eoi_token_index")
    known = {name: 7 for name in tokens if hasattr(config_class(), name)}
    torch.manual_seed(0)
    lm = cls(config_class(text_config=text, vision_config=vision, **known)).float()
    lm.save_pretrained(folder)
    load_tokenizer(str(checks.TOKENIZER), Model()).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("class_name", CLASSES)
def test_text_training_works_from_the_published_class(class_name, tmp_path):
    folder = published(class_name, CLASSES[class_name], tmp_path / "published")
    spec = Model(path=str(folder))
    lm = load_model(str(folder), spec, CPU)
    assert type(lm).__name__ == class_name
    vision = [p for name, p in lm.named_parameters() if "vision" in name or "visual" in name or "projector" in name]
    assert vision and not any(p.requires_grad for p in vision)
    checks.check_logprobs(lm)
    checks.check_sampler(lm)
    checks.check_update(lm, spec)
    checks.check_saved(lm, tmp_path / "saved", spec)
    before, after = (set(load_file(path / "model.safetensors")) for path in (folder, tmp_path / "saved"))
    assert before == after
    checks.check_train_command(folder, tmp_path)
