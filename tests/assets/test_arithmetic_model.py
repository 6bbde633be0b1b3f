import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

import rlx.assets
from rlx.assets.build_arithmetic import build_tokenizer, measure, supervised_tokens
from rlx.data.arithmetic import ALPHABET, rows, solution

FOLDER = Path(rlx.assets.__file__).parent / "arithmetic"


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(FOLDER, local_files_only=True)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(FOLDER, local_files_only=True).eval()


def test_the_folder_loads_with_the_hub_switched_off():
    code = (
        "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T;"
        f"M.from_pretrained({str(FOLDER)!r}); T.from_pretrained({str(FOLDER)!r})"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


def test_the_model_has_430720_parameters_in_float32_with_tied_embeddings(model):
    assert sum(p.numel() for p in model.parameters()) == 430_720
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_model_generation_and_tokenizer_agree_on_the_special_tokens(model, tokenizer):
    ids = (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert ids == (0, 1, 2)
    for config in (model.config, model.generation_config):
        assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == ids
    assert len(tokenizer) == model.config.vocab_size == 32


def test_the_tokenizer_is_a_fast_one_without_a_chat_template(tokenizer):
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    assert tokenizer.chat_template is None


@pytest.mark.parametrize("text", ["7+5=12 4+8=12#132", "  1  ?  ", "(3)*4-5=\n\n ? #", "   ", "\n", ALPHABET])
def test_encoding_and_decoding_give_the_text_back(tokenizer, text):
    ids = tokenizer.encode(text)
    assert len(ids) == len(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode([*ids, tokenizer.eos_token_id], skip_special_tokens=True) == text


def test_every_prompt_and_solution_is_one_token_a_character(tokenizer):
    for row in [*rows("train"), *rows("test")]:
        text = row["prompt"] + solution(*map(int, row["id"].split("+")))
        assert tokenizer.convert_ids_to_tokens(tokenizer.encode(row["prompt"])) == list(row["prompt"])
        assert tokenizer.convert_ids_to_tokens(tokenizer.encode(text)) == list(text)


def test_a_prompt_and_a_response_encode_apart_as_they_do_together(tokenizer):
    prompt, response = "47+85=", solution(47, 85)
    assert tokenizer.encode(prompt) + tokenizer.encode(response) == tokenizer.encode(prompt + response)


def test_a_character_outside_the_alphabet_is_an_error_and_not_dropped(tokenizer):
    with pytest.raises(Exception, match=r"Missing \[UNK\]"):
        tokenizer.encode("47x85=")


def test_the_committed_tokenizer_is_the_one_the_script_builds(tokenizer):
    assert build_tokenizer().backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_the_labels_cover_the_response_and_its_end_and_nothing_else(tokenizer):
    ids_bt, labels_bt = supervised_tokens(tokenizer)
    row = rows("train")[0]
    a, b = map(int, row["id"].split("+"))
    learned_t = labels_bt[0] != -100
    assert tokenizer.decode(labels_bt[0][learned_t]) == solution(a, b) + "<eos>"
    assert tokenizer.decode(ids_bt[0][: len(row["prompt"])]) == row["prompt"]
    assert not learned_t[: len(row["prompt"])].any()
    assert ids_bt.shape == (7600, 24)


def test_no_test_pair_is_among_the_training_tokens(tokenizer):
    ids_bt, _ = supervised_tokens(tokenizer)
    trained = set(tokenizer.batch_decode(ids_bt[:, :6]))
    assert trained.isdisjoint(row["prompt"] for row in rows("test"))
    assert len(trained) == 7600


def test_the_card_names_these_very_weights():
    digest = hashlib.sha256((FOLDER / "model.safetensors").read_bytes()).hexdigest()
    assert digest in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_the_base_begins_near_a_third_right_when_sampled(model, tokenizer):
    sampled = measure(model, tokenizer, samples=1, seed=1)
    assert sampled.n == 500
    # .36 aimed at; one sample a problem has a standard error of .02, so this is three of them.
    assert 0.29 < sampled.right / sampled.n < 0.42
