"""Data files in every format: the same rows, the same run id, and one sentence for every mistake in all commands."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
from collections import Counter
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from rlx.cli.app import main
from rlx.data.order import BLOCK, mixed_indices
from rlx.data.prompts import draw_prompts, load_prompts
from rlx.errors import UserError
from rlx.evaluation.problems import load_problems
from rlx.files.row_hash import source_hash
from rlx.files.sources import Source, read_source
from rlx.runs.folder import RunDir
from rlx.runs.locate import with_existing_id
from rlx.specs.identity import file_hash, run_id
from rlx.specs.resolve_train import EMBEDDED_MODEL, NOT_IDENTIFYING, resolve
from rlx.specs.train import Data
from rlx.unlearning.data.requests import read_requests

ROWS = [{"id": f"{n}+{n}", "prompt": f"{n}+{n}=", "answer": 2 * n, "level": None} for n in range(11, 16)]
FORMATS = ("rows.jsonl", "rows.json", "rows.csv", "rows.csv.gz", "rows.jsonl.gz", "rows.json.gz", "rows.parquet",
           "rows.parquet.gz", "saved", "saved_splits")  # fmt: skip


def csv_text(rows) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write(folder: Path, name: str, rows) -> str:
    path = folder / name
    plain = name.removesuffix(".gz")
    if name == "saved":
        datasets.Dataset.from_list(rows).save_to_disk(path)
    elif name == "saved_splits":
        datasets.DatasetDict({"train": datasets.Dataset.from_list(rows)}).save_to_disk(path)
    elif plain.endswith(".parquet"):
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), buffer)
        content = buffer.getvalue()
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    else:
        texts = {
            ".jsonl": "".join(json.dumps(row) + "\n" for row in rows),
            ".json": json.dumps(rows, indent=1),
            ".csv": csv_text(rows),
        }
        content = texts[Path(plain).suffix].encode()
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return str(path)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(EMBEDDED_MODEL)


def content(source: str, **more):
    return {"model": {"path": str(EMBEDDED_MODEL)}, "data": {"source": source, "answer": "answer"}, **more}


def test_the_same_rows_have_the_same_run_id_but_for_the_name_and_the_same_first_batch(tmp_path, tokenizer):
    ids, batches = set(), set()
    for name in FORMATS:
        resolved = resolve(content(write(tmp_path, name, ROWS)))
        renamed = resolved.spec.model_copy(update={"data": resolved.spec.data.model_copy(update={"source": "rows"})})
        ids.add(run_id(renamed, ("dgpo", "model", "rows"), NOT_IDENTIFYING, resolved.fingerprints))
        prompts = load_prompts(resolved.spec.data, tokenizer).prompts
        batches.add(tuple(draw_prompts(prompts, None, resolved.spec.seed, 0, 4)))
    assert len(ids) == 1
    (batch,) = batches
    assert len(batch) == 4 and {prompt.answer for prompt in batch} <= {str(2 * n) for n in range(11, 16)}


def test_another_value_another_order_and_another_column_are_another_run(tmp_path):
    changed = [[*ROWS[:4], {**ROWS[4], "answer": 31}], ROWS[::-1], [{**row, "level": 1} for row in ROWS], ROWS[:4]]
    hashes = {source_hash(Source(write(tmp_path, f"{n}.jsonl", rows))) for n, rows in enumerate([ROWS, *changed])}
    assert len(hashes) == 5


def test_a_run_under_the_hash_of_its_files_bytes_keeps_its_id(tmp_path):
    source = write(tmp_path, "rows.jsonl", ROWS)
    resolved = resolve(content(source))
    bytes_id = run_id(
        resolved.spec,
        (resolved.spec.algorithm.name, str(EMBEDDED_MODEL), source),
        NOT_IDENTIFYING,
        {**resolved.fingerprints, "data": file_hash(Path(source))},
    )
    assert resolved.earlier_run_id == bytes_id != resolved.run_id
    assert with_existing_id(resolved, tmp_path).run_id == resolved.run_id
    RunDir(tmp_path / bytes_id).create({}, resolved.model_dump_json())
    assert with_existing_id(resolved, tmp_path).run_id == bytes_id
    RunDir(tmp_path / resolved.run_id).create({}, resolved.model_dump_json())
    assert with_existing_id(resolved, tmp_path).run_id == resolved.run_id


def test_the_index_that_pandas_writes_without_a_name_is_no_column(tmp_path):
    (tmp_path / "a.csv").write_text(",prompt,answer\n0,1+1=,2\n")
    assert [row.content for row in read_source(Source(str(tmp_path / "a.csv")))] == [{"prompt": "1+1=", "answer": "2"}]


def test_a_glob_is_its_files_by_name_and_each_row_names_its_file(tmp_path):
    for name in ("b.jsonl", "a.csv"):
        write(tmp_path, name, ROWS[:2])
    rows = list(read_source(Source(str(tmp_path / "*.*"))))
    assert [row.location for row in rows] == ["a.csv line 2", "a.csv line 3", "b.jsonl line 1", "b.jsonl line 2"]


@pytest.mark.parametrize("names", [("question", "solution"), ("problem", "ground_truth"), ("messages", "answer")])
def test_columns_with_usual_names_are_found_and_said(tmp_path, tokenizer, names):
    rows = [{names[0]: "1+1=", names[1]: "2"}]
    if names[0] == "messages":
        rows[0]["messages"] = [{"role": "user", "content": "1+1="}]
    loaded = load_prompts(Data(source=write(tmp_path, "a.jsonl", rows)), tokenizer)
    assert [(p.question, p.answer) for p in loaded.prompts] == [("1+1=", "2")]
    assert f"data.prompt is read from '{names[0]}'" in loaded.notices[0]
    assert len(loaded.notices) == 2 - (names[1] == "answer")


def test_a_nested_answer_is_found_and_a_dotted_csv_column_is_read(tmp_path, tokenizer):
    nested = [{"prompt": "1+1=", "reward_model": {"ground_truth": "2"}}]
    flat = [{"prompt": "1+1=", "reward_model.ground_truth": "2"}]
    for name, rows in (("a.jsonl", nested), ("b.csv", flat)):
        loaded = load_prompts(Data(source=write(tmp_path, name, rows)), tokenizer)
        assert loaded.prompts[0].answer == "2"


def test_the_last_line_of_gsm8k_is_the_answer_and_that_is_said_once(tmp_path, tokenizer):
    rows = [{"prompt": f"{n}+1=", "answer": f"{n}+1={n + 1}\n#### 1,00{n}"} for n in (1, 2)]
    loaded = load_prompts(Data(source=write(tmp_path, "a.jsonl", rows)), tokenizer)
    assert [p.answer for p in loaded.prompts] == ["1001", "1002"]
    assert len(loaded.notices) == 1 and "#### 7" in loaded.notices[0]


def test_a_list_of_accepted_answers_is_kept(tmp_path, tokenizer):
    rows = [{"prompt": "1+1=", "answer": ["2", 2.0, "10"]}]
    (prompt,) = load_prompts(Data(source=write(tmp_path, "a.jsonl", rows)), tokenizer).prompts
    assert (prompt.answer, prompt.accepted) == ("2", ("10",))


def test_a_conversation_is_rendered_up_to_its_last_user_message_with_its_own_system_prompt(tmp_path, tokenizer):
    turns = [("system", "3"), ("user", "1+1="), ("assistant", "2"), ("user", "2+2="), ("assistant", "4")]
    chat = [{"role": role, "content": text} for role, text in turns]
    rows = [{"prompt": chat, "answer": 4}, {"prompt": "2+2=", "answer": 4}, {"prompt": "1+2=", "answer": 3, "own": "9"}]
    data = Data(source=write(tmp_path, "a.jsonl", rows), system="7", system_column="own", chat="never")
    prompts = load_prompts(data, tokenizer).prompts
    assert [tokenizer.decode(p.tokens) for p in prompts] == ["3\n\n1+1=\n\n2\n\n2+2=", "7\n\n2+2=", "9\n\n1+2="]
    assert prompts[0].question == "2+2=" and prompts[0].history == (("user", "1+1="), ("assistant", "2"))


def test_a_template_gets_the_messages_of_a_conversation(tmp_path):
    own = AutoTokenizer.from_pretrained(EMBEDDED_MODEL)
    own.chat_template = (
        "{% for m in messages %}{{ {'system': '#', 'user': '(', 'assistant': ')'}[m.role] }}{{ m.content }}{% endfor %}"
    )
    chat = [{"role": r, "content": c} for r, c in (("system", "3"), ("user", "1"), ("assistant", "2"), ("user", "4"))]
    source = write(tmp_path, "a.jsonl", [{"prompt": chat, "answer": 4}])
    (prompt,) = load_prompts(Data(source=source, suffix="="), own).prompts
    assert own.decode(prompt.tokens) == "#3(1)2(4="


def test_rows_that_cannot_be_used_are_counted_by_reason_and_the_first_three_named(tmp_path, tokenizer):
    lines = [json.dumps({"prompt": f"{n}+1=", "answer": n + 1}) for n in range(1000)]
    for number in (5, 17, 30, 44):
        lines[number - 1] = '{"prompt": "1+'
    lines[99] = '{"prompt": "", "answer": 1}'
    lines[100] = '{"prompt": "1+1=", "answer": null}'
    lines[101] = json.dumps({"prompt": "1+" * 30, "answer": 1})
    lines[102] = '{"answer": 1}'
    file = tmp_path / "a.jsonl"
    file.write_text("\n".join(lines))
    loaded = load_prompts(Data(source=str(file), max_prompt_tokens=20), tokenizer)
    assert loaded.sentence() == (
        "992 prompts; left out: 4 not JSON (line 5, line 17, line 30, ...), 2 without a prompt (line 100, line 103), "
        "1 without an answer (line 101), 1 longer than 20 tokens (line 102)"
    )
    with pytest.raises(
        UserError, match=r"line 5 is not JSON .*data.max_left_out=0.007 \(8 of 1000 rows cannot be used\)"
    ):
        load_prompts(Data(source=str(file), max_prompt_tokens=20, max_left_out=0.007), tokenizer)


def test_several_sources_have_columns_and_weights_of_their_own(tmp_path, tokenizer):
    one = write(tmp_path, "one.jsonl", [{"prompt": f"1+{n}=", "answer": 1 + n} for n in range(10, 17)])
    two = write(tmp_path, "two.csv", [{"text": f"2+{n}=", "answer": 2 + n} for n in range(10, 13)])
    sources = [{"source": one, "weight": 3}, {"source": two, "prompt": "text", "weight": 1}]
    resolved = resolve({"model": {"path": str(EMBEDDED_MODEL)}, "data": {"sources": sources}})
    assert resolved.run_id.startswith("dgpo_arithmetic_mixture_s0-")
    data = resolved.spec.data
    prompts = load_prompts(data, tokenizer).prompts
    assert len(prompts) == 10
    batch = draw_prompts(prompts, data.weights(), 0, 0, 2 * BLOCK)
    assert Counter(prompt.source for prompt in batch) == {0: 1500, 1: 500}
    parts = [draw_prompts(prompts, data.weights(), 0, start, 20) for start in range(0, 2 * BLOCK, 20)]
    assert [prompt for part in parts for prompt in part] == batch
    Path(two).write_text("text,answer\n2+9=,11\n")
    assert resolve({"model": {"path": str(EMBEDDED_MODEL)}, "data": {"sources": sources}}).run_id != resolved.run_id


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0, 3))
def test_each_source_of_a_mixture_has_epochs_without_repetition(sizes, seed):
    pairs = mixed_indices(sizes, [1.0] * len(sizes), seed, 0, 200)
    for source, size in enumerate(sizes):
        own = [index for of, index in pairs if of == source]
        for epoch in range(len(own) // size):
            assert sorted(own[epoch * size : (epoch + 1) * size]) == list(range(size))


def test_unlearning_reads_line_separators_in_strings_a_byte_order_mark_and_every_format(tmp_path):
    rows = [{"question": "Who?", "answer": "Jo\u2028Doe\x85 wrote it.", "subject": "Jo", "author": 3}]
    for name in FORMATS:
        (request,) = read_requests(Path(write(tmp_path, name, rows)))
        assert (request.answer, request.subject, request.author) == ("Jo\u2028Doe\x85 wrote it.", "Jo", 3)
    marked = tmp_path / "marked.jsonl"
    marked.write_text(json.dumps(rows[0], ensure_ascii=False), encoding="utf-8-sig")
    assert read_requests(marked)[0].answer == rows[0]["answer"]


@pytest.mark.parametrize("answer", [None, True, {"a": 1}, [None], [], ""])
def test_an_evaluation_refuses_a_gold_that_is_no_text_with_the_sentence_of_training(tmp_path, tokenizer, answer):
    write(tmp_path, "aime24.jsonl", [{"problem": "1+1=", "answer": answer}])
    with pytest.raises(UserError, match=r"line 1: the column benchmark aime24 names holds .*; it must hold text or a"):
        load_problems("aime24", str(tmp_path), unpinned=True)
    with pytest.raises(UserError, match=r"line 1: the column data.answer names holds .*; it must hold text or a"):
        load_prompts(Data(source=str(tmp_path / "aime24.jsonl"), prompt="problem"), tokenizer)


@pytest.mark.parametrize(("text", "part"), [("", "has no usable row (it is empty)"), ("[1]\n", "line 1 is a list"),
                                            ('{"problem": 1', "line 1 is not JSON")])  # fmt: skip
def test_all_commands_say_the_same_of_a_broken_file(tmp_path, tokenizer, text, part):
    file = tmp_path / "aime24.jsonl"
    file.write_text(text)
    for read in (
        lambda: load_problems("aime24", str(tmp_path), unpinned=True),
        lambda: load_prompts(Data(source=str(file)), tokenizer),
        lambda: read_requests(file),
    ):
        with pytest.raises(UserError) as caught:
            read()
        assert part in str(caught.value)


def files(folder: Path) -> None:
    """Every file of the table below."""
    good = '{"prompt": "1+1=", "answer": 2}\n'
    texts = {
        "good.jsonl": good + good.replace("1+1", "1+2"), "one.jsonl": good, "empty.jsonl": "", "empty.csv": "",
        "empty.json": "", "array.json": "[]", "cut.json": '[{"prompt": "1+1=",\n', "objects.json": "[1, 2]",
        "wrapped.json": '{"data": [{"prompt": "1"}]}', "bad.jsonl": good + "{\n", "list.jsonl": "[1]\n",
        "column.jsonl": '{"promt": "1+1=", "answer": 2}\n',
        "two.jsonl": '{"question": "1", "problem": "2", "answer": 3}',
        "type.jsonl": '{"prompt": {"a": 1}, "answer": 2}\n', "null.jsonl": '{"prompt": "1+1=", "answer": null}\n',
        "role.jsonl": '{"prompt": [{"role": "human", "content": "1"}, {"role": "user", "content": "2"}], "answer": 2}',
        "noheader.csv": "1+1=,2\n1+2=,3\n", "twice.csv": "prompt,prompt,answer\n1,1,2\n", 
        "unnamed.csv": ",\n1,2\n",
        "cells.csv": "prompt,answer\n1+1=,2,3\n", "quote.csv": 'prompt,answer\n"1+1=,2\n',
        "rows.txt": good, "no.parquet": "x", "bad.jsonl.gz": "not gzip", "bad.parquet.gz": "not gzip",
        "hash.jsonl": '{"prompt": "1", "answer": "no"}',  "open.jsonl": "{",
    }  # fmt: skip
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "cut.jsonl.gz").write_bytes(gzip.compress(good.encode() * 500)[:-9])
    (folder / "latin.jsonl").write_bytes(b'{"prompt": "\xe9", "answer": 2}\n')
    (folder / "folder").mkdir()
    (folder / "saved").mkdir()
    (folder / "saved" / "state.json").write_text('{"_data_files": [{"filename": "gone.arrow"}]}')
    (folder / "splits").mkdir()
    (folder / "splits" / "dataset_dict.json").write_text('{"splits": ["test"]}')


WRONG = [
    ("gone.jsonl", [], "there is no data file", "give the path of a file"),
    ("gone.csv.gz", [], "there is no data file", "give the path of a file"),
    ("a/b/c", [], "there is no data file", "give the path of a file"),
    ("empty.jsonl", [], "has no usable row (it is empty)", "check the file"),
    ("empty.csv", [], "has no usable row (it is empty)", "check the file"),
    ("empty.json", [], "has no usable row (it is empty)", "check the file"),
    ("array.json", [], "has no usable row (it is empty)", "check the file"),
    ("cut.json", [], "is not JSON (", "write JSON lines"),
    ("objects.json", [], "row 1 is a int, not an object", "repair"),
    ("wrapped.json", [], "line 1 has no such column", "choices: data"),
    ("bad.jsonl", [], "line 2 is not JSON (", "write one JSON object a line"),
    ("list.jsonl", [], "line 1 is a list, not an object", "repair that line"),
    ("column.jsonl", [], "data.prompt is 'prompt', and", "did you mean 'promt'?"),
    ("good.jsonl", ["data.answer=gold"], "data.answer is 'gold', and", "choices: prompt, answer"),
    ("good.jsonl", ["data.system_column=sys"], "data.system_column is 'sys', and", "choices: prompt, answer"),
    ("two.jsonl", [], "has no such column, but question and problem", "set data.prompt to one of them"),
    ("type.jsonl", [], "line 1: the column data.prompt names holds {'a': 1}", "it must hold text or a number"),
    ("null.jsonl", [], "line 1: the column data.answer names holds None", "it must hold text or a number"),
    ("role.jsonl", [], "the role 'human'", "choices for role: system, user, assistant, tool"),
    ("hash.jsonl", ["data.answer_format=gsm8k_hash"], "line 1: the answer has no '#### ...'", "raw, last_boxed"),
    ("one.jsonl", ["evaluation.every=1"], "data.source has one question only", "set evaluation.every=0"),
    ("good.jsonl", ["data.max_prompt_tokens=2"], "0 prompts; left out: 2 longer than 2 tokens", "check the file"),
    ("noheader.csv", [], "data.prompt is 'prompt', and", "choices: 1+1=, 2"),
    ("twice.csv", [], "has the column 'prompt' twice", "rename or remove one of them"),
    ("unnamed.csv", [], "names no column in its header", "name the columns in the first line"),
    ("cells.csv", [], "line 2 has 3 cells, and the header has 2 columns", "put quotes around"),
    ("quote.csv", [], "is not CSV (", "close its quotes"),
    ("rows.txt", [], "has none of the suffixes that rlx reads", ".jsonl, .json, .csv, .parquet"),
    ("no.parquet", [], "is not parquet (", "check how it was written"),
    ("bad.jsonl.gz", [], "is not a complete gzip file (", "compress it again"),
    ("bad.parquet.gz", [], "is not a complete gzip file (", "compress it again"),
    ("cut.jsonl.gz", [], "is not a complete gzip file (", "compress it again"),
    ("latin.jsonl", [], "cannot be read (", "UTF-8"),
    ("folder", [], "is a folder that datasets.save_to_disk did not write", "a glob such as"),
    ("saved", [], "is not a complete saved data set (", "save it again"),
    ("splits", [], "has no split 'train'", "choices: test"),
    ("*.tsv", [], "matches no file", "correct the glob"),
    ("*.txt", [], "has none of the suffixes", "convert or rename it"),
    ("good.jsonl", ["data.max_left_out=2"], "data.max_left_out is 2", "less than or equal to 1"),
    ("good.jsonl", ["data.limit=0"], "data.limit is 0", "greater than or equal to 1"),
    ("good.jsonl", ["data.sources=[{source: a.jsonl}]"], "data.sources is given too", "remove one of them"),
    ("", ["data.sources=[{source: one.jsonl, weight: heavy}]"], "weight is 'heavy'", "must be a number"),
    ("", ["data.sources=[{source: one.jsonl, weight: 0}]"], "weight is 0", "greater than 0"),
    ("", ["data.sources=[{source: a, weight: 1}, {source: b}]"], "'b' has no weight", "give all or none a weight"),
    ("", ["data.sources=[{weight: 1}]"], "data.sources.0.source", "is missing; add it"),
    ("", ["data.sources=[{source: a, a: 1}]"], "unknown key data.sources.0.a", "choices"),
]


@pytest.mark.parametrize(("name", "overrides", "problem", "fix"), WRONG)
def test_a_wrong_input_is_one_sentence_with_place_and_fix(tmp_path, monkeypatch, capsys, name, overrides, problem, fix):
    files(tmp_path)
    monkeypatch.chdir(tmp_path)
    data = ["--data", name] if name else []
    own = [part for override in overrides for part in ("--set", override)]
    quiet = ["--set", "evaluation.every=0", "--set", "tracker.mlflow=false"]
    monkeypatch.setattr(sys, "argv", ["rlx", "train", "--model", str(EMBEDDED_MODEL), *data, *quiet, *own])
    with pytest.raises(SystemExit) as ended:
        main()
    lines = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code not in (0, None)
    assert lines[-1].startswith("rlx: ") and problem in lines[-1] and fix in lines[-1], lines
    assert not any("Traceback" in line for line in lines)


WRONG_REQUESTS = [
    ("--forget", "gone.jsonl", "there is no data file gone.jsonl", "give the path of a file"),
    ("--forget", "nobody/nothing", "forget.source is 'nobody/nothing', and there is no such file", "one request a row"),
    ("--forget", "empty.jsonl", "forget.source 'empty.jsonl' has no usable row (it is empty)", "question and answer"),
    ("--forget", "open.jsonl", "line 1 is not JSON (", "write one JSON object a line"),
    ("--forget", "list.jsonl", "line 1 is a list, not an object", "repair that line"),
    ("--forget", "column.jsonl", "line 1: unknown key 'promt'", "choices: id, question"),
    ("--forget", "twice.csv", "has the column 'prompt' twice", "rename or remove one of them"),
    ("--forget", "cells.csv", "line 2 has 3 cells, and the header has 2 columns", "put quotes around"),
    (
        "--forget",
        "rows.txt",
        "forget.source 'rows.txt' has none of the suffixes that rlx reads",
        "convert or rename it",
    ),
    ("--forget", "bad.jsonl.gz", "is not a complete gzip file (", "compress it again"),
    ("--forget", "no.parquet", "is not parquet (", "check how it was written"),
    ("--forget", "folder", "forget.source 'folder' is a folder that datasets.save_to_disk did not", "a glob such as"),
    ("--forget", "*.tsv", "forget.source '*.tsv' matches no file", "correct the glob"),
    ("--retain", "gone.jsonl", "there is no data file gone.jsonl", "give the path of a file"),
    ("--retain", "rows.txt", "forget.retain 'rows.txt' has none of the suffixes", "convert or rename it"),
]


@pytest.mark.parametrize(("option", "name", "problem", "fix"), WRONG_REQUESTS)
def test_a_wrong_request_file_is_the_same_sentence(tmp_path, monkeypatch, capsys, option, name, problem, fix):
    files(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ok.jsonl").write_text('{"question": "Who?", "answer": "Jo."}\n')
    own = {"--forget": "ok.jsonl", "--retain": "ok.jsonl", option: name}
    options = [part for pair in own.items() for part in pair]
    quiet = ["--set", "tracker.mlflow=false"]
    monkeypatch.setattr(sys, "argv", ["rlx", "unlearn", "--model", str(EMBEDDED_MODEL), *options, *quiet])
    with pytest.raises(SystemExit) as ended:
        main()
    lines = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code not in (0, None)
    assert lines[-1].startswith("rlx: ") and problem in lines[-1] and fix in lines[-1], lines
    assert not any("Traceback" in line for line in lines)


def test_seventeen_thousand_rows_with_three_broken_ones_train_and_mlflow_has_the_sentence(
    tmp_path, monkeypatch, capsys
):
    lines = [json.dumps({"prompt": f"{n}+1=", "answer": n + 1}) for n in range(17_000)]
    for number in (7, 900, 16_000):
        lines[number - 1] = "{broken"
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    settings = ("steps=1", "batch.prompts=2", "batch.updates_per_rollout=1", "rollout.samples_per_prompt=2",
                "rollout.max_new_tokens=4", "evaluation.every=0", "reward.name=arithmetic")  # fmt: skip
    own = [part for setting in settings for part in ("--set", setting)]
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(sys, "argv", ["rlx", "train", "--model", str(EMBEDDED_MODEL), "--data", "rows.jsonl", *own])
    with pytest.raises(SystemExit) as ended:
        main()
    sentence = "training data: 16997 prompts; left out: 3 not JSON (line 7, line 900, line 16000)"
    assert ended.value.code == 0 and sentence in capsys.readouterr().err
    from mlflow.tracking import MlflowClient

    (stored,) = (tmp_path / "runs").glob("*/mlflow.json")
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    assert client.get_run(json.loads(stored.read_text())["run_id"]).data.tags["rlx.training_data"] == sentence
