"""--preview of train, unlearn and eval through the real entry point: what is printed, and that nothing is written."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, PreTrainedTokenizerFast
from typer.testing import CliRunner

from rlx.cli.app import app
from rlx.data.preview import histogram
from rlx.engine.load import load_trainable
from rlx.engine.memory import Setting, model_sizes, update_bytes, weight_bytes
from rlx.engine.skeleton import load_skeleton, plan_memory
from rlx.errors import UserError
from rlx.specs.train import Lora, Model, Sharding
from tests.architecture_checks import save_tiny

GSM8K = Path("../shared/data/bench/gsm8k_train.jsonl")
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory) -> Path:
    """A folder with the configuration and tokenizer of a chat model, and no weights."""
    folder = tmp_path_factory.mktemp("chat") / "model"
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        ["What is 2 + 3?"] * 4, trainers.BpeTrainer(special_tokens=special, initial_alphabet=alphabet)
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>", bos_token="<|endoftext|>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=len(tokenizer), eos_token_id=2, bos_token_id=0, **sizes)
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    return folder


def write(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def preview(*arguments: str):
    result = CliRunner().invoke(app, [*arguments, "--preview"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def questions(number=20):
    return [
        {"id": f"q{i}", "prompt": f"What is {i} + {i}?" + " Think." * (i % 5), "answer": 2 * i} for i in range(number)
    ]


def train_arguments(model: Path, data: Path, runs: Path, *more: str) -> list[str]:
    return ["train", "--model", str(model), "--data", str(data), "--runs-dir", str(runs), *more]


def test_a_preview_of_training_shows_data_prompts_lengths_rewards_and_size_and_writes_nothing(chat_model, tmp_path):
    data = write(tmp_path / "mine.jsonl", [*questions(), questions(1)[0]])
    runs = tmp_path / "runs"
    keys = ["--set", "evaluation.limit=4", "--set", "data.max_prompt_tokens=60", "--set", "data.system=Be brief."]
    keys += ["--set", "data.max_left_out=1"]
    done = preview(*train_arguments(chat_model, data, runs, *keys))
    assert done.exit_code == 0
    shown = done.stdout
    left_out = re.search(r"longer than data.max_prompt_tokens=60: (\d+) of 21 rows \((\d+\.\d)%\)", shown)
    assert left_out and 0 < int(left_out[1]) < 21 and float(left_out[2]) == round(int(left_out[1]) / 21 * 100, 1)
    assert f"{16 - int(left_out[1])} prompts; left out:" in shown and "1 duplicate question" in shown
    assert "held-out data: 4 prompts" in shown and "a response ends with <|im_end|>" in shown
    assert len(re.findall(r"^prompt q\d+ \(\d+ tokens\)$", shown, re.MULTILINE)) == 3
    first = r"  \| <\|im_start\|>system\n  \| Be brief.<\|im_end\|>\n  \| <\|im_start\|>user\n  \| What is \d+ \+ \d+\?"
    assert re.search(first, shown) and "<|im_end|>\n  | <|im_start|>assistant\n  | \n" in shown
    assert len(re.findall(r"^gold answer: \d+$", shown, re.MULTILINE)) == 3
    assert re.search(r"boxed +1 +0 +1 +0 +0 +0 +0", shown)
    assert "400 updates of 64 responses" in shown and "time: the updates of a step take at least" in shown
    assert re.search(
        r"memory of an update of 16,384 tokens: about [\d.]+ GiB of [\d.]+ GiB free on \w+: weights", shown
    )
    assert "problem:" not in shown and not runs.exists()


def test_a_reward_that_does_not_pay_the_gold_answer_is_a_problem_and_the_exit_code(chat_model, tmp_path):
    data = write(tmp_path / "mine.jsonl", [{**row, "answer": "about a dozen"} for row in questions()])
    done = preview(*train_arguments(chat_model, data, tmp_path / "runs", "--set", "reward.name=integer"))
    assert done.exit_code == 1
    assert "problem: reward integer does not pay the gold answer 'about a dozen' in any usual form" in done.stdout


def test_a_context_that_is_too_short_is_a_problem(chat_model, tmp_path):
    data = write(tmp_path / "mine.jsonl", questions())
    done = preview(*train_arguments(chat_model, data, tmp_path / "runs", "--set", "rollout.max_new_tokens=2048"))
    assert done.exit_code == 1
    assert re.search(r"problem: the longest prompt and rollout.max_new_tokens=2048 are \d+ tokens", done.stdout)


def test_the_embedded_examples_have_no_problem(tmp_path):
    for command in ("train", "unlearn", "eval"):
        done = preview(command, "--runs-dir", str(tmp_path / "runs"))
        assert done.exit_code == 0 and "problem:" not in done.stdout, command
    assert not (tmp_path / "runs").exists()


def test_a_preview_of_unlearning_shows_sequences_coverage_and_updates(chat_model, tmp_path):
    rows = [{"question": f"What is {i}?", "answer": f"It is number {i}.", "subject": f"number {i}"} for i in range(20)]
    forget, retain = write(tmp_path / "forget.jsonl", rows[:6]), write(tmp_path / "retain.jsonl", rows[6:])
    files = ["--forget", str(forget), "--retain", str(retain), "--set", "batch.forget=4", "--epochs", "3"]
    done = preview("unlearn", "--model", str(chat_model), *files, "--runs-dir", str(tmp_path / "runs"))
    assert done.exit_code == 0
    assert "6 requests to forget" in done.stdout and "14 rows to retain" in done.stdout
    assert "6 of 6 requests have a sensitive span" in done.stdout
    assert "  | What is 0?<|im_end|>\n  | <|im_start|>assistant\n  | It is number 0.<|im_end|>\n" in done.stdout
    assert "3 epochs of 2 updates, 6 in total" in done.stdout and "memory of an update" in done.stdout
    assert not (tmp_path / "runs").exists()


def test_a_preview_of_an_evaluation_shows_the_prompts_and_whether_the_grader_accepts_the_gold(chat_model, tmp_path):
    data = write(tmp_path / "mine.jsonl", questions())
    arguments = ["eval", str(chat_model), "--data", str(data), "--runs-dir", str(tmp_path / "runs"), "--n", "4"]
    done = preview(*arguments, "--max-new-tokens", "100", "--prompt", "{problem} Answer in a box.")
    assert done.exit_code == 0
    assert "data_mine (" in done.stdout and "20 of 20 problems, 4 responses each, protocol " in done.stdout
    assert "  | What is 0 + 0? Answer in a box.<|im_end|>" in done.stdout
    assert "80 responses of at most 100 tokens: at most 8,000 tokens" in done.stdout
    write(data, [{**row, "answer": "a dozen"} for row in questions()])
    done = preview(*arguments, "--grader", "integer")
    assert done.exit_code == 1 and "problem: reward integer does not pay the gold answer 'a dozen'" in done.stdout
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("content", "more", "sentence"),
    [
        (None, [], r"there is no data file .*mine.jsonl"),
        ("", [], r"data.source '.*mine.jsonl' has no usable row \(it is empty\)"),
        ('{"prompt": "1", "answer": [{}]}\n', [], r"line 1: the column data.answer names holds \{\}"),
        ('{"prompt": "1", "answer": null}\n', [], r"line 1: the column data.answer names holds None"),
        ('{"text": "1", "answer": "1"}\n', [], r"data.prompt is 'prompt', and .*line 1 has no such column"),
        ('{"prompt": "1", "answer": "1"}\n', ["--set", "data.max_prompt_tokens=1"], r"longer than 1 tokens"),
        ('{"prompt": "1", "answer": "1"}\n', ["--set", "reward.name=boxes"], r"did you mean 'boxed'"),
    ],
)
def test_what_the_run_would_refuse_the_preview_refuses_in_the_same_sentence(
    content, more, sentence, chat_model, tmp_path
):
    data = tmp_path / "mine.jsonl"
    if content is not None:
        data.write_text(content)
    with pytest.raises(UserError) as error:
        preview(*train_arguments(chat_model, data, tmp_path / "runs", *more))
    assert re.search(sentence, str(error.value)) and error.value.exit_code != 0


def test_a_study_has_no_preview(tmp_path):
    study = tmp_path / "study.yaml"
    study.write_text("axes: {seed: [1, 2]}\n")
    with pytest.raises(UserError, match="--preview does not go with a study; preview one of its runs"):
        preview("train", str(study))


def own_reward_preview(code: str, model, folder: Path, *more: str) -> tuple[int, str]:
    data = folder / "mine.jsonl"
    rows = [{"prompt": f"{i}+1=", "answer": str(i + 1), "level": i} for i in range(9)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "mine.py").write_text(code)
    reward = [] if more else ["--reward", f"{folder / 'mine.py'}:f"]
    done = preview(*train_arguments(model, data, folder / "runs", *reward, *more))
    return done.exit_code, done.stdout


def test_a_reward_of_ones_own_sees_the_columns_and_is_called_with_the_rows(chat_model, tmp_path):
    code = "def f(completions, level, **kwargs): return [2.0 * (c != '' and n < 9) for c, n in zip(completions, level)]"
    exit_code, shown = own_reward_preview(code, chat_model, tmp_path)
    assert exit_code == 1 and "mine.py:f pays 2 to noise" in shown.replace("\n", " "), shown
    missing = "def f(completion, levels): return 1.0"
    with pytest.raises(UserError, match="parameter 'levels' .* is no column of the data; did you mean 'level'"):
        own_reward_preview(missing, chat_model, tmp_path)


def test_a_reward_that_raises_is_a_problem_with_its_line(chat_model, tmp_path):
    exit_code, shown = own_reward_preview("def f(completion):\n    return 1 / 0", chat_model, tmp_path)
    assert exit_code == 1 and re.search(r"problem: reward .*mine.py:f' raised ZeroDivisionError.* line 2\)", shown), (
        shown
    )


def test_every_reward_of_several_is_shown_and_only_the_first_must_refuse_noise(chat_model, tmp_path):
    code = "def f(completion): return 1.0"
    rewards = f"rewards=[{{name: rlx}}, {{name: '{tmp_path / 'mine.py'}:f', weight: 0.5}}]"
    exit_code, shown = own_reward_preview(code, chat_model, tmp_path, "--set", rewards)
    assert exit_code == 0 and re.search(r"rlx +1 ", shown) and re.search(r"mine.py:f +1 .* 1 +1", shown), shown
    assert "problem" not in shown


def test_a_reward_that_pays_an_empty_answer_or_noise_is_a_problem(chat_model, tmp_path):
    exit_code, shown = own_reward_preview("def f(completion): return 0.5", chat_model, tmp_path)
    assert exit_code == 1
    assert "mine.py:f pays 0.5 to an empty answer" in shown and "mine.py:f pays 0.5 to noise" in shown


def test_a_histogram_counts_every_length_once():
    assert histogram([5]) == [f"     5 -     5  {'█' * 40}  1"]
    lines = histogram([1, 1, 1, 1, 20, 25])
    assert len(lines) == 9 and sum(int(line.split()[-1]) for line in lines) == 6
    assert lines[0] == f"     1 -     3  {'█' * 40}  4" and lines[1].endswith(f"{' ' * 40}  0")


@pytest.mark.parametrize("lora", [None, Lora(rank=4)])
def test_the_estimate_without_weights_is_that_of_the_loaded_model(lora, tmp_path):
    folder = save_tiny("llama", tmp_path / "tiny")
    spec = Model(path=str(folder), lora=lora, gradient_checkpointing=False, precision="float32")
    skeleton = load_skeleton(str(folder), spec)
    assert {parameter.device.type for parameter in skeleton.parameters()} == {"meta"}
    plan = plan_memory(skeleton, spec, Sharding(), 500, 1)
    loaded = load_trainable(str(folder), spec, torch.device("cpu"))
    sizes = model_sizes(loaded.get_base_model() if lora else loaded, loaded)
    setting = Setting(500, 4)
    assert (plan.parameters, plan.trained) == (sizes.parameters, sizes.trained)
    assert (plan.weights, plan.update) == (weight_bytes(sizes, setting), update_bytes(sizes, setting, False))
    assert plan.fits and not plan.recompute


@pytest.mark.skipif(not GSM8K.is_file(), reason="needs GSM8K's file")
def test_a_preview_of_gsm8k_takes_seconds(chat_model, tmp_path):
    data = ["--set", "data.prompt=problem", "--set", "data.max_prompt_tokens=4096"]
    arguments = train_arguments(chat_model, GSM8K.resolve(), tmp_path / "runs", *data)
    program = [sys.executable, "-m", "rlx.cli", *arguments, "--preview"]
    start = time.monotonic()
    done = subprocess.run(program, capture_output=True, text=True)
    seconds = time.monotonic() - start
    assert "6973 prompts" in done.stdout and done.returncode == 0, done.stderr
    assert seconds < 60, "about 5 s on an idle core; other processes use the cores of the tests too"
