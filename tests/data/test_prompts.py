"""Prompts from files: read whole, left out with a count, or refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from rlx.data.chat import encode, encode_pair
from rlx.data.prompts import Prompt, hold_out, load_prompts, prompt_indices
from rlx.errors import UserError
from rlx.resolve import EMBEDDED_MODEL
from rlx.spec import Data

WORDS = ["<unk>", "<s>", "</s>", "[SYS]", "[USER]", "[BOT]", "be", "kind", "what", "is", "1", "2", "answer", "three"]
TEMPLATE = (
    "{{ bos_token }} {% for m in messages %}{% if m.role == 'system' %}[SYS] {{ m.content }} "
    "{% else %}[USER] {{ m.content }} {% endif %}{% endfor %}{% if add_generation_prompt %}[BOT] {% endif %}"
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + TEMPLATE


def chat_tokenizer(template=TEMPLATE):
    inner = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = WhitespaceSplit()
    inner.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    made = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    made.chat_template = template
    return made


def words(ids):
    return [WORDS[index] for index in ids]


@pytest.fixture(scope="module")
def tokenizer():
    return chat_tokenizer()


def write(path: Path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def sentence(data, tokenizer):
    with pytest.raises(UserError) as caught:
        load_prompts(data, tokenizer)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_template_is_applied_once_with_system_prompt_and_suffix(tokenizer):
    ids = encode("what is", Data(system="be kind", suffix=" 1"), tokenizer)
    assert words(ids) == ["<s>", "[SYS]", "be", "kind", "[USER]", "what", "is", "1", "[BOT]"]


def test_without_a_template_or_with_chat_never_the_text_is_plain(tokenizer):
    plain = ["<s>", "be", "kind", "what", "is", "1"]
    assert words(encode("what is", Data(system="be kind", suffix=" 1", chat="never"), tokenizer)) == plain
    assert words(encode("what is", Data(system="be kind", suffix=" 1"), chat_tokenizer(None))) == plain


def test_a_system_prompt_that_the_template_refuses_is_named():
    with pytest.raises(UserError, match=r"refuses the prompt \(no system role\); drop data.system"):
        encode("what is", Data(system="be kind"), chat_tokenizer(NO_SYSTEM))


def test_a_pair_is_the_prompt_and_the_answer_with_its_end(tokenizer):
    prompt, answer = encode_pair("what is", "answer three", Data(), tokenizer)
    assert words(prompt) == ["<s>", "[USER]", "what", "is", "[BOT]"]
    assert words(answer) == ["answer", "three", "</s>"]


def test_a_jsonl_and_a_parquet_file_give_the_same_prompts(tmp_path, tokenizer):
    rows = [{"extra": {"question": f"what is {n}"}, "gold": n} for n in (1, 2)]
    jsonl = write(tmp_path / "rows.jsonl", rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    for source in (jsonl, str(tmp_path / "rows.parquet")):
        loaded = load_prompts(Data(source=source, prompt="extra.question", answer="gold"), tokenizer).prompts
        assert [(p.question, p.answer) for p in loaded] == [("what is 1", "1"), ("what is 2", "2")]
        assert words(loaded[0].tokens) == ["<s>", "[USER]", "what", "is", "1", "[BOT]"]


def test_golds_are_read_in_their_format_and_chat_columns_give_the_users_words(tmp_path, tokenizer):
    chat = [{"role": "system", "content": "be"}, {"role": "user", "content": "what is 2"}]
    box = write(tmp_path / "a.jsonl", [{"prompt": chat, "answer": "so \\boxed{1} no \\boxed{\\frac{1}{2}}"}])
    hashed = write(tmp_path / "b.jsonl", [{"prompt": "what", "answer": "1 + 1\n#### 1,234"}])
    (one,) = load_prompts(Data(source=box, answer_format="last_boxed"), tokenizer).prompts
    (two,) = load_prompts(Data(source=hashed, answer_format="gsm8k_hash"), tokenizer).prompts
    assert (one.question, one.answer) == ("what is 2", "\\frac{1}{2}")
    assert two.answer == "1234"


def test_repeated_and_too_long_prompts_are_left_out_and_counted(tmp_path, tokenizer):
    rows = [{"prompt": p, "answer": "1"} for p in ("what", "what", " what ", "is 1", "is is is is is is is")]
    loaded = load_prompts(Data(source=write(tmp_path / "a.jsonl", rows), max_prompt_tokens=8), tokenizer)
    assert [p.question for p in loaded.prompts] == ["what", "is 1"]
    assert loaded.left_out == {"duplicate question": 2, "longer than 8 tokens": 1}


@pytest.mark.parametrize(
    ("text", "more", "part"),
    [
        ("", {}, "has no usable row (it is empty)"),
        ("\n\n", {}, "has no usable row (it is empty)"),
        ('{"prompt": "a", "answer": "1"}\n{"prompt": \n', {}, "line 2 is not JSON"),
        ("[1, 2]\n", {}, "line 1 is a list, not an object"),
        ('{"promt": "a", "answer": "1"}\n', {}, "data.prompt is 'prompt', and"),
        ('{"promt": "a", "answer": "1"}\n', {}, "did you mean 'promt'?"),
        ('{"prompt": "a", "answer": "1"}\n', {"answer": "extra.gold"}, "data.answer is 'extra.gold'"),
        ('{"prompt": "", "answer": "1"}\n', {}, "data.prompt names holds ''"),
        ('{"prompt": "a", "answer": null}\n', {}, "line 1: the column data.answer names holds None"),
        ('{"prompt": "a", "answer": "no mark"}\n', {"answer_format": "gsm8k_hash"}, "line 1: the answer has no '####"),
        ('{"prompt": "a", "answer": "\\\\boxed{1"}\n', {"answer_format": "last_boxed"}, "has no \\boxed{...}"),
        ('{"prompt": "what is 1", "answer": "1"}\n', {"max_prompt_tokens": 2}, "1 longer than 2 tokens"),
    ],
)
def test_a_bad_file_is_one_sentence_that_names_the_line(tmp_path, tokenizer, text, more, part):
    file = tmp_path / "rows.jsonl"
    file.write_text(text)
    assert part in sentence(Data(source=str(file), **more), tokenizer)


def test_missing_strange_and_unreachable_sources_are_named(tmp_path, tokenizer):
    (tmp_path / "x.csv").write_text("a,b\n")
    (tmp_path / "x.parquet").write_text("no parquet")
    (tmp_path / "x.jsonl").write_bytes(b"\xff\xfe")
    assert "there is no data file" in sentence(Data(source=str(tmp_path / "no.jsonl")), tokenizer)
    assert "there is no data file" in sentence(Data(source=str(tmp_path / "no.parquet")), tokenizer)
    assert "neither .jsonl nor .parquet" in sentence(Data(source=str(tmp_path / "x.csv")), tokenizer)
    assert "is not parquet" in sentence(Data(source=str(tmp_path / "x.parquet")), tokenizer)
    assert "cannot be read" in sentence(Data(source=str(tmp_path / "x.jsonl")), tokenizer)
    assert "does not load" in sentence(Data(source="nobody/nothing", subset="main"), tokenizer)


def test_the_embedded_task_loads_with_its_own_tokenizer():
    loaded = load_prompts(
        Data(source="arithmetic", split="test", limit=7), AutoTokenizer.from_pretrained(EMBEDDED_MODEL)
    )
    assert len(loaded.prompts) == 7
    assert {len(prompt.tokens) for prompt in loaded.prompts} == {6}


@given(st.integers(1, 40), st.integers(0, 5), st.integers(1, 50))
def test_every_epoch_visits_every_prompt_once_whatever_the_batch(size, seed, number):
    visited = [i for start in range(0, 3 * size, number) for i in prompt_indices(size, seed, start, number)]
    for epoch in range(3):
        assert sorted(visited[epoch * size : (epoch + 1) * size]) == list(range(size))


def test_the_order_depends_on_the_seed_and_not_on_what_was_asked_before():
    later = prompt_indices(1000, 0, 200, 32)
    for start in range(0, 200, 32):
        prompt_indices(1000, 0, start, 32)
    assert prompt_indices(1000, 0, 200, 32) == later
    assert prompt_indices(1000, 1, 200, 32) != later


def test_holding_out_is_the_same_whatever_the_order_of_the_file():
    prompts = [Prompt(str(n), f"question {n}", "1", (1,)) for n in range(50)]
    train, held = hold_out(prompts, 10)
    assert len(held) == 10 and len(train) == 40
    assert {p.id for p in hold_out(prompts[::-1], 10)[1]} == {p.id for p in held}
    assert len(hold_out(prompts, 1000)[1]) == 25
