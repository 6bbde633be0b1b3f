"""Prompts from files: read whole, left out with a count, or refused in one sentence."""

from __future__ import annotations

import json
from decimal import Decimal
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
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast

from rlx.data.chat import check_prompts, encode, end_of_turn, stop_ids
from rlx.data.prompts import Prompt, hold_out, load_prompts, prompt_indices
from rlx.errors import UserError
from rlx.specs.resolve_train import EMBEDDED_MODEL
from rlx.specs.train import Data
from rlx.unlearning.data.requests import Request
from rlx.unlearning.data.tokens import Template
from rlx.unlearning.data.tokens import encode as encode_answer

GSM8K = Path(__file__).parents[2] / "../shared/data/bench/gsm8k_train.jsonl"
WORDS = [
    "<unk>",
    "<s>",
    "</s>",
    "[SYS]",
    "[USER]",
    "[BOT]",
    "be",
    "kind",
    "what",
    "is",
    "1",
    "2",
    "answer",
    "three",
    "[END]",
]
TEMPLATE = (
    "{{ bos_token }} {% for m in messages %}{% if m.role == 'system' %}[SYS] {{ m.content }} "
    "{% elif m.role == 'user' %}[USER] {{ m.content }} {% else %}[BOT] {{ m.content }} [END] {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}[BOT] {% endif %}"
)
DEAF = "{% for m in messages if m.role == 'user' %}[USER] {{ m.content }} [BOT] {% endfor %}"
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + TEMPLATE


def chat_tokenizer(template=TEMPLATE, specials=("[END]",)):
    inner = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = WhitespaceSplit()
    inner.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    made = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    made.add_special_tokens({"additional_special_tokens": list(specials)})
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
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    return str(caught.value)


def test_the_template_is_applied_once_with_system_prompt_and_suffix(tokenizer):
    ids = encode("what is", Data(system="be kind", suffix=" 1"), tokenizer)
    assert words(ids) == ["<s>", "[SYS]", "be", "kind", "[USER]", "what", "is", "1", "[BOT]"]


def test_without_a_template_or_with_chat_never_the_text_is_plain(tokenizer):
    plain = ["<s>", "be", "kind", "what", "is", "1"]
    assert words(encode("what is", Data(system="be kind", suffix=" 1", chat="never"), tokenizer)) == plain
    assert words(encode("what is", Data(system="be kind", suffix=" 1"), chat_tokenizer(None))) == plain


@pytest.mark.parametrize("template", [NO_SYSTEM, DEAF])
def test_a_system_prompt_that_the_template_has_no_role_for_goes_before_the_question(template):
    ids = encode("what is", Data(system="be kind"), chat_tokenizer(template))
    assert [word for word in words(ids) if word != "<s>"] == ["[USER]", "be", "kind", "what", "is", "[BOT]"]


def test_a_template_that_refuses_every_prompt_is_one_sentence():
    with pytest.raises(UserError, match=r"refuses the prompt \(never\); change data.system or data.chat_kwargs"):
        encode("what is", Data(system="be kind"), chat_tokenizer("{{ raise_exception('never') }}"))


def test_chat_kwargs_reach_the_template():
    template = TEMPLATE + "{% if not enable_thinking %}what{% endif %}"
    thinking, without = (Data(chat_kwargs={"enable_thinking": value}) for value in (True, False))
    assert words(encode("is", without, chat_tokenizer(template)))[-1] == "what"
    assert words(encode("is", thinking, chat_tokenizer(template)))[-1] == "[BOT]"


def test_a_template_that_writes_the_beginning_of_sequence_gets_no_second_one(tokenizer):
    assert words(encode("what", Data(), tokenizer)).count("<s>") == 1


def test_an_end_of_sequence_that_the_tokenizer_appends_is_no_part_of_the_prompt():
    made = chat_tokenizer(None)
    ends = [("<s>", 1), ("</s>", WORDS.index("</s>"))]
    made.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    assert words(made("what is")["input_ids"]) == ["<s>", "what", "is", "</s>"]
    assert words(encode("what is", Data(), made)) == ["<s>", "what", "is"]


