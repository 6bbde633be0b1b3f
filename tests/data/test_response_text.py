"""The texts of a response: without the stop token, with or without special tokens, and behind the end of thinking."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from tokenizers.decoders import Fuse
from transformers import PreTrainedTokenizerFast

from rlx.data.prompts import Prompt
from rlx.data.response_text import ResponseText
from rlx.rewards.reward_set import load_rewards
from rlx.rl.grading import reward_inputs
from rlx.rollout.sampler import Response


def tokenizer_with(*special: str, ordinary: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """A tokenizer of single characters whose added tokens are the given ones."""
    letters = {chr(code): code - 32 for code in range(32, 127)}
    backend = Tokenizer(models.WordLevel(letters, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.decoder = Fuse()
    backend.add_special_tokens([AddedToken(text, special=True) for text in ("<eos>", *special)])
    backend.add_tokens([AddedToken(text, special=False) for text in ordinary])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>")


def texts(tokenizer: PreTrainedTokenizerFast, response: str, keep: bool) -> tuple[str, str]:
    reader = ResponseText(tokenizer, stops=(tokenizer.eos_token_id,), keep_special=keep)
    tokens = tokenizer(response, add_special_tokens=False)["input_ids"]
    found = reader.read(tokens)
    return found.completion, found.final


THINK = ("<think>", "</think>")
HARMONY = ("<|channel|>", "<|message|>", "<|start|>", "<|end|>")
ANALYSIS = "<|channel|>analysis<|message|>1 or 2?<|end|><|start|>assistant"


@pytest.mark.parametrize(
    ("special", "response", "stripped", "kept"),
    [
        (THINK, "<think>1 or 2?</think>2<eos>", "2", "<think>1 or 2?</think>2"),
        (THINK, "a</think>b</think>2<eos>", "2", "a</think>b</think>2"),
        (THINK, "<think>1 or 2?", "1 or 2?", "<think>1 or 2?"),
        (THINK, "2<eos>", "2", "2"),
        (THINK, "<eos>", "", ""),
        (THINK, "", "", ""),
        (("[THINK]", "[/THINK]"), "[THINK]1 or 2?[/THINK]2<eos>", "2", "[THINK]1 or 2?[/THINK]2"),
        (HARMONY, ANALYSIS + "<|channel|>final<|message|>2<eos>", "2", ANALYSIS + "<|channel|>final<|message|>2"),
        (HARMONY, ANALYSIS, "analysis1 or 2?assistant", ANALYSIS),
        (HARMONY, "<|channel|>final", "final", "<|channel|>final"),
    ],
)
def test_text_before_a_special_end_of_thinking_is_left_out_unless_special_tokens_are_kept(
    special, response, stripped, kept
):
    tokenizer = tokenizer_with(*special)
    assert texts(tokenizer, response, keep=False) == (stripped, stripped)
    assert texts(tokenizer, response, keep=True) == (kept, stripped)


def test_an_end_of_thinking_that_is_ordinary_text_remains():
    tokenizer = tokenizer_with(ordinary=THINK)
    response = "<think>1 or 2?</think>2"
    assert texts(tokenizer, response + "<eos>", keep=False) == (response, response)
    assert texts(tokenizer, response + "<eos>", keep=True) == (response, response)


def test_only_the_last_token_is_removed_as_the_stop_token():
    tokenizer = tokenizer_with(*THINK)
    assert texts(tokenizer, "1<eos>2<eos>", keep=True)[0] == "1<eos>2"


def test_a_box_in_a_thought_between_special_tokens_is_not_graded(tmp_path):
    tokenizer = tokenizer_with(*THINK)
    file = tmp_path / "my.py"
    file.write_text("def ids(completion, completion_ids): return 100 * completion.count('<') + len(completion_ids)")
    answers = {r"<think>\boxed{1}</think>\boxed{2}<eos>": 0.0, r"<think>\boxed{2}</think>\boxed{1}<eos>": 1.0}
    for response, score in answers.items():
        tokens = tuple(tokenizer(response, add_special_tokens=False)["input_ids"])
        group = [Response(tokens, (0.0,) * len(tokens), finished=True)]
        for keep in (False, True):
            reader = ResponseText(tokenizer, (tokenizer.eos_token_id,), keep)
            inputs = reward_inputs([Prompt("a", "0+1", "1", (1,))], [group], [reader.read(tokens)])
            verdicts = load_rewards([("boxed", 1.0), (f"{file}:ids", 1.0)]).grade(inputs)
            assert verdicts["boxed"][0].score == score
            assert verdicts["ids"][0].score == 200 * keep + len(tokens)