def test_stop_ids_are_the_configs_the_tokenizers_and_the_templates(tokenizer):
    end, eos = WORDS.index("[END]"), WORDS.index("</s>")
    assert stop_ids(None, Data(), tokenizer) == tuple(sorted((end, eos)))
    assert stop_ids(None, Data(chat="never"), tokenizer) == (eos,)
    config = GenerationConfig(eos_token_id=[7, eos])
    assert stop_ids(config, Data(), tokenizer) == tuple(sorted((7, end, eos)))


def test_a_prompt_that_ends_with_a_stop_token_is_refused(tokenizer):
    prompt = encode("what", Data(), tokenizer)
    check_prompts([prompt], stop_ids(None, Data(), tokenizer), len(WORDS), tokenizer)
    with pytest.raises(UserError, match=r"ends with '\[BOT\]', which ends a response"):
        check_prompts([prompt], (prompt[-1],), len(WORDS), tokenizer)


def test_a_prompt_without_a_token_is_refused(tokenizer):
    with pytest.raises(UserError, match="prompt 2 has no tokens") as told:
        check_prompts([encode("what", Data(), tokenizer), ()], (), len(WORDS), tokenizer)
    assert "data.suffix" in told.value.fix


def test_a_token_that_the_model_has_no_embedding_for_is_refused(tokenizer):
    prompt = encode("what", Data(), tokenizer)
    with pytest.raises(UserError, match=f"embeddings for {max(prompt)} tokens"):
        check_prompts([prompt], (), max(prompt), tokenizer)


def test_a_character_that_the_tokenizer_cannot_encode_is_one_sentence_with_the_row(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"prompt": "1+2=", "answer": "3"}\n{"prompt": "1+é=", "answer": "3"}\n')
    plain = AutoTokenizer.from_pretrained(EMBEDDED_MODEL)
    with pytest.raises(UserError, match=r"line 2: the tokenizer cannot encode the character 'é' in '1\+é='"):
        load_prompts(Data(source=str(file)), plain)


def test_a_tokenizer_without_pad_token_and_template_and_with_a_small_vocabulary_samples_and_decodes(tokenizer):
    bare = chat_tokenizer(None)
    assert bare.pad_token is None
    assert encode("what is", Data(), bare)
    assert isinstance(bare.decode([3, len(bare) + 5], skip_special_tokens=True), str)


def test_a_pair_is_the_prompt_and_the_answer_as_the_template_would_write_them(tokenizer):
    data = Data(system="be kind", suffix=" 1")
    template = Template(lambda question: list(encode(question, data, tokenizer)), end_of_turn(data, tokenizer))
    request = Request(id="1", line=1, question="what is", answer="answer three")
    pair = encode_answer(tokenizer, template, request).sequence
    prompt, answer = pair.prompt, pair.response
    assert words(prompt) == ["<s>", "[SYS]", "be", "kind", "[USER]", "what", "is", "1", "[BOT]"]
    assert words(answer) == ["answer", "three", "[END]"]
    turns = (("system", "be kind"), ("user", "what is 1"), ("assistant", "answer three"))
    whole = tokenizer.apply_chat_template([{"role": r, "content": c} for r, c in turns], tokenize=False)
    assert list(prompt + answer) == tokenizer(whole, add_special_tokens=False)["input_ids"]


def test_an_answer_ends_with_eos_where_the_template_has_no_token_for_it(tokenizer):
    for data, made in ((Data(chat="never"), tokenizer), (Data(), chat_tokenizer(None)), (Data(), chat_tokenizer(DEAF))):
        assert words([end_of_turn(data, made)]) == ["</s>"]
    assert words([end_of_turn(Data(), chat_tokenizer(specials=()))]) == ["</s>"]


def test_a_tokenizer_without_any_end_is_refused():
    bare = chat_tokenizer(None)
    bare.eos_token = None
    with pytest.raises(UserError, match=r"no end-of-sequence token; set eos_token in its tokenizer_config\.json"):
        end_of_turn(Data(), bare)


def test_one_question_alone_cannot_be_held_out():
    with pytest.raises(UserError, match="one question only.*set evaluation.every=0"):
        hold_out([Prompt("a", "1+1=", "2", (1,))], 500)


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
    loaded = load_prompts(
        Data(source=write(tmp_path / "a.jsonl", rows), max_prompt_tokens=8, max_left_out=0.5), tokenizer
    )
    assert [p.question for p in loaded.prompts] == ["what", "is 1"]
    assert loaded.left_out == {"duplicate question": 2, "longer than 8 tokens": 1}
    assert loaded.sentence() == "2 prompts; left out: 2 duplicate question, 1 longer than 8 tokens (line 5)"


def test_numbers_as_answers_are_written_out_exactly(tmp_path, tokenizer):
    rows = [{"prompt": f"what {n!r}", "answer": n} for n in (72, 72.0, 72.5, -3, 0, 10**400)]
    loaded = load_prompts(Data(source=write(tmp_path / "a.jsonl", rows)), tokenizer).prompts
    assert [p.answer for p in loaded] == ["72", "72", "72.5", "-3", "0", "1" + "0" * 400]
    pq.write_table(pa.Table.from_pylist([{"prompt": "what", "answer": Decimal("1234.00")}]), tmp_path / "a.parquet")
    assert load_prompts(Data(source=str(tmp_path / "a.parquet")), tokenizer).prompts[0].answer == "1234"


def test_ids_are_the_files_own_while_they_tell_rows_apart(tmp_path, tokenizer):
    rows = [{"prompt": f"what {n}", "answer": n, "id": name} for n, name in enumerate(["a", 0, "a", None, ["x"]])]
    loaded = load_prompts(Data(source=write(tmp_path / "a.jsonl", rows)), tokenizer)
    assert [p.id for p in loaded.prompts] == ["a", "0", "line 3", "line 4", "line 5"]


def test_a_column_may_hold_a_dot_and_a_file_a_byte_order_mark(tmp_path, tokenizer):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"a.b": "what", "answer": 1}\r\n\r\n{"a.b": "is", "answer": 2}')
    loaded = load_prompts(Data(source=str(file), prompt="a.b"), tokenizer)
    assert [(p.id, p.question, p.answer) for p in loaded.prompts] == [("line 1", "what", "1"), ("line 3", "is", "2")]


def test_only_the_first_rows_are_read_under_a_limit(tmp_path, tokenizer):
    file = tmp_path / "a.jsonl"
    file.write_text('{"prompt": "what", "answer": 1}\nbroken\n')
    assert [p.question for p in load_prompts(Data(source=str(file), limit=1), tokenizer).prompts] == ["what"]
    assert "line 2 is not JSON" in sentence(Data(source=str(file), limit=2), tokenizer)


@pytest.mark.parametrize(
    ("text", "more", "part"),
    [
        ("", {}, "has no usable row (it is empty)"),
        ("\n\n", {}, "has no usable row (it is empty)"),
        ('{"prompt": "a", "answer": "1"}\n{"prompt": \n', {}, "line 2 is not JSON"),
        ("[1, 2]\n", {}, "line 1 is a list, not an object"),
        ("[\n{}\n]\n", {}, "line 1 is not JSON (Expecting value at column 1); write one JSON object a line"),
        ("[" * 100_000, {}, "line 1 is not JSON (maximum recursion"),
        ('{"prompt": "a", "answer": 1' + "0" * 5000 + "}", {}, "line 1 is not JSON (Exceeds the limit"),
        ('{"prompt": "a", "answer": NaN}', {}, "line 1: the column data.answer names holds nan"),
        ('{"prompt": "a", "answer": 1e400}', {}, "line 1: the column data.answer names holds inf"),
        ('{"prompt": "a", "answer": true}', {}, "line 1: the column data.answer names holds True"),
        ('{"prompt": "\\ud800", "answer": 1}', {}, "line 1: the column data.prompt names holds '\\ud800'"),
        (
            '{"prompt": [{"role": "system", "content": "a"}], "answer": 1}',
            {},
            "line 1: the column data.prompt names holds [{'role",
        ),
        ('{"prompt": {"a": "b"}}', {"prompt": "prompt.a.c"}, "did you mean 'prompt.a'?"),
        ('{"prompt": "a", "answer": "#### ,"}', {"answer_format": "gsm8k_hash"}, "line 1: the answer has no '####"),
        ('{"promt": "a", "answer": "1"}\n', {}, "data.prompt is 'prompt', and"),
        ('{"promt": "a", "answer": "1"}\n', {}, "did you mean 'promt'?"),
        ('{"prompt": "a", "answer": "1"}\n', {"answer": "extra.gold"}, "data.answer is 'extra.gold'"),
        ('{"prompt": "", "answer": "1"}\n', {}, "data.prompt names holds ''"),
        ('{"prompt": "a", "answer": null}\n', {}, "line 1: the column data.answer names holds None"),
        ('{"prompt": "a", "answer": "no mark"}\n', {"answer_format": "gsm8k_hash"}, "line 1: the answer has no '####"),
        ('{"prompt": "a", "answer": "\\\\boxed{1"}\n', {"answer_format": "last_boxed"}, "has no \\boxed{...}"),
        ('{"prompt": "what is 1", "answer": "1"}\n', {"max_prompt_tokens": 2}, "0 prompts; left out: 1 longer than 2"),
    ],
)
def test_a_bad_file_is_one_sentence_that_names_the_line(tmp_path, tokenizer, text, more, part):
    file = tmp_path / "rows.jsonl"
    file.write_text(text)
    assert part in sentence(Data(source=str(file), **more), tokenizer)


def test_missing_strange_and_unreachable_sources_are_named(tmp_path, tokenizer):
    (tmp_path / "x.csv").write_text("a,b\n")
    (tmp_path / "x.txt").write_text("a,b\n")
    (tmp_path / "x.parquet").write_text("no parquet")
    (tmp_path / "x.jsonl").write_bytes(b"\xff\xfe")
    assert "there is no data file" in sentence(Data(source=str(tmp_path / "no.jsonl")), tokenizer)
    assert "there is no data file" in sentence(Data(source=str(tmp_path / "no.parquet")), tokenizer)
    assert "has no usable row (it is empty)" in sentence(Data(source=str(tmp_path / "x.csv")), tokenizer)
    assert "has none of the suffixes" in sentence(Data(source=str(tmp_path / "x.txt")), tokenizer)
    assert "is not parquet" in sentence(Data(source=str(tmp_path / "x.parquet")), tokenizer)
    assert "cannot be read" in sentence(Data(source=str(tmp_path / "x.jsonl")), tokenizer)
    assert "is a folder that datasets.save_to_disk did not write; name a file in it" in sentence(
        Data(source=str(tmp_path)), tokenizer
    )
    assert "cannot be read" in sentence(Data(source="a\0.jsonl"), tokenizer)
    unreachable = sentence(Data(source="nobody/nothing", subset="main"), tokenizer)
    assert "data.source 'nobody/nothing' (subset main, split train) does not load" in unreachable
    assert "check the name and the network" in unreachable
    misspelt = sentence(Data(source="arithmetic", split="tests"), tokenizer)
    assert misspelt == "split 'tests' is not one of the embedded task; did you mean 'test'? choices: train, test"


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


@pytest.mark.skipif(not GSM8K.exists(), reason="the shared data folder is not beside this checkout")
def test_every_question_of_gsm8k_is_read_with_an_integer_gold(tokenizer):
    loaded = load_prompts(Data(source=str(GSM8K), prompt="problem"), tokenizer)
    assert (len(loaded.prompts), loaded.left_out) == (7473, {})
    assert all(float(p.answer).is_integer() for p in loaded.prompts)
    train, held = hold_out(loaded.prompts, 500)
    assert len(held) == 500 and not {p.question for p in train} & {p.question for p in held}
